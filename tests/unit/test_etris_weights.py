"""Three layouts of ETRIS's weights: this package's folder, OpenAI's CLIP alone, a released checkpoint."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featherseg import adapters, models
from featherseg.adapters.bridger import Bridger, BridgerConfig
from featherseg.checkpoint import changed_tensors, load
from featherseg.config import ModelConfig, Run
from featherseg.core.errors import UserError
from featherseg.models.etris import config as etris_config
from featherseg.models.etris.model import build_etris
from featherseg.models.towers.clip import interpolate_positions
from featherseg.models.weights import read_state
from featherseg.tasks.segmentation.predict import load_model

ARCHITECTURES = {"etris_vit": etris_config.small_config(width=32, text_width=32, stages=(1, 2, 3), patch=16),
                 "etris_r50": etris_config.small_resnet_config()}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name, architecture in ARCHITECTURES.items():
        monkeypatch.setitem(etris_config.FULL, name, architecture)


def source(name: str, image_size: int | None = None):
    torch.manual_seed(1)
    return build_etris(name, ARCHITECTURES[name], image_size)


def own_folder(folder, model):
    (folder / "config.json").write_text(json.dumps(model.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in model.net.state_dict().items()},
              folder / "model.safetensors")
    return folder


def clip_state(model) -> dict[str, torch.Tensor]:
    return {key: tensor.contiguous() for key, tensor in model.net.backbone.state_dict().items() if "connect" not in key}


def released(file, model, **knobs) -> dict[str, torch.Tensor]:
    """A checkpoint in the released layout, with a Bridger; returns the Bridger's tensors."""
    torch.manual_seed(2)
    config = BridgerConfig(name="bridger", dim=8, heads=2, **knobs)
    bridger = Bridger(model.exchange_spec, config).state_dict(prefix="bridger.")
    state = {f"module.{key}": tensor for key, tensor in {**model.net.state_dict(), **bridger}.items()}
    torch.save({"epoch": 50, "best_iou": 0.7, "prec": {"Pr@50": 0.8}, "state_dict": state, "optimizer": {"state": {}}},
               file)
    return bridger


def build(name: str, weights, seed: int = 0, **changes):
    return models.build(ModelConfig(name=name, weights=str(weights), **changes), seed)


def equal(ours: nn.Module, theirs: nn.Module, but: tuple[str, ...] = ()) -> bool:
    theirs = theirs.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in ours.state_dict().items() if not key.startswith(but))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_packages_own_folder(name, tmp_path, monkeypatch):
    weights = own_folder(tmp_path, source(name))
    monkeypatch.delitem(etris_config.FULL, name)
    monkeypatch.setitem(etris_config.FULL, name, None)  # config.json says what the architecture is
    model = build(name, weights)
    assert equal(model.net, source(name).net) and model.image_size == 64 and not model.training
    assert build(name, weights / "model.safetensors", word_length=9).word_length == 9


def test_a_wrong_key_in_config_json_is_named(tmp_path):
    folder = own_folder(tmp_path, source("etris_vit"))
    (folder / "config.json").write_text(json.dumps(source("etris_vit").architecture() | {"vision_widht": 32}))
    with pytest.raises(UserError, match=r"config\.json.*vision_widht.*did you mean 'vision_width'"):
        build("etris_vit", folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_clip_alone_leaves_head_and_connect_to_the_seed(name, tmp_path):
    save_file(clip_state(source(name)), tmp_path / "open_clip_model.safetensors")
    first, again, other = (build(name, tmp_path, seed) for seed in (1, 1, 2))
    connect = ("visual.attnpool.connect",)
    assert equal(first.net.backbone, source(name).net.backbone, connect)
    assert equal(first.net, again.net)
    assert not torch.equal(first.net.proj.txt.weight, other.net.proj.txt.weight)
    if name == "etris_r50":
        weights = [model.net.backbone.visual.attnpool.connect[0].weight for model in (first, other)]
        assert not torch.equal(*weights)


def test_openais_own_entries_beside_the_tensors_are_passed_over(tmp_path):
    state = clip_state(source("etris_vit"))
    save_file(state | {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77),
                       "vocab_size": torch.tensor(49408)}, tmp_path / "open_clip_model.safetensors")
    assert equal(build("etris_vit", tmp_path).net.backbone, source("etris_vit").net.backbone)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_released_checkpoint_hands_its_bridger_over(name, tmp_path):
    bridger = released(tmp_path / "best_model.pth", source(name))
    for weights in (tmp_path, tmp_path / "best_model.pth"):
        model = build(name, weights)
        assert equal(model.net, source(name).net) and not model.joint
    adapters.apply(model, {"name": "bridger", "dim": 8, "heads": 2}, seed=7)
    assert {f"bridger.{key}" for key in model.exchange.state_dict()} == set(bridger)
    assert all(torch.equal(tensor, bridger[f"bridger.{key}"]) for key, tensor in model.exchange.state_dict().items())


