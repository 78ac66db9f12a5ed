"""Which modality decides, from the scores, and the paragraph that a reader can quote."""

from collections.abc import Callable, Mapping

from featherseg.data.prompts.wording import ATTRIBUTES
from featherseg.models.readings import losses
from featherseg.reliance.controls import BOTH, IMAGE_ONLY, LANGUAGE_ONLY, MUST_BE, NEITHER, ORACLE
from featherseg.reliance.record import Condition, Following, Interval, Modality, Record, Scores, Shapley
from featherseg.reliance.statistics import FEWEST
from featherseg.tasks.segmentation.image import BLUR, IMAGE, MEAN_COLOUR, OTHER_IMAGE
from featherseg.tasks.segmentation.text import NONE, OTHER_STRUCTURE, OWN, PERMUTED, TEXT

Conditions = dict[tuple[Modality, str], Condition]

MISLED = "image, though foreign prompts mislead"
UNDECIDED = "too few to tell"
CANNOT_TELL = "this set cannot tell"
LEAST_DROP = 0.02  # in DSC: a smaller one is no reliance, however significant
LEVEL = 0.05  # of the corrected p-value
RANDOMLY_MOVED = 0.25  # of ordered pairs, at most, by a model that answers at random
POOR = 0.1  # own DSC up to which there is little to rely on


def title(condition: str) -> str:
    """An intervention's name as tables and figures give it."""
    for interventions in (TEXT, IMAGE):
        if condition in interventions:
            return interventions[condition].title
    return condition.replace("_", " ")  # an intervention that this version no longer has


def verdict(scores: Scores) -> str:
    """Which modality decides the mask of a model, beside its controls (`measure`): `decides`, but `CANNOT_TELL` where
    one of `wrong_controls` shows that the data cannot tell."""
    answer = decides(scores)
    return CANNOT_TELL if answer != UNDECIDED and wrong_controls(scores.get("controls", {})) else answer


def wrong_controls(controls: Mapping[str, Scores]) -> dict[str, tuple[str, str]]:
    """Controls by name that do not come out as they must on data that can tell: their answer, and the right one.

    The oracle needs its prompt only where an image has several structures with prompts of their own.
    """
    wrong = {}
    for name, control in controls.items():
        right = IMAGE_ONLY if name == ORACLE and control["following"] is None else MUST_BE[name]
        if decides(control) != right:
            wrong[name] = decides(control), right
    return wrong


def decides(scores: Scores) -> str:
    """Which modality decides the mask, from the scores of one model.

    A modality counts where one of its exchanges costs at least `LEAST_DROP` in DSC, significantly (Holm's corrected p
    below `LEVEL`): prompts permuted, or another structure's prompt; images permuted, blurred, or replaced by their
    mean colour. Foreign prompts are of the kind that the model knows, unlike an empty one, which may confuse a model
    that reads nothing from it. Foreign images alone are too weak a test: where pictures are aligned, as chest X-rays
    are, another one's structures lie in nearly the same places. A model that reads its prompt need not need it: where
    the empty prompt costs less than half of what a foreign one costs, the image decides, and foreign prompts mislead
    (`MISLED`); not so where the mask follows the prompt from structure to structure, since an empty prompt then costs
    no more than the choice among few. Where all prompts are the same to the model, nothing can be told.
    """
    if scores["n_groups"] < FEWEST:
        return UNDECIDED
    if not exchanged(scores):
        return CANNOT_TELL
    language = relies(scores, "text", PERMUTED, OTHER_STRUCTURE)
    picture = relies(scores, "image", OTHER_IMAGE, MEAN_COLOUR, BLUR)
    drops = {condition["condition"]: condition["drop"] for condition in scores["conditions"]
             if condition["modality"] == "text"}
    foreign = max(drops.get(PERMUTED, 0.0), drops.get(OTHER_STRUCTURE, 0.0))
    if language and picture and drops[NONE] < foreign / 2 and not follows(scores):
        return MISLED
    return {(True, True): BOTH, (False, True): IMAGE_ONLY, (True, False): LANGUAGE_ONLY}.get(
        (language, picture), NEITHER)


def exchanged(scores: Scores) -> bool:
    """Whether any sample could get a prompt that the model reads as another one than its own."""
    return any(condition["condition"] in (PERMUTED, OTHER_STRUCTURE) and condition["same_as"] != OWN
               for condition in scores["conditions"])


def relies(scores: Scores, modality: Modality, *conditions: str) -> bool:
    """Whether one of these interventions on a modality costs enough, significantly."""
    tried = [condition for condition in scores["conditions"]
             if condition["modality"] == modality and condition["condition"] in conditions]
    return any(map(is_drop, tried))


