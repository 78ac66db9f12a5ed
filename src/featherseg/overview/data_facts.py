"""What the data of a study say of themselves: leaks between splits, equal prompts, targets that vanish."""

from featherseg.core.files import read_object
from featherseg.core.markup import markdown_text
from featherseg.core.paths import processed
from featherseg.data.facts import FACTS, read_facts
from featherseg.reporting.study import Study


def summary(study: Study) -> str:
    """One line per dataset: its `facts.json`, and what its runs counted in it at their input sizes."""
    lines = []
    for dataset in dict.fromkeys(run.dataset for run in study.runs):
        folder = processed(dataset)
        counted = (folder / FACTS).is_file()
        sentences = read_facts(folder).sentences() if counted else ["Not prepared here."]
        text = " ".join([*sentences, *_counted_by_runs(study, dataset)])
        lines.append(f"- **{markdown_text(dataset)}**: {markdown_text(text)}")
    return "\n".join(lines)


def _counted_by_runs(study: Study, dataset: str) -> list[str]:
    """How many targets the scored runs of a dataset could not tell apart or see, equal counts once."""
    sentences: dict[str, None] = {}
    for run in study.runs:
        path = study.evaluate(run.name) / "metrics.json"
        if run.dataset != dataset or not path.is_file():
            continue
        for split, counts in read_object(path).get("targets", {}).items():
            sentences |= dict.fromkeys(_sentences(split, counts, run.model.image_size))
    return list(sentences)


def _sentences(split: str, counts: dict[str, int], size: int | None) -> list[str]:
    place = f"an input of {size} px" if size else "the model's input size"
    samples = f"of {counts['n']} samples of the split {split}"
    sentences = []
    if counts["alike"]:
        sentences.append(f"As scored, {counts['alike']} {samples} share their prompt with another target of their "
                         "image.")
    if counts["vanishing"]:
        sentences.append(f"{counts['vanishing']} {samples} have no pixel left at {place}.")
    return sentences
