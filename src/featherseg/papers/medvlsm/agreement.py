"""How far the prompt engine's words agree with the published ones, attribute by attribute."""

import csv
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path
from featherseg.core.markup import csv_cell
from featherseg.data.prepared import PreparedDataset
from featherseg.data.prompts.fields import FIELDS, Field
from featherseg.data.prompts.prompt_engine import measure, parts_of
from featherseg.data.prompts.wording import ATTRIBUTES, location_word
from featherseg.data.raw.specs import SPECS
from featherseg.reporting.page import page

SHAPE_OF = {"round": "round", "circle": "round", "circular": "round", "oval": "oval", "ovoid": "oval",
            "triangle": "triangular", "triangular": "triangular", "square": "square",
            "rectangle": "rectangular", "rectangular": "rectangular", "irregular": "irregular"}
RELEASED = "location, placed as released"
NONE = "(none)"
_DRAWS = 1000
_SHOWN = 7
_SUMMARY = ("How far the words that the prompt engine measures agree with the published ones, attribute by attribute, "
            "and why they differ where they do.")


@dataclass(frozen=True)
class Agreement:
    """The words of one attribute in one dataset, sample by sample, in the same order.

    Attributes:
        dataset, split, attribute: what was compared; `RELEASED` is the location by the released code's own rule.
        published: words of the published prompts, a synonym as the engine's word where there is one.
        measured: the engine's words, `NONE` where it could measure nothing.
        note: what else the page should say.
    """

    dataset: str
    split: str
    attribute: str
    published: tuple[str, ...]
    measured: tuple[str, ...]
    note: str = ""

    @property
    def share(self) -> float:
        """Share of samples with the same word."""
        return float(np.mean([a == b for a, b in zip(self.published, self.measured, strict=True)]))

    @property
    def chance(self) -> float:
        """Share that always saying the most frequent published word would reach."""
        return Counter(self.published).most_common(1)[0][1] / len(self.published)

    @property
    def kappa(self) -> float:
        """Cohen's kappa."""
        return cohens_kappa(self.published, self.measured)

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """95 % interval of kappa, by drawing samples with replacement; draws in which it is undefined are left out."""
        rng, published, measured = np.random.default_rng(seed), np.array(self.published), np.array(self.measured)
        drawn = (rng.integers(len(published), size=len(published)) for _ in range(_DRAWS))
        kappas = np.array([cohens_kappa(published[chosen], measured[chosen]) for chosen in drawn])
        kept = kappas[~np.isnan(kappas)]
        return tuple(np.percentile(kept, [2.5, 97.5]).tolist()) if len(kept) else (float("nan"), float("nan"))


def write_agreement(folders: Sequence[Path], out_dir: Path, split: str = "test") -> list[Agreement]:
    """Compare prepared datasets and write `agreement.csv`, `confusion.csv` and `agreement.html`.

    Raises:
        UserError: a folder is no prepared dataset, or has no published attributes in that split.
    """
    found = [result for folder in folders for result in agreements(PreparedDataset.read(folder), split)]
    with atomic_path(out_dir / "agreement.csv") as beside:
        _write_table(beside, _summary(found))
    with atomic_path(out_dir / "confusion.csv") as beside:
        _write_table(beside, [{"dataset": one.dataset, "attribute": one.attribute, "published": published,
                               "measured": measured, "samples": count}
                              for one in found for (published, measured), count in sorted(
                                  Counter(zip(one.published, one.measured, strict=True)).items())])
    with atomic_path(out_dir / "agreement.html") as beside:
        beside.write_text(page("Words of the prompt engine and published words", _body(found), _SUMMARY),
                          encoding="utf-8")
    return found


def agreements(dataset: PreparedDataset, split: str = "test") -> list[Agreement]:
    """The comparison of every attribute, and of the location as the released code places it.

    Samples without published attributes are left out; the engine's words are those of the dataset's field.

    Raises:
        UserError: no sample of the split has published attributes.
    """
    samples = [sample for sample in dataset.split(split) if all(sample.attributes.get(name) for name in ATTRIBUTES)]
    if not samples:
        raise UserError(f"{dataset.path} has no sample of the split {split!r} with published attributes; give a "
                        "dataset whose lists have cumulative prompts P1 to P6.")
    name = samples[0].dataset
    field = FIELDS[getattr(SPECS.get(name), "field", "general")]
    measured = [measure(dataset.image(sample), dataset.mask(sample), field, sample.target) for sample in samples]
    found = [Agreement(name, split, attribute,
                       tuple(canonical(attribute, sample.attributes[attribute], field) for sample in samples),
                       tuple(words[attribute] or NONE for words in measured)) for attribute in ATTRIBUTES]
    stretch = _released_stretch(dataset)
    placed = tuple(", ".join(_released_places(dataset.mask(sample), stretch)) or NONE for sample in samples)
    location = next(one for one in found if one.attribute == "location")
    note = f"width taken as {stretch:.2f} times that of the images compared, the best fit to their training split"
    note += "; so these are narrower than the published ones, and outlines with them" if stretch > 1.05 else ""
    return [*found, Agreement(name, split, RELEASED, location.published, placed, note)]


