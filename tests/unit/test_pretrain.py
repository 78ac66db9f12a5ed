"""The embedded weights, and the pretraining that makes such weights."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from featherseg import models
from featherseg.config import ModelConfig, PretrainParams, parse, read_yaml
from featherseg.core.errors import UserError
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.models.etris.model import ViTETRIS
from featherseg.models.weights import read_state, weights_sha256
from featherseg.tasks.segmentation.pretrain import HELD_OUT_IMAGES, HELD_OUT_SEED, draw_scenes, held_out_dice, pretrain

FOLDER = Path("pipelines/pretrain/weights/clipseg-small")


def test_the_embedded_weights_are_those_that_were_pinned_and_small():
    assert weights_sha256(FOLDER) == (FOLDER / "SHA256").read_text().split()[0]
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 10_000_000


def test_on_held_out_scenes_the_prompt_decides():
    model = models.build(ModelConfig(name="clipseg", weights=str(FOLDER), image_size=64))
    own, other = held_out_dice(model, draw_scenes(HELD_OUT_IMAGES, HELD_OUT_SEED, 64))
    assert own >= 0.80, "with the shortest prompt that is unique in the image"
    assert other <= 0.30, "with the prompt of another object of the same image"


@pytest.fixture(scope="module")
def params() -> PretrainParams:
    given = read_yaml("pipelines/pretrain/params.yaml")["clipseg-small"]
    return parse(PretrainParams, {**given, "images": 8, "batch_size": 4, "epochs": 2, "size": 32}, "test")


@pytest.fixture
def few_held_out_scenes(monkeypatch):
    monkeypatch.setattr("featherseg.tasks.segmentation.pretrain.HELD_OUT_IMAGES", 2)


@pytest.mark.usefixtures("few_held_out_scenes")
def test_pretraining_writes_weights_that_load_and_goes_on_from_them(params, tmp_path):
    pretrain(params, tmp_path / "first")
    assert set(pd.read_csv(tmp_path / "first" / "log.csv").epoch) == {1, 2}
    model = models.build(ModelConfig(name="clipseg", weights=str(tmp_path / "first"), image_size=32))
    assert isinstance(model, CLIPSeg)
    pretrain(params, tmp_path / "second", start=tmp_path / "first")
    assert pd.read_csv(tmp_path / "second" / "log.csv").epoch.tolist() == [1, 2, 3, 4]
    first, second = read_state(tmp_path / "first"), read_state(tmp_path / "second")
    used = "decoder.reduces.0.weight"
    assert not torch.equal(first[used], second[used])


@pytest.mark.usefixtures("few_held_out_scenes")
def test_pretraining_is_deterministic(params, tmp_path):
    for name in "ab":
        pretrain(params, tmp_path / name)
    assert (tmp_path / "a" / "SHA256").read_text() == (tmp_path / "b" / "SHA256").read_text()


@pytest.mark.usefixtures("few_held_out_scenes")
def test_a_small_etris_is_pretrained_likewise(params, tmp_path):
    pretrain(params.model_copy(update={"model": "etris_vit", "epochs": 1}), tmp_path / "etris")
    model = models.build(ModelConfig(name="etris_vit", weights=str(tmp_path / "etris"), image_size=32, word_length=9))
    assert isinstance(model, ViTETRIS) and model.word_length == 9


@pytest.mark.parametrize(("log", "fault"), [
    (None, "log.csv cannot be read"), ("", "log.csv cannot be read"), ("epoch,loss\n1,0.5\n", "is not the log"),
    ("epoch,loss,dsc_unique_prompt,dsc_other_prompt,minutes\nx,1,1,1,1\n", "is not the log")])
def test_going_on_from_a_folder_without_its_log_is_one_sentence(params, tmp_path, log, fault):
    start = shutil.copytree(FOLDER, tmp_path / "start")
    (start / "log.csv").unlink()
    if log is not None:
        (start / "log.csv").write_text(log)
    with pytest.raises(UserError, match=fault) as error:
        pretrain(params, tmp_path / "out", start=start)
    assert "\n" not in str(error.value) and "--start" in str(error.value) and not (tmp_path / "out").exists()