def test_a_bridger_of_other_knobs_names_what_does_not_fit(tmp_path):
    released(tmp_path / "best_model.pth", source("etris_vit"))
    for knobs, words in (({"dim": 4}, "misshapen"), ({"dim": 8, "stages": 2}, "unexpected")):
        model = build("etris_vit", tmp_path)
        with pytest.raises(UserError, match=f"the Bridger in the base weights does not fit.*{words}"):
            adapters.apply(model, {"name": "bridger", "heads": 2, **knobs})
        assert not model.joint


@pytest.mark.parametrize("layout", ["clip", "released"])
def test_missing_unexpected_and_misshapen_tensors_are_named(layout, tmp_path):
    model = source("etris_r50")
    prefix = "" if layout == "clip" else "backbone."
    state = clip_state(model) if layout == "clip" else dict(model.net.state_dict())
    state[f"{prefix}surplus"] = torch.zeros(1)
    state[f"{prefix}ln_final.bias"] = torch.zeros(3)
    del state[f"{prefix}visual.layer2.0.conv1.weight"]
    if layout == "released":
        del state["proj.txt.bias"]
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "best_model.pth")
    with pytest.raises(UserError) as error:
        build("etris_r50", tmp_path)
    for words in ("unexpected (backbone.surplus)", "backbone.ln_final.bias (3,) instead of (32,)",
                  "backbone.visual.layer2.0.conv1.weight", *(["proj.txt.bias"] if layout == "released" else [])):
        assert words in str(error.value)


def test_weights_of_another_tower_are_refused(tmp_path):
    save_file(clip_state(source("etris_vit")), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="missing.*unexpected"):
        build("etris_r50", tmp_path)


def test_positions_are_interpolated_to_the_input_size(tmp_path):
    model = source("etris_vit")
    save_file(clip_state(model), tmp_path / "open_clip_model.safetensors")
    larger = build("etris_vit", tmp_path, image_size=96).net.backbone.visual.positional_embedding
    stored = model.net.backbone.visual.positional_embedding
    assert stored.shape == (17, 32) and larger.shape == (37, 32) and torch.equal(larger[0], stored[0])
    grid = stored[1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(grid, size=(6, 6), mode="bicubic").permute(0, 2, 3, 1).reshape(36, 32)
    torch.testing.assert_close(larger[1:], expected)
    assert interpolate_positions(torch.zeros(20, 32), (37, 32)).shape == (20, 32)  # no square


def test_a_torchscript_archive_is_not_executed(tmp_path):
    with zipfile.ZipFile(tmp_path / "RN50.pt", "w") as archive:  # what torch.jit.save writes beside code and tensors
        for member in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"RN50/{member}", "")
    with pytest.raises(UserError, match=r"TorchScript.*open_clip_model\.safetensors"):
        build("etris_r50", tmp_path / "RN50.pt")