def canonical(attribute: str, word: str, field: Field) -> str:
    """A published word in the engine's vocabulary where it is a synonym, else as it was published."""
    if attribute == "shape" and word in SHAPE_OF:
        return field.shapes[SHAPE_OF[word]]
    return {"gray": "grey"}.get(word, word) if attribute == "colour" else word


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Agreement of two raters beyond chance (Cohen, 1960): 1 perfect, 0 as by chance; NaN where chance alone is 1."""
    total = len(first)
    seen = sum(a == b for a, b in zip(first, second, strict=True)) / total
    shares, others = Counter(first), Counter(second)
    chance = sum(count * others[word] for word, count in shares.items()) / total ** 2
    return (seen - chance) / (1 - chance) if chance < 1 else float("nan")


def _released_stretch(dataset: PreparedDataset) -> float:
    """How many times wider than stored the images were when the released code placed words, by the training split.

    1 for images of original resolution, width / height for images that are stored as squares.
    """
    samples = [sample for sample in dataset.split("train") if sample.attributes.get("number") == "one"]
    masks = [dataset.mask(sample) for sample in samples]
    stretches = np.arange(0.8, 1.81, 0.05)
    hits = np.array([sum(_released_places(mask, stretch) == [sample.attributes["location"]]
                         for mask, sample in zip(masks, samples, strict=True)) for stretch in stretches])
    return float(np.median(stretches[hits == hits.max()]))


def _released_places(mask: np.ndarray, stretch: float) -> list[str]:
    """Places of a mask's parts where the middle of the width, too, is compared with thirds of the height.

    medvlsm's `utils/annotations/features_from_img.py` at 3e8a80b does so.
    """
    if not mask.any():
        return []
    height = mask.shape[0]
    return [location_word(min(stretch * (part.left + part.right) / 2 / height, 0.999),
                          (part.top + part.bottom) / 2 / height) for part in parts_of(mask)]


def _summary(found: Sequence[Agreement]) -> list[dict[str, object]]:
    lines = []
    for one in found:
        low, high = one.interval()
        lines.append({"dataset": one.dataset, "split": one.split, "attribute": one.attribute,
                      "samples": len(one.published), "not measured": one.measured.count(NONE),
                      "published words": len(set(one.published)), "agreement": round(one.share, 4),
                      "most frequent word": round(one.chance, 4), "kappa": round(one.kappa, 4),
                      "kappa 95 % from": round(low, 4), "to": round(high, 4)})
    return lines


def _write_table(path: Path, lines: Sequence[dict[str, object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)


def _body(found: Sequence[Agreement]) -> str:
    """The page: what was compared, the figures, what they mean, and who said what instead of what."""
    names = list(dict.fromkeys(one.dataset for one in found))
    compared = " and ".join(f"{name} ({len(next(one for one in found if one.dataset == name).published)} samples)"
                            for name in names)
    sections = [f"<h2>{html.escape(name)}: which word stands for which</h2>\n<p>Rows are published words, columns the "
                "engine's; counts of samples. Agreement lies where both words are the same (bold).</p>\n"
                + "\n".join(_confusion(one) for one in found if one.dataset == name) for name in names]
    return "\n".join([
        '<nav><a href="../index.html">all reports</a> · <a href="agreement.csv">figures</a> · '
        '<a href="confusion.csv">counts</a></nav>',
        "<h1>Words of the prompt engine and published words</h1>",
        f"<p>{_SUMMARY}</p>",
        "<p>The prompt engine measures number, size, location, shape and colour on masks and pixels, for datasets "
        f"whose prompts nobody published. Here it is run where prompts <em>are</em> published, on the split "
        f"<code>{html.escape(found[0].split)}</code> of {html.escape(compared)}, on which nothing was fitted, and its "
        "words are compared with those of MedVLSM's lists (arXiv 2308.07706).</p>",
        _figures(found), _meaning(found), *sections])


def _figures(found: Sequence[Agreement]) -> str:
    head = ("dataset", "attribute", "samples", "not measured", "agreement", "most frequent word", "kappa", "95 %")
    lines = []
    for one in found:
        low, high = one.interval()
        kappa = "–" if np.isnan(one.kappa) else f"{one.kappa:.2f}"
        between = "–" if np.isnan(low) else f"{low:.2f} to {high:.2f}"
        lines.append((html.escape(one.dataset), one.attribute, len(one.published), one.measured.count(NONE),
                      f"{one.share:.1%}", f"{one.chance:.1%}", kappa, between))
    notes = "".join(f"<li>{html.escape(one.dataset)}, {html.escape(one.attribute)}: {html.escape(one.note)}.</li>"
                    for one in found if one.note)
    return (_table(head, lines, text=2) + '<p class="muted">“Most frequent word” is what saying the most frequent '
            "published word every time would reach; kappa (Cohen) is 0 for agreement by chance, 1 for perfect "
            f"agreement, – where one word stands alone on both sides; intervals are from {_DRAWS:,} bootstrap "
            f'draws.</p><ul class="muted">{notes}</ul>')


def _confusion(one: Agreement) -> str:
    """One attribute's counts; words beyond the most frequent ones are summed up as others."""
    def shown(words: Sequence[str]) -> list[str]:
        return [word for word, _ in Counter(words).most_common(_SHOWN)]

    rows, columns = shown(one.published), shown(one.measured)
    counts = Counter((published if published in rows else None, measured if measured in columns else None)
                     for published, measured in zip(one.published, one.measured, strict=True))
    rest_rows, rest_columns = (len(set(words)) - len(kept)
                               for words, kept in ((one.published, rows), (one.measured, columns)))
    lines = []
    for row in [*rows, *([None] if rest_rows else [])]:
        cells = [counts[row, column] for column in [*columns, *([None] if rest_columns else [])]]
        marked = [f"<b>{count}</b>" if row is not None and row == column and count else str(count or "·")
                  for count, column in zip(cells, [*columns, None], strict=False)]
        lines.append((html.escape(row) if row else f"{rest_rows} others", *marked, sum(cells)))
    head = (one.attribute, *map(html.escape, columns), *([f"{rest_columns} others"] if rest_columns else []), "all")
    return f"<h3>{html.escape(one.attribute)}</h3>\n" + _table(head, lines, text=1)


