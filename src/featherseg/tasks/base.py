"""What a run does, and all that the engine, the stages and the reports know of it.

A task is one folder of `tasks/`. Nothing else lists it: `TASKS[name]` imports `featherseg.tasks.<name>`, which
registers one subclass of `Task`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from featherseg.config import EvaluateConfig, Run, TrainConfig
from featherseg.core.registry import PackageRegistry

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from featherseg.data.prepared import PreparedDataset, Sample
    from featherseg.tasks.objective import Objective

    Splits = dict[str, list[Sample]]

SHARE = "1"  # the unit of what lies between 0 and 1
MOST_TARGETS = 60  # of a split whose targets have records of their own
RECORD = ("split", "member", "target", "condition", "scope", "threshold", "metric", "value", "std", "n", "unit")
Average = Literal["mean", "ratio", "share", "count"]
ModelT = TypeVar("ModelT", bound="nn.Module")


@dataclass(frozen=True)
class Metric:
    """One measure of a task, declared once.

    Attributes:
        name: as in records.
        unit: of its value; a `Score` may name another.
        higher_is_better: which way is better; None where neither is.
        average: how a record follows from scores: `mean` of their values; `ratio`, the sum of values over the sum of
            weights, 1 where both are 0 (intersection over union); `share` of scores whose value is 1; or `count` of
            them.
        by_target: whether each target has a record of its own, where a split has 2 to `MOST_TARGETS` targets.
    """

    name: str
    unit: str = SHARE
    higher_is_better: bool | None = True
    average: Average = "mean"
    by_target: bool = False


class Score(NamedTuple):
    """One measured value of one sample: a row of `per_sample.parquet`.

    Attributes:
        sample_id, split: of the sample.
        metric: a name of the task's `metrics`.
        value: what was measured; 0 or 1 where the metric is a share or a count.
        weight: divides the value where the metric is a ratio; 1 otherwise.
        member: the data set that a pooled set took the sample from, "" in any other set.
        target: what is looked for, "" where a task has no targets.
        condition: under which the sample was tried, such as another prompt; "" where a task has one only.
        scope: the part of the samples' trials that the score enters, such as `first` or `all` sentences; "" where a
            task has one only.
        threshold: at which an answer was cut; None where nothing is cut.
        unit: where it is another than the metric's.
    """

    sample_id: str
    split: str
    metric: str
    value: float
    weight: float = 1.0
    member: str = ""
    target: str = ""
    condition: str = ""
    scope: str = ""
    threshold: float | None = None
    unit: str = ""


class Task(ABC, Generic[ModelT]):
    """A kind of work on images: how a model is built for it, what is minimised, and what is measured.

    `ModelT` is the kind of model that it builds.

    Attributes:
        name: under which it is registered, and which recipes give.
        metrics: every metric that its scores name, the main one first.
        train_settings, evaluate_settings: the keys of the sections `train` and `evaluate` of its recipes.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    train_settings: ClassVar[type[TrainConfig]] = TrainConfig
    evaluate_settings: ClassVar[type[EvaluateConfig]] = EvaluateConfig

    @abstractmethod
    def build(self, run: Run) -> ModelT:
        """The base model with its method, on the CPU, in the state in which a training starts."""

    @abstractmethod
    def objective(self, run: Run, model: ModelT, dataset: "PreparedDataset") -> "Objective":
        """What a training minimises and how it is validated; the model is on the device where it is trained."""

    @abstractmethod
    def evaluate(self, run: Run, model: ModelT, dataset: "PreparedDataset", splits: "Splits",
                 out: Path) -> Iterable[Score]:
        """The scores of a trained model, one by one.

        Args:
            model: in eval mode.
            splits: the samples of each split that is scored.
            out: the folder for whatever else the task keeps.
        """

    def plan_notes(self, runs: Sequence[Run]) -> list[str]:
        """What a user should know of planned runs before they are made, such as prompts that a model cuts."""
        return []


TASKS: PackageRegistry[type[Task[Any]]] = PackageRegistry("task", "featherseg.tasks", beside=("base", "objective"))


def score_table(scores: Iterable[Score], metrics: Iterable[Metric]) -> "pd.DataFrame":
    """Scores as `per_sample.parquet`: one row a score, a column an attribute, each with its unit.

    Raises:
        ValueError: a score names a metric that the task does not declare.
    """
    import pandas as pd

    units = {metric.name: metric.unit for metric in metrics}
    table = pd.DataFrame(list(scores), columns=list(Score._fields))
    if undeclared := set(table.metric) - set(units):
        raise ValueError(f"scores name metrics that the task does not declare: {', '.join(sorted(undeclared))}")
    table["threshold"] = table.threshold.astype(float)
    table["unit"] = table.unit.where(table.unit != "", table.metric.map(units))
    return table


def records(table: "pd.DataFrame", metrics: Iterable[Metric]) -> "pd.DataFrame":
    """A run's records, as `results.parquet`: one row for each metric of each split, condition, scope and threshold.

    Beside the whole split, each member of a pooled set has records, and each target those of the metrics that say so.

    Args:
        table: `score_table`.
        metrics: the task's.

    Returns:
        Columns `RECORD`, splits in the order of the scores, then conditions and metrics; `std` is that of the values
        at hand, with which only a mean comes, `n` the number of scores. Text that does not apply is empty.
    """
    import pandas as pd

    rows = []
    keys = ["split", "condition", "scope", "threshold", "metric"]
    declared = {metric.name: metric for metric in metrics}
    for key, scores in table.groupby(keys, sort=False, dropna=False):
        metric = declared[key[-1]]
        known = dict(zip(keys, key, strict=True))
        for part, of_part in _parts(scores, metric):
            rows.append({"member": "", "target": ""} | known | part | _averaged(of_part, metric))
    return pd.DataFrame(rows, columns=list(RECORD))


def _parts(scores: "pd.DataFrame", metric: Metric) -> Iterator[tuple[dict[str, str], "pd.DataFrame"]]:
    """All scores, those of each member, and those of each target."""
    yield {}, scores
    for member, part in scores.groupby("member"):
        if member:
            yield {"member": member}, part
    if metric.by_target and 2 <= scores.target.nunique() <= MOST_TARGETS:
        for target, part in scores.groupby("target"):
            yield {"target": target}, part


def _averaged(scores: "pd.DataFrame", metric: Metric) -> dict[str, float | int | str | None]:
    """What a record says of its scores."""
    known = {"n": len(scores), "unit": scores.unit.iloc[0], "std": None}
    if metric.average == "ratio":
        weight = scores.weight.sum()
        return known | {"value": float(scores.value.sum() / weight) if weight else 1.0}
    if metric.average == "count":
        return known | {"value": float(scores.value.sum())}
    if metric.average == "share":
        return known | {"value": float(scores.value.sum() / len(scores))}
    return known | {"value": float(scores.value.mean()), "std": float(scores.value.std(ddof=0))}
