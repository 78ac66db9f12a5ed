"""What the models of planned runs do not read of the prompts that are prepared for them."""

from collections.abc import Sequence

from featherseg.config import ModelConfig, Run
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason
from featherseg.core.paths import processed
from featherseg.data.prepared import SENTENCES, PreparedDataset, Sample, prompt_of
from featherseg.models import MODELS
from featherseg.models.readings import Readings, losses
from featherseg.tasks.segmentation.config import scoring_of, training_of

_NAMED = 3


def lost_prompts(runs: Sequence[Run]) -> list[str]:
    """What is cut or alike, a sentence for each kind of loss, which names the first few of the runs that have it.

    Runs whose weights are absent, and data that are not prepared or cannot be read, are skipped: what needs them
    says so.
    """
    names: dict[str, list[str]] = {}
    known: dict[tuple[str, str, frozenset[str]], list[str]] = {}
    for run in runs:
        if run.not_run is None:
            key = run.model.model_dump_json(), run.dataset, _policies(run)
            if key not in known:
                known[key] = _losses(run.model, run.dataset, _policies(run))
            for sentence in known[key]:
                names.setdefault(sentence, []).append(run.name)
    return [f"{_listed(runs_of)}: {sentence}" for sentence, runs_of in names.items()]


def _policies(run: Run) -> frozenset[str]:
    """The policies by which a run is given prompts."""
    if run.train is None:
        return frozenset([scoring_of(run).prompts])
    training = training_of(run)
    return frozenset([scoring_of(run).prompts, training.prompts, training.val_prompts])


def _losses(model: ModelConfig, dataset: str, policies: frozenset[str]) -> list[str]:
    folder = processed(dataset)
    try:
        if not (folder / "status.json").is_file() or not_run_reason(folder):
            return []
        samples = PreparedDataset.read(folder).samples
        reader = MODELS[model.name].reader(model).read
    except UserError:
        return []
    prompts = {prompt for sample in samples for policy in policies for prompt in _prompts(sample, policy)}
    return losses(Readings(reader, prompts).count(prompts))


def _prompts(sample: Sample, policy: str) -> list[str]:
    """The prompts of a sample that a policy may give."""
    if policy == "random":
        return [text for level, texts in sample.prompts.items() if level != "p0" for text in texts]
    if policy == SENTENCES and SENTENCES in sample.prompts:
        return sample.prompts[SENTENCES]
    return [prompt_of(sample, policy)]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