def follows(scores: Scores) -> bool:
    """Whether a swapped prompt takes the mask along significantly more often than at random."""
    following = scores["following"]
    return bool(following and following["moved"]["low"] is not None and following["moved"]["low"] > RANDOMLY_MOVED)


def is_drop(condition: Condition) -> bool:
    """Whether an intervention costs at least `LEAST_DROP`, significantly."""
    return condition["drop"] >= LEAST_DROP and condition["p_holm"] < LEVEL


def is_gain(condition: Condition) -> bool:
    """Whether an intervention gains at least `LEAST_DROP`, significantly."""
    return condition["drop"] <= -LEAST_DROP and condition["p_holm"] < LEVEL


def gains(scores: Scores) -> list[Condition]:
    """The text interventions under which the masks are significantly better than with the own prompt, best first."""
    better = [condition for condition in tested(scores) if condition["modality"] == "text" and is_gain(condition)]
    return sorted(better, key=lambda condition: condition["drop"])


def remarks(record: Record) -> list[str]:
    """What a reader must know of the prompts, one sentence each: which interventions could not be made on any sample,
    which asked for nothing of their own, and what the model cannot read. Empty where there is nothing to say."""
    unmade = ", ".join(title(name) for name in record["fit_no_sample"])
    repeated = {condition["condition"]: condition["same_as"] for condition in record["conditions"]}
    same = ", ".join(f"{title(name)} ({title(other)})" for name, other in repeated.items() if other)
    too_long = [condition for condition in tested(record) if condition["modality"] == "text" and condition["n_cut"]]
    cut = ", ".join(f"{title(condition['condition'])} ({condition['n_cut']})" for condition in too_long)
    sentences = [f"Own prompts: {sentence}" for sentence in losses(record["own_prompts"])]
    if cut:
        sentences.append(f"Masks whose prompt was cut: {cut}.")
    if unmade:
        sentences.append(f"Could not be made on any sample of these data: {unmade}.")
    if same:
        sentences.append(f"The same prompts as another line, and tested once: {same}.")
    return sentences


def tested(record: Scores) -> list[Condition]:
    """The interventions that asked for something of their own."""
    return [condition for condition in record["conditions"] if condition["same_as"] is None]


def paragraph(scores: Scores, model: str, data: str) -> str:
    """What the scores say, in a few sentences.

    Args:
        scores: `scores.score`, or a record of `measure`, whose controls then tell whether the data can tell.
        model: how the model is called.
        data: how the data are called, with where they come from.
    """
    conditions: Conditions = {}
    for condition in scores["conditions"]:
        conditions[condition["modality"], condition["condition"]] = condition
    own, answer = scores["own"], verdict(scores)
    empty = f", {scores['n_empty_truth']} with an empty mask" if scores["n_empty_truth"] else ""
    structures, images = _count(scores["n_samples"], "structure"), _count(scores["n_images"], "image")
    sentences = [f"On {data} ({structures}{empty} in {images}), {_ANSWERS[answer].format(model=model)}"]
    if answer == CANNOT_TELL:
        sentences.append(_why_not(scores))
    sentences.append(f"Its DSC is {_percent(own)} with each image's own prompt.")
    if own["value"] < POOR:
        sentences.append("That is so little that nothing about its reliance should be read from it.")
    made = {key: words for key, words in _EXCHANGES.items()
            if key in conditions and conditions[key]["same_as"] != OWN}
    lost = [f"{_change(conditions[key])} when {words}" for key, words in made.items()]
    over = _count(scores["n_groups"], "patient or image", "patients or images")
    how = f"95 % bootstrap intervals over {over}" if own["low"] is not None else f"{over}: too few for intervals"
    if lost:
        sentences.append(f"It changes by {_listed(lost)} ({how}).")
    sentences += [*_gained(scores), *_not_excluded(conditions)]
    sentences += [_shared(scores["shapley"]), *_followed(scores["following"]), *_attributes(conditions)]
    return " ".join(sentences)


_EXCHANGES: dict[tuple[Modality, str], str] = {
    ("text", PERMUTED): "prompts are permuted among the samples",
    ("text", OTHER_STRUCTURE): "the prompt of another structure of the same image is given",
    ("text", NONE): "the prompt is left empty",
    ("image", OTHER_IMAGE): "images are permuted",
    ("image", BLUR): "images are blurred",
    ("image", MEAN_COLOUR): "nothing is left of the image but its mean colour",
}
_ANSWERS = {
    BOTH: "{model} relies on both: the prompt decides what is segmented, and the image where it lies.",
    MISLED: "{model} finds what to segment in the image, with hardly a need for the prompt, but a foreign prompt "
            "misleads it.",
    IMAGE_ONLY: "{model} goes by the image: no loss is shown when prompts are exchanged.",
    LANGUAGE_ONLY: "{model} goes by the prompt: no loss is shown when images are exchanged, blurred or left out.",
    NEITHER: "neither modality is shown to decide for {model}: no exchange of prompts or images costs DSC "
             "significantly.",
    UNDECIDED: f"it cannot be told what decides for {{model}}: that needs at least {FEWEST} patients or images.",
    CANNOT_TELL: "it cannot be told what decides for {model}.",
}


