"""Freezing a BatchNorm's weights freezes its statistics too, unless a run asks for what the released code does."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from featherseg import adapters, models
from featherseg.config import ModelConfig, Run
from featherseg.core.files import sha256_file
from featherseg.engine import train
from featherseg.models.etris.config import small_resnet_config
from featherseg.models.etris.model import build_etris
from featherseg.tasks.segmentation.config import LossConfig, SegmentationTrain
from featherseg.tasks.segmentation.predict import load_model

STEM = "net.backbone.visual.bn1.running_mean"
CONNECT = "net.backbone.visual.attnpool.connect.1.running_var"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a small random ETRIS on a ResNet, for 64 px."""
    torch.manual_seed(0)
    model, folder = build_etris("etris_r50", small_resnet_config()), tmp_path_factory.mktemp("weights")
    (folder / "config.json").write_text(json.dumps(model.architecture()))
    save_file({name: tensor.contiguous() for name, tensor in model.net.state_dict().items()},
              folder / "model.safetensors")
    return folder


@pytest.fixture
def run_of(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    data = tiny.tiny_data(tmp_path / "data", train=6, val=2)

    def make(frozen_batchnorm, adapter):
        loss = LossConfig(lambda_dice=0, grid="head")
        run = Run(study="tests", recipe="tiny", dataset="squares", seed=1, adapter=adapter,
                  train=SegmentationTrain(epochs=2, batch_size=4, schedule="constant", lr=1e-3, loss=loss),
                  model=ModelConfig(name="etris_r50", weights=str(weights), word_length=9,
                                    sha256=sha256_file(weights / "model.safetensors"),
                                    frozen_batchnorm=frozen_batchnorm),
                  evaluate={"splits": ("val",)})
        train(run, data, tmp_path / "train", tmp_path / "info.json")
        return run, tmp_path / "train", load_file(tmp_path / "train" / "checkpoint.safetensors")

    return make


METHODS = [{"name": "decoder"}, {"name": "bridger", "dim": 8, "heads": 2}]


@pytest.mark.parametrize("adapter", METHODS, ids=lambda adapter: adapter["name"])
def test_statistics_of_frozen_layers_stay_fixed_through_the_engine(run_of, adapter):
    run, folder, saved = run_of("fixed", adapter)
    assert STEM not in saved and CONNECT not in saved
    base = models.build(run.model, run.seed).state_dict()
    trained = load_model(run, folder).state_dict()
    frozen = [name for name in base if name.startswith("net.backbone.") and "running" in name]
    assert len(frozen) > 20 and all(torch.equal(base[name], trained[name]) for name in frozen)
    assert any("running_mean" in name for name in saved), "the head's own statistics are trained"


@pytest.mark.parametrize("adapter", METHODS, ids=lambda adapter: adapter["name"])
def test_as_published_they_move_and_the_checkpoint_holds_them(run_of, adapter):
    run, folder, saved = run_of("published_moving", adapter)
    base = models.build(run.model, run.seed).state_dict()
    frozen = [name for name in base if name.startswith("net.backbone.") and "running" in name]
    trained = load_model(run, folder).state_dict()
    assert {STEM, CONNECT} <= set(frozen)
    for name in frozen:
        assert name in saved and not torch.equal(base[name], trained[name]), name
        assert torch.equal(saved[name], trained[name])
    weight = STEM.replace("running_mean", "weight")
    assert weight not in saved and torch.equal(base[weight], trained[weight])


def test_full_trains_them_either_way(weights):
    for moves in ("fixed", "published_moving"):
        model = models.build(ModelConfig(name="etris_r50", weights=str(weights), frozen_batchnorm=moves))
        adapters.apply(model, {"name": "full"}).train()
        assert all(module.training for module in model.modules())


def test_evaluation_uses_the_moved_statistics_without_moving_them(run_of):
    run, folder, _ = run_of("published_moving", {"name": "decoder"})
    model = load_model(run, folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(2, 3, 64, 64), model.tokenize(["a", "b"]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
