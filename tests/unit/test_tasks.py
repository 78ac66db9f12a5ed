"""The seam between tasks and everything around them: finding a task, and what becomes of its scores."""

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import featherseg.tasks
from featherseg.config import write_yaml
from featherseg.core.errors import UserError
from featherseg.plan import idle_knob_notes, resolve_study
from featherseg.tasks import base
from featherseg.tasks.base import RECORD, TASKS, Metric, Score, records, score_table

METRICS = (Metric("dsc", by_target=True), Metric("hd95", "px", higher_is_better=False),
           Metric("oIoU", average="ratio"), Metric("P@0.5", average="share"),
           Metric("missed", "masks", higher_is_better=False, average="count"))


def made(*scores: Score) -> pd.DataFrame:
    return records(score_table(scores, METRICS), METRICS)


def test_each_metric_is_averaged_as_it_says():
    scores = [score for k, value in enumerate([0.25, 0.75, 0.5]) for score in (
        Score(f"s{k}", "test", "dsc", value), Score(f"s{k}", "test", "oIoU", 1.0 + k, weight=4.0),
        Score(f"s{k}", "test", "P@0.5", value > 0.5), Score(f"s{k}", "test", "missed", k == 2))]
    table = made(*scores).set_index("metric")
    assert list(table.index) == ["dsc", "oIoU", "P@0.5", "missed"]
    assert table.value.to_dict() == {"dsc": 0.5, "oIoU": 0.5, "P@0.5": 1 / 3, "missed": 1.0}
    assert table["std"].dsc == pytest.approx(np.std([0.25, 0.75, 0.5])) and table["std"].drop("dsc").isna().all()
    assert (table.n == 3).all() and table.unit.missed == "masks" and table.unit.dsc == "1"


def test_a_ratio_of_nothing_to_nothing_is_one():
    assert made(Score("s", "test", "oIoU", 0.0, weight=0.0)).value.tolist() == [1.0]


def test_splits_conditions_scopes_and_thresholds_stay_apart():
    table = made(*[Score(f"s{split}{k}", split, "dsc", k / 10, condition=condition, scope=scope, threshold=threshold)
                   for split in ("val", "test") for condition in ("own", "none") for scope in ("first", "all")
                   for threshold in (0.35, None) for k in range(2)])
    assert list(table.columns) == list(RECORD) and len(table) == 16 and (table.n == 2).all()
    assert table.split.drop_duplicates().tolist() == ["val", "test"]
    assert table.threshold.isna().sum() == 8 and (table[["member", "target"]] == "").all(axis=None)


def test_members_and_targets_have_records_beside_the_whole():
    scores = [Score(f"{member}/{target}", "test", metric, value, member=member, target=target)
              for member, target, value in (("", "liver", 0.2), ("busi", "tumour", 0.4), ("busi", "liver", 0.6))
              for metric in ("dsc", "hd95")]
    found = made(*scores).set_index(["metric", "member", "target"]).value.round(9).to_dict()
    assert found == {("dsc", "", ""): 0.4, ("dsc", "busi", ""): 0.5, ("dsc", "", "liver"): 0.4,
                     ("dsc", "", "tumour"): 0.4, ("hd95", "", ""): 0.4, ("hd95", "busi", ""): 0.5}


@pytest.mark.parametrize(("targets", "own_records"), [(1, 0), (2, 2), (base.MOST_TARGETS + 1, 0)])
def test_one_target_and_very_many_have_no_records_of_their_own(targets, own_records):
    table = made(*[Score(f"s{k}", "test", "dsc", 0.5, target=f"t{k}") for k in range(targets)])
    assert (table.target != "").sum() == own_records


def test_a_score_may_name_another_unit():
    assert made(Score("s", "test", "hd95", 1.0, unit="mm")).unit.tolist() == ["mm"]
    assert made(Score("s", "test", "hd95", 1.0)).unit.tolist() == ["px"]


def test_a_metric_that_is_not_declared_is_refused():
    with pytest.raises(ValueError, match="does not declare: accuracy"):
        made(Score("s", "test", "accuracy", 1.0))


def test_no_scores_make_no_records():
    assert made().empty and list(made().columns) == list(RECORD)
    assert math.isnan(made(Score("s", "test", "dsc", math.nan)).value[0])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder in which further tasks may be put."""
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    monkeypatch.setattr(featherseg.tasks, "__path__", [*featherseg.tasks.__path__, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("featherseg.tasks.toy")]:
        del sys.modules[name]


TOY = """
from featherseg.tasks.base import TASKS, Metric, Task

