"""Another task, one folder and one recipe: it goes through the pipeline, up to the table that the overview shows of it,
without an edit outside of them."""

import io

import pandas as pd
import pytest

from conftest import EPOCHS, Workspace, ran

RUN = "colours-linear-lesions-0"
TASK = '''
"""Whole images in two classes, small and large targets, told apart by their mean colour."""

import torch
from torch import nn
from torch.nn import functional as F

from featherseg.tasks.base import TASKS, Metric, Score, Task
from featherseg.tasks.objective import Choice, Objective, parts, shuffled

CLASSES = ("small", "large")


def label(sample):
    return int(sample.area_fraction > 0.1)


def colours(dataset, samples):
    """Mean colours in 0..1, (N, 3)."""
    return torch.stack([torch.from_numpy(dataset.image(sample) / 255).float().mean(dim=(0, 1)) for sample in samples])


class Head(nn.Linear):
    """Mean colour (B, 3) in, logits (B, 2) out."""

    def __init__(self):
        super().__init__(3, len(CLASSES))


class ColourObjective(Objective):
    """Cross-entropy of whole images."""

    choice = Choice(selects="val_accuracy", plateau="val_accuracy")

    def __init__(self, run, model, dataset):
        super().__init__()
        self.run, self.model = run, model
        self.train_set, self.held_out = dataset.split("train"), dataset.split("val")
        samples = [*self.train_set, *self.held_out]
        self.colours = {sample.sample_id: colour for sample, colour in zip(samples, colours(dataset, samples))}

    def per_epoch(self, size):
        return len(self.train_set)

    def batches(self, epoch, size):
        return parts(shuffled(self.train_set, self.run.seed, epoch), size)

    def logits(self, batch):
        return self.model(torch.stack([self.colours[sample.sample_id] for sample in batch]))

    def forward(self, batch):
        return F.cross_entropy(self.logits(batch), torch.tensor([label(sample) for sample in batch]), reduction="none")

    @torch.no_grad()
    def measure(self, batch):
        right = self.logits(batch).argmax(dim=1) == torch.tensor([label(sample) for sample in batch])
        return right.double().unsqueeze(0)

    def scores(self, sums):
        return {"val_accuracy": sums[0] / len(self.held_out)}


@TASKS.register("colours")
class Colours(Task):
    name = "colours"
    metrics = (Metric("accuracy", average="share", by_target=True),)

    def build(self, run):
        torch.manual_seed(run.seed)
        return Head()

    def objective(self, run, model, dataset):
        return ColourObjective(run, model, dataset)

    def evaluate(self, run, model, dataset, splits, out):
        for split, samples in splits.items():
            with torch.no_grad():
                answers = model(colours(dataset, samples)).argmax(dim=1).tolist()
            for sample, answer in zip(samples, answers):
                yield Score(sample.sample_id, split, "accuracy", float(answer == label(sample)),
                            target=CLASSES[label(sample)])
'''
RECIPE = """
title: Mean colour
task: colours
model: unet   # whose weights are not read
adapter: {name: full}
image_size: 64
train: {lr: 0.1}
"""


# what the notebook 00_overview calls, and the table behind it
OVERVIEW = """
from featherseg.overview import other_tasks, runs, scores
from featherseg.reporting.study import open_study

study = open_study("study")
heading, shown = other_tasks.tables(study)
assert heading.data == "### colours" and "Mean colour" in shown.to_html(), heading.data
assert len(runs.table(study)) == 1 and "no method wins" in scores.verdict(study)
print(other_tasks.table("colours", study.every_task).to_csv(index=False))
"""


@pytest.fixture(scope="module")
def workspace(reproduced, tmp_path_factory) -> Workspace:
    """A checkout whose study is one run of the task, collected."""
    workspace = reproduced.copy(tmp_path_factory.mktemp("toy") / "featherseg")
    folder = workspace.path / "src/featherseg/tasks/colours"
    folder.mkdir()
    (folder / "__init__.py").write_text(TASK)
    (workspace.path / "recipes/colours-linear.yaml").write_text(RECIPE)
    workspace.edit("params.yaml", lambda params: params["study"].update(recipes=["colours-linear"]))
    workspace.output = workspace.dvc("repro", "collect")
    return workspace


def test_a_task_of_ones_own_trains_and_is_scored(workspace):
    assert {f"train@{RUN}", f"evaluate@{RUN}", "collect"} <= ran(workspace.output)
    history = pd.read_csv(workspace.path / f"runs/study/train/{RUN}/history.csv")
    assert list(history.columns) == ["epoch", "loss", "val_accuracy", "lr"] and len(history) == EPOCHS
    plan = (workspace.path / f"runs/study/plan/{RUN}.yaml").read_text()
    assert "task: colours" in plan and "val_prompts" not in plan and "loss" not in plan


def test_its_scores_become_records_without_a_word_of_masks(workspace):
    folder = workspace.path / f"runs/study/evaluate/{RUN}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.json", "per_sample.parquet", "results.parquet", "status.json"]
    scores, results = (pd.read_parquet(folder / f"{name}.parquet") for name in ("per_sample", "results"))
    whole = results[results.target == ""]
    assert whole[["split", "condition", "scope", "metric", "unit"]].values.tolist() == [
        ["test", "", "", "accuracy", "1"]]
    assert whole.value.tolist() == [scores.value.mean()] and whole.n.tolist() == [len(scores)]
    assert "threshold" in results and results.threshold.isna().all()


def test_its_records_become_the_overviews_table(workspace):
    printed = workspace.run("env", "PYTHONPATH=src", "python", "-W", "ignore", "-c", OVERVIEW)
    (line,) = pd.read_csv(io.StringIO(printed)).to_dict("records")
    results = pd.read_parquet(workspace.path / f"runs/study/evaluate/{RUN}/results.parquet")
    whole = results[results.target == ""].iloc[0]
    assert (line["dataset"], line["method"], line["samples"]) == ("lesions", "Mean colour", whole.n)
    assert line["accuracy"] == pytest.approx(whole.value, abs=1e-6)
    assert "synthetic stand-in" in line["where from"] and "DSC" not in line
