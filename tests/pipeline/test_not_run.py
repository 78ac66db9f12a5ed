"""A paper's study whose data is not to be had: rows that say so, until the archive is put into its inbox."""

import csv
import json
import re
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from conftest import Workspace, ran
from featherseg.cli import main

STUDY = "pipelines/vlsm_adapter/dvc.yaml"
OPEN, CLOSED = "clipseg-decoder-kvasir_seg-41", "clipseg-decoder-bkai-41"
SPEC = "src/featherseg/data/official/kvasir_seg.py"


def shrink(params: dict) -> None:
    """One row on two sets, with the embedded weights."""
    params["study"] = {"datasets": ["kvasir_seg", "bkai"], "recipes": ["clipseg-decoder"], "seeds": [41]}
    params["model"] = {"weights": {"clipseg": "pipelines/pretrain/weights/clipseg-small"}, "image_size": 64}
    params["train"] = {"epochs": 1, "min_epochs": 0, "batch_size": 4, "precision": "no"}


@pytest.fixture(scope="module")
def study(clone, tmp_path_factory) -> Workspace:
    """The paper's study, shrunk, after a run without any archive and without a network.

    The lists of a mini archive are not the published ones, so their checksums are not pinned.
    """
    workspace = clone.copy(tmp_path_factory.mktemp("paper") / "featherseg")
    workspace.leave_out_pipelines("vlsm_adapter")
    workspace.edit("pipelines/vlsm_adapter/params.yaml", shrink)
    spec = (workspace.path / SPEC).read_text()
    (workspace.path / SPEC).write_text(re.sub(r'(train|val|test)="[0-9a-f]{64}"', r"\1=None", spec))
    workspace.commit("Declare a micro study of the paper")
    workspace.output = workspace.dvc("repro", f"{STUDY}:collect")
    return workspace


def results(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The record of each run of the study."""
    with open(workspace.path / "reports/vlsm_adapter/runs.csv", encoding="utf-8") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def picture(value: np.ndarray, kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(value).save(buffer, kind)
    return buffer.getvalue()


def put_archive(workspace: Workspace) -> None:
    """Twelve images in the official layout, and their lists, into the inbox."""
    inbox, rng = workspace.path / "data/inbox/kvasir_seg", np.random.default_rng(0)
    names = [f"polyp{number}.jpg" for number in range(12)]
    with zipfile.ZipFile(inbox / "kvasir-seg.zip", "w") as archive:
        for number, name in enumerate(names):
            image, mask = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), np.zeros((48, 64), dtype=np.uint8)
            mask[8:24, 4 * number:4 * number + 16] = 255
            archive.writestr(f"Kvasir-SEG/images/{name}", picture(image, "JPEG"))
            archive.writestr(f"Kvasir-SEG/masks/{name}", picture(mask, "JPEG"))
    for split, part in (("train", names[:6]), ("val", names[6:9]), ("test", names[9:])):
        rows = [{"img_name": name, "mask_name": name, "prompts": {"p0": "", "p1": "polyp"}} for name in part]
        (inbox / f"{split}.json").write_text(json.dumps(rows))


def test_rows_without_data_say_why_and_the_rest_goes_on(study):
    assert {f"{STUDY}:plan", f"{STUDY}:train@{CLOSED}", f"{STUDY}:evaluate@{OPEN}", f"{STUDY}:collect"} <= ran(
        study.output)
    rows = results(study)
    assert {row["status"] for row in rows.values()} == {"not_run"} and set(rows) == {OPEN, CLOSED}
    assert "Kaggle" in rows[CLOSED]["reason"] and "data/inbox/bkai" in rows[CLOSED]["reason"]
    assert "data/inbox/kvasir_seg" in rows[OPEN]["reason"]
    assert ran(study.dvc("repro", f"{STUDY}:collect")) == set()


def test_the_list_says_what_is_missing(study, monkeypatch, capsys):
    monkeypatch.chdir(study.path)
    main(["plan", "--study", "vlsm_adapter", "--list"])
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(listed) == {OPEN, CLOSED}
    assert listed[CLOSED].startswith("not run: ") and "Kaggle" in listed[CLOSED]


def test_an_archive_in_the_inbox_makes_exactly_its_rows_run(study, tmp_path):
    workspace = study.copy(tmp_path / "featherseg")
    put_archive(workspace)
    output = workspace.dvc("repro", f"{STUDY}:collect")
    data = {f"pipelines/data/dvc.yaml:{stage}@kvasir_seg" for stage in ("download", "prepare")}
    assert ran(output) == data | {f"{STUDY}:train@{OPEN}", f"{STUDY}:evaluate@{OPEN}", f"{STUDY}:collect"}
    rows = results(workspace)
    assert rows[OPEN]["status"] == "ok"
    with open(workspace.path / "reports/vlsm_adapter/results.csv", encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    assert {row["run"] for row in scores} == {OPEN} and all(float(row["value"]) >= 0 for row in scores)
    assert rows[CLOSED]["status"] == "not_run"