@TASKS.register("toy")
class Toy(Task):
    metrics = (Metric("accuracy"),)
    def build(self, run): ...
    def objective(self, run, model, dataset): ...
    def evaluate(self, run, model, dataset, splits, out): ...
"""


def test_a_folder_is_a_task(folder):
    (folder / "toy").mkdir()
    (folder / "toy" / "__init__.py").write_text(TOY)
    assert "toy" in TASKS and {"segmentation", "toy"} <= set(TASKS)
    assert TASKS["toy"].metrics == (Metric("accuracy"),)


def test_an_unknown_task_and_a_folder_without_one_are_named(folder):
    (folder / "toys").mkdir()
    (folder / "toys" / "__init__.py").write_text(TOY)
    with pytest.raises(UserError, match="unknown task 'toy': did you mean 'toys'"):
        TASKS["toy"]
    with pytest.raises(UserError, match=r"featherseg.tasks.toys registers no task of its own name"):
        TASKS["toys"]


SETTINGS = """
from featherseg.config import Strict, TrainConfig

class Margin(Strict):
    width: float = 0.0
    form: str = "hinge"

class ToyTrain(TrainConfig):
    margin: Margin = Margin()
    loss: Margin | None = None
"""


@pytest.fixture
def toy_project(folder, monkeypatch) -> Path:
    """A project beside whose segmentation there is a task with settings of its own, and a recipe of each."""
    (folder / "toy").mkdir()
    toy = f"{TOY}    train_settings = ToyTrain\n"
    (folder / "toy" / "__init__.py").write_text(SETTINGS + toy)
    (folder / "recipes").mkdir()
    monkeypatch.chdir(folder)
    row = {"title": "A row", "model": "unet", "adapter": {"name": "full"}}
    write_yaml("recipes/plain.yaml", row)
    write_yaml("recipes/shared/toy.yaml", {"task": "toy", "train": {"margin": {"width": 0.5, "form": "soft"}}})
    write_yaml("recipes/toy.yaml", row | {"extends": "shared/toy", "train": {"margin": {"width": 1.0}}})
    return folder


def declare(recipe: str, **sections: dict) -> None:
    study = {"recipes": [recipe], "datasets": ["lesions"], "seeds": [0]}
    model = {"weights": {"unet": "random-small"}}
    data = {"synthetic": {"lesions": {"images": 10, "size": 64}}}
    write_yaml("params.yaml", {"study": study, "model": model, "data": data, **sections})


def test_sections_of_a_task_are_merged_key_by_key(toy_project):
    """From the shared file to the recipe, and from there to the params; they are no values by dataset."""
    declare("toy", train={"margin": {"form": "linear", "width": None}})
    (run,) = resolve_study("study")
    assert run.train.margin.model_dump() == {"width": 1.0, "form": "linear"}
    assert idle_knob_notes("study") == []


@pytest.mark.parametrize(("recipe", "sections", "idle"), [
    ("plain", {"train": {"margin": {"width": 2.0, "form": None}}}, "'train.margin.width' is 2.0"),
    ("toy", {"train": {"prompts": "p1", "lr": 0.1}}, "'train.prompts' is 'p1'"),
    ("toy", {"evaluate": {"reliance": {}, "threshold": None}}, "'evaluate.reliance' is {}"),
    ("toy", {"train": {"loss": {"grid": "head", "width": 1.0}}}, "'train.loss.grid' is 'head'"),
])
def test_a_setting_of_another_task_alone_is_named(toy_project, recipe, sections, idle):
    """A note where other recipes have it, an error where none has: as other knobs, and no other is named."""
    declare(recipe, **sections)
    (run,) = resolve_study("study")
    assert idle_knob_notes("study") == [
        f"params.yaml: {idle}, which changes nothing: no run of this study has that knob."]
    (toy_project / "recipes" / f"{'toy' if recipe == 'plain' else 'plain'}.yaml").unlink()
    with pytest.raises(UserError, match=f"params.yaml: {idle}, but no recipe has that knob"):
        resolve_study("study")


@pytest.mark.parametrize(("key", "said"), [("widht", "did you mean 'train.loss.width'"), ("grod", "'train.loss.grid'")])
def test_a_misspelt_key_of_a_section_is_told_by_those_of_every_task(toy_project, key, said):
    declare("plain", train={"loss": {key: 1}})
    with pytest.raises(UserError, match=said):
        resolve_study("study")