def _table(head: Sequence[str], lines: Sequence[Sequence[object]], text: int) -> str:
    """An HTML table of cells that are HTML already; the first `text` columns are aligned to the left."""
    left = ' style="text-align: left"'

    def row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{left if number < text else ''}>{cell}</{tag}>"
                                for number, cell in enumerate(cells)) + "</tr>"

    body = "\n".join(row(line, "td") for line in lines)
    return f'<div class="scroll"><table><thead>{row(head, "th")}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _meaning(found: Sequence[Agreement]) -> str:
    """What the figures mean, with the counts that show it."""
    several, sides = [], []
    for one in found:
        if one.attribute == "number":
            single = [word for word, count in zip(one.published, one.measured, strict=True) if count == "one"]
            several.append(f"{len(single) - single.count('one')} of {len(single)} in {html.escape(one.dataset)}")
        if one.attribute == "location":
            said = [f"{words.count('right')} and {words.count('left')}" for words in (one.published, one.measured)]
            sides.append(f"in {html.escape(one.dataset)} {said[0]} times, the engine {said[1]} times")
    return f"""<h2>What the figures mean</h2>
<ul>
<li><b>Size</b> is area: small, medium and large part at 8 % and 30 % of the image, tiny below 0.1 %. Both limits come
out of a fit to the training splits, and are those of the released utility (<code>features_from_img.py</code> in the
history of naamiinepal/medvlsm, commit 3e8a80b). Where the lists name several sizes, the engine names that of the
largest part.</li>
<li><b>Number</b> is the count of connected parts. The released utility counts every part, however small, in JPEG masks
such as those of Kvasir-SEG specks of compression too, so the lists say more than one where the engine finds one part
that is no speck: {"; ".join(several)}. Kappa is low where nearly every sample has one part.</li>
<li><b>Location</b> differs for a reason that can be named: the released utility compares the middle of the width with
thirds of the <em>height</em>, so that on wide pictures “right” is said of what lies in the middle, and “left” hardly
ever. The lists say “right” and “left” {"; ".join(sides)}. The engine compares width with width. The line “{RELEASED}”
follows the released rule instead: what agreement it gains is due to that slip. Prompts of the lists are kept as they
were published.</li>
<li><b>Shape</b> and <b>colour</b>: the repository has no code that makes them, and their words (in the lists of
Kvasir-SEG also “it is a round shape”, “middle of ear”, “mouth”, “a large bone”) are free answers, as a visual question
answering model gives them. They depend on the mask's outline and pixels weakly at best: no limit between round and
oval brings kappa above 0.11 in the training split of Kvasir-SEG, or above 0 in that of ISIC 2016. The engine's shapes
are geometry; its colours are a discriminant of the median colour, fitted to the training split. A low figure here does
not say which of the two is wrong.</li>
</ul>
<p>The limits and colours are printed by <code>scripts/fit_words.py</code>, which reads training splits only.</p>"""
