"""Checkpoints and weights whose tensors are of no use are refused, where they are written and where they are read."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_run import make_run, write_training, write_weights

from featherseg import adapters, checkpoint, models
from featherseg.config import Run
from featherseg.core.errors import UserError
from featherseg.models.weights import read_state

BAD_NUMBERS = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(write_weights(tmp_path / "weights"))


def built(run: Run):
    return adapters.apply(models.build(run.model, run.seed), run.adapter, run.seed)


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_a_model_that_is_not_finite_is_not_written(run, tmp_path, number):
    model = built(run)
    with torch.no_grad():
        next(iter(adapters.trainable(model).values())).view(-1)[0] = number
    with pytest.raises(UserError, match="the trained model of .* NaN or infinity"):
        checkpoint.save(tmp_path / "train/checkpoint.safetensors", model, run)
    assert not list(tmp_path.glob("train/*"))


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_a_checkpoint_that_is_not_finite_is_not_loaded(run, tmp_path, number):
    write_training(run, tmp_path / "train")
    path = tmp_path / "train/checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = min(tensors)
    tensors[name].view(-1)[-1] = number
    save_file(tensors, path, metadata)
    with pytest.raises(UserError) as refused:
        checkpoint.load(path, built(run), run)
    assert str(path) in str(refused.value) and name in str(refused.value)


def test_a_checkpoint_of_before_there_were_tasks_still_loads(run, tmp_path):
    write_training(run, tmp_path / "train")
    path = tmp_path / "train/checkpoint.safetensors"
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["run"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert record.pop("task") == "segmentation"
    record["train"]["loss"]["name"] = "dice_ce"
    save_file(tensors, path, {"run": json.dumps(record)})
    assert checkpoint.trained_run(path) == run
    checkpoint.load(path, built(run), run)


def sparse(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_sparse()


def without_values(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")


def not_finite(tensor: torch.Tensor) -> torch.Tensor:
    return tensor / 0


@pytest.mark.parametrize(("change", "why"), [
    (sparse, "sparse"), (without_values, "without values"), (not_finite, "NaN or infinity")])
def test_base_weights_of_no_use_are_refused(run, tmp_path, change, why):
    state = read_state(run.model.weights)
    name = "decoder.film_mul.weight"
    state[name] = change(state[name])
    (tmp_path / "weights/model.safetensors").unlink()
    torch.save(state, tmp_path / "weights/pytorch_model.bin")
    config = run.model.model_copy(update={"sha256": None})
    with pytest.raises(UserError) as refused:
        models.build(config)
    assert why in str(refused.value) and name in str(refused.value)


@pytest.mark.parametrize("name", [["decoder"], {"decoder": 1}, None, 3])
def test_an_adapter_whose_name_is_no_text_is_unknown(name):
    with pytest.raises(UserError, match="unknown adapter"):
        adapters.resolve({"name": name})