@pytest.mark.parametrize("content", [{"state_dict": {"a": 1}}, {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_tensors_by_name_is_one_sentence(content, tmp_path):
    torch.save(content, tmp_path / "best_model.pth")
    with pytest.raises(UserError, match="no map from names to tensors"):
        read_state(tmp_path)


def test_a_checkpoint_holds_what_the_base_weights_do_not(tmp_path):
    """On CLIP alone: the Bridger, the head, the positions, and the frozen random `connect`; nothing else of CLIP."""
    save_file(clip_state(source("etris_r50")), tmp_path / "open_clip_model.safetensors")
    adapter = {"name": "bridger", "dim": 8, "heads": 2}
    run = Run(study="tests", recipe="r", dataset="d", adapter=adapter,
              model=ModelConfig(name="etris_r50", weights=str(tmp_path)))
    model = adapters.apply(models.build(run.model, 1), adapter, 1)
    changed = changed_tensors(model, run)
    assert set(changed) == {key for key in model.state_dict() if not key.startswith("net.backbone.")
                            or "connect" in key or "positional_embedding" in key}
    save_file({key: tensor for key, tensor in changed.items() if "connect" not in key}, tmp_path / "cut.safetensors",
              {"run": run.model_dump_json()})
    other = adapters.apply(models.build(run.model, 2), adapter, 2)  # whose `connect` is another one
    with pytest.raises(UserError, match="6 missing .net.backbone.visual.attnpool.connect"):
        load(tmp_path / "cut.safetensors", other, run)
    save_file(changed, tmp_path / "whole.safetensors", {"run": run.model_dump_json()})
    load(tmp_path / "whole.safetensors", other, run)
    assert equal(other, model)


@pytest.mark.parametrize("content", [{"state_dict": {0: torch.zeros(1)}}, {1: torch.zeros(2)}])
def test_tensors_by_number_are_one_sentence(content, tmp_path):
    torch.save(content, tmp_path / "best_model.pth")
    with pytest.raises(UserError, match="no map from names to tensors"):
        read_state(tmp_path)


@pytest.mark.parametrize("positions", [torch.tensor(3.0), torch.zeros(1, 32), torch.zeros(26, 32, dtype=torch.long)])
def test_positions_that_are_no_grid_are_named(positions, tmp_path):
    state = clip_state(source("etris_vit")) | {"visual.positional_embedding": positions}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match="misshapen .*visual.positional_embedding"):
        build("etris_vit", tmp_path)


@pytest.mark.parametrize(("name", "changes", "words"), [
    ("etris_vit", {"image_size": 65}, "image_size 65 is not a multiple of 16"),
    ("etris_r50", {"word_length": 78}, "word_length 78")])
def test_a_size_that_does_not_fit_is_one_sentence(name, changes, words):
    with pytest.raises(UserError, match=f"model '{name}': {words}"):
        build(name, "random", **changes)


def test_weights_of_the_other_kind_of_tower_are_refused(tmp_path):
    folder = own_folder(tmp_path, source("etris_vit"))
    with pytest.raises(UserError, match="the vision tower is a ViT, which is not that of model 'etris_r50'"):
        build("etris_r50", folder)


@pytest.mark.parametrize(("change", "words"), [
    ({"text_heads": 3}, "text_width, text_heads: 32 is not a multiple of 3"),
    ({"vision_head_width": 200}, "vision_head_width: 32 is not a multiple of 200"),
    ({"head_heads": 5}, "head_width, head_heads: 32 is not a multiple of 5"),
    ({"text_width": 30, "head_width": 30, "text_heads": 1, "head_heads": 1}, "30 is not a multiple of 4")])
def test_widths_that_do_not_fit_together_are_one_sentence(change, words, tmp_path):
    folder = own_folder(tmp_path, source("etris_vit"))
    (folder / "config.json").write_text(json.dumps(source("etris_vit").architecture() | change))
    with pytest.raises(UserError, match=words):
        build("etris_vit", folder)


def test_a_method_does_not_silently_leave_out_a_trained_bridger(tmp_path):
    released(tmp_path / "best_model.pth", source("etris_vit"))
    for method in ("decoder", "lora", "zero_shot"):
        with pytest.raises(UserError, match=f"adapter bridger adds, which adapter '{method}' would leave out"):
            adapters.apply(build("etris_vit", tmp_path), {"name": method})


def test_what_would_stay_random_is_not_scored(tmp_path):
    """Released weights of the whole model may be scored as they are, CLIP alone may not."""
    save_file(clip_state(source("etris_vit")), tmp_path / "open_clip_model.safetensors")
    released(tmp_path / "best_model.pth", source("etris_vit"))
    knobs = {"name": "bridger", "dim": 8, "heads": 2}

    def loaded(file: str, adapter: dict):
        run = Run(study="tests", recipe="r", dataset="d", adapter=adapter,
                  model=ModelConfig(name="etris_vit", weights=str(tmp_path / file)))
        return load_model(run, tmp_path)

    assert loaded("best_model.pth", knobs).joint
    for file, adapter in (("open_clip_model.safetensors", {"name": "zero_shot"}),
                          ("open_clip_model.safetensors", knobs)):
        with pytest.raises(UserError, match="does not hold net.neck.* would stay random"):
            loaded(file, adapter)
    own_folder(tmp_path, source("etris_vit"))
    assert not loaded("model.safetensors", {"name": "zero_shot"}).joint
    with pytest.raises(UserError, match="does not hold exchange,"):
        loaded("model.safetensors", knobs)


# ---------------------------------------------------------------- parts of the head


@pytest.mark.parametrize("parts", [("hierarchical_alignment", "global_alignment"), ("global_alignment", "projector"),
                                   ("hierarchical_alignment", "projector"), ("global_alignment",)])
def test_a_head_without_a_part_takes_the_rest_of_the_weights(parts, tmp_path):
    whole = source("etris_vit")
    model = build("etris_vit", own_folder(tmp_path, whole), head_parts=parts)
    modules = {"hierarchical_alignment": "neck", "global_alignment": "decoder", "projector": "proj"}
    for part, module in modules.items():
        if part in parts:
            assert equal(model.net[module], whole.net[module])
    assert equal(model.net.backbone, whole.net.backbone)
    left_out = "projector" not in parts
    assert model.untrained == (("net.proj.out.weight", "net.proj.out.bias") if left_out else ())
    state = {key: tensor.contiguous() for key, tensor in whole.net.state_dict().items()}
    del state["decoder.norm.bias"]
    save_file(state, tmp_path / "model.safetensors")
    if "global_alignment" in parts:
        with pytest.raises(UserError, match="missing .decoder.norm.bias"):
            build("etris_vit", tmp_path, head_parts=parts)
    else:
        build("etris_vit", tmp_path, head_parts=parts)