def _why_not(scores: Scores) -> str:
    """Why these data cannot tell what decides."""
    if not exchanged(scores):
        return "All have the same prompt, as the model reads it, so none could be exchanged."
    wrong = [f"{name} comes out as “{answer}” instead of “{right}”"
             for name, (answer, right) in wrong_controls(scores.get("controls", {})).items()]
    return f"Of the controls, whose answer is known, {_listed(wrong)}: this set cannot tell."


def _gained(scores: Scores) -> list[str]:
    """One sentence on the text interventions that give better masks than the own prompt, where there are any."""
    better = [f"{_change(condition)} with {title(condition['condition'])}" for condition in gains(scores)]
    return [f"Its own prompt is not its best: it gains {_listed(better)}."] if better else []


def _change(condition: Condition) -> str:
    return f"{_points(condition['drop'])} points{_interval(condition['high'], condition['low'], _points)}"


def _not_excluded(conditions: Conditions) -> list[str]:
    """For each modality that no exchange shows to decide: the largest loss that its intervals allow, if one counts."""
    sentences = []
    exchanges: dict[Modality, tuple[str, ...]] = {
        "text": (PERMUTED, OTHER_STRUCTURE), "image": (OTHER_IMAGE, MEAN_COLOUR, BLUR)}
    for modality, names in exchanges.items():
        made = [conditions[modality, name] for name in names if (modality, name) in conditions]
        ends = [condition["high"] for condition in made if condition["high"] is not None]
        largest = max(ends, default=0.0)
        if largest >= LEAST_DROP and not any(map(is_drop, made)):
            words = "prompts" if modality == "text" else "images"
            sentences.append(f"A loss of up to {100 * largest:.1f} points when {words} are exchanged is not excluded.")
    return sentences


def _points(drop: float) -> str:
    """A drop in DSC as a signed change in points, never a negative zero."""
    return f"{round(-100 * drop, 1) + 0.0:+.1f}"


def _shared(shapley: Shapley) -> str:
    if shapley["shares"] is None:
        return f"Nothing is shared out between image and text, because {shapley['why_no_shares']}."
    gain, absent, shares = 100 * shapley["gain"]["value"], shapley["absent"], shapley["shares"]
    return (f"Of the {gain:.1f} points of DSC that both bring over {absent['text']} with {absent['image']}, "
            f"{_share(shares['image'])} are due to the image and {_share(shares['text'])} to the prompt (Shapley "
            "shares).")


def _followed(following: Following | None) -> list[str]:
    if following is None:
        return []
    return [f"On images with several structures the mask lies most on the one that was asked for in "
            f"{_percent(following['accuracy'])} of cases (at random {100 * following['chance']:.0f} %), and a "
            f"swapped prompt takes it along in {_percent(following['moved'])} of pairs (at random "
            f"{100 * RANDOMLY_MOVED:.0f} % at most)."]


def _attributes(conditions: Conditions) -> list[str]:
    """One sentence on single attributes, where any was changed."""
    changed = {name: conditions.get(("text", f"flip_{name}")) for name in ATTRIBUTES}
    flips = {name: flip for name, flip in changed.items() if flip}
    if not flips:
        return []
    by_drop = sorted(flips.items(), key=lambda item: -item[1]["drop"])
    read = [f"{name} ({_points(flip['drop'])})" for name, flip in by_drop if is_drop(flip)]
    idle = [name for name, flip in flips.items() if not is_drop(flip)]
    parts = []
    if read:
        parts.append(f"changing {_listed(read, 'or')} costs DSC")
    if idle:
        parts.append(f"{'and no' if read else 'no'} loss is shown for {_listed(idle, 'or')}")
    return [f"Of the attributes in the prompt, {', '.join(parts)}."]


def _percent(value: Interval) -> str:
    return f"{100 * value['value']:.1f} %{_interval(value['low'], value['high'], _tenths)}"


def _share(share: Interval) -> str:
    return f"{100 * share['value']:.0f} %{_interval(share['low'], share['high'], _whole)}"


def _tenths(share: float) -> str:
    return f"{100 * share:.1f}"


def _whole(share: float) -> str:
    return f"{100 * share:.0f}"


def _interval(low: float | None, high: float | None, written: Callable[[float], str]) -> str:
    """An interval in brackets; the empty string where it is unknown."""
    return "" if low is None or high is None else f" ({written(low)} to {written(high)})"


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _listed(items: list[str], word: str = "and") -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"
