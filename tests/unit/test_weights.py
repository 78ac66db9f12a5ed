"""Base weights: read by key, checked by hash, never executed."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from transformers.models.clipseg.configuration_clipseg import CLIPSegConfig

from featherseg import models
from featherseg.config import ModelConfig
from featherseg.core.errors import UserError
from featherseg.core.files import sha256_file
from featherseg.models.clipseg.config import ClipsegFile, Sizes, sizes_of
from featherseg.models.clipseg.model import CLIPSeg, small_config
from featherseg.models.weights import read_state, weights_sha256


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
    net = CLIPSeg(config, 32).net
    config.to_json_file(tmp_path / "config.json")
    save_file({name: tensor.half().contiguous() for name, tensor in net.state_dict().items()},
              tmp_path / "model.safetensors")
    (tmp_path / "SHA256").write_text(sha256_file(tmp_path / "model.safetensors") + "  model.safetensors\n")
    return tmp_path


def config(folder, **changes):
    return ModelConfig(name="clipseg", weights=str(folder), image_size=32, **changes)


def test_weights_in_half_precision_are_used_in_single(folder):
    model = models.build(config(folder))
    stored = read_state(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.net.state_dict().items())
    assert not model.training


def test_other_bytes_than_the_pinned_ones_are_refused(folder):
    state = read_state(folder)
    state["decoder.film_mul.bias"] = state["decoder.film_mul.bias"] + 1
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match="SHA256 names"):
        weights_sha256(folder)


def test_other_weights_than_planned_are_refused(folder):
    with pytest.raises(UserError, match="planned with aaaaaaaaaaaa"):
        models.build(config(folder, sha256="a" * 64))


def test_missing_unexpected_and_misshapen_tensors_are_named(folder):
    (folder / "SHA256").unlink()
    state = read_state(folder)
    state["decoder.film_add.bias"] = torch.zeros(3)
    state["decoder.surplus"] = torch.zeros(1)
    del state["decoder.film_mul.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        models.build(config(folder))
    for words in ("1 missing (decoder.film_mul.bias)", "1 unexpected (decoder.surplus)",
                  "decoder.film_add.bias (3,) instead of (16,)"):
        assert words in str(error.value)


class _Executed:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was executed')",)


def test_a_pickle_with_code_is_not_executed(folder):
    (folder / "model.safetensors").unlink()
    (folder / "SHA256").unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"x": _Executed()}, file)
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        models.build(config(folder))


def test_a_truncated_file_is_one_sentence(folder):
    (folder / "SHA256").unlink()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="not a readable weights file"):
        models.build(config(folder))


def test_a_folder_without_weights_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match=r"config\.json and one of model\.safetensors"):
        models.build(config(tmp_path))


def test_weights_in_several_files_say_how_to_make_them_one(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"in several files \(model.safetensors.index.json\); save them as one"):
        models.build(config(folder))


def test_the_file_of_the_weights_may_be_named_itself(folder):
    stored = read_state(folder)
    model = models.build(config(folder / "model.safetensors"))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.net.state_dict().items())
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="config.json does not exist; it says which model the weights belong to"):
        models.build(config(folder))


def test_a_note_of_git_lfs_is_not_the_weights(folder):
    (folder / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 603011952\n")
    with pytest.raises(UserError, match="model.safetensors only says where git-lfs keeps the weights"):
        weights_sha256(folder)


@pytest.mark.parametrize("state", [[1], torch.zeros(3), {"state_dict": {"x": 1}}, None])
def test_a_file_of_something_else_is_one_sentence(folder, state):
    for name in ("model.safetensors", "SHA256"):
        (folder / name).unlink()
    if state is None:
        (folder / "pytorch_model.bin").write_text("hello")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is no (map from names to|file of) tensors"):
        models.build(config(folder))


def test_a_tensor_that_repeats_fewer_values_is_named_before_it_takes_memory(folder):
    for name in ("model.safetensors", "SHA256"):
        (folder / name).unlink()
    torch.save({"huge": torch.zeros(1).half().expand(10**12)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: tensors repeat .*huge"):
        read_state(folder)
    shared = torch.ones(4)
    torch.save({"a": shared, "b": shared[:2], "c": shared.reshape(2, 2).T, "d": torch.zeros(0)},
               folder / "pytorch_model.bin")
    assert read_state(folder)["c"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("part", "changes", "said"), [
    ("vision_config", {"hidden_size": 8192, "num_attention_heads": 8, "num_hidden_layers": 200},
     "describes a model of .* parameters, but there are"),
    ("text_config", {"max_position_embeddings": 8192, "hidden_size": 8192, "num_hidden_layers": 100,
                     "num_attention_heads": 1}, "describes a model of"),
    ("vision_config", {"num_hidden_layers": 8192}, "less than or equal to 256")])
def test_an_architecture_beyond_its_weights_is_refused_before_memory_is_taken(folder, part, changes, said):
    path = folder / "config.json"
    given = json.loads(path.read_text())
    given[part] |= changes
    path.write_text(json.dumps(given))
    with pytest.raises(UserError, match=said):
        models.build(config(folder))


@pytest.mark.parametrize("change", [
    [], {"extract_layers": []}, {"extract_layers": [0, 1, 9]}, {"use_complex_transposed_convolution": "x"}])
def test_another_architecture_is_one_sentence(folder, change):
    path = folder / "config.json"
    path.write_text(json.dumps(change and json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="config.json is not that of a CLIPSeg|extract_layers|holds a list"):
        models.build(config(folder))


@pytest.mark.parametrize(("part", "key", "value", "said"), [
    ("vision_config", "hidden_size", 0, "key 'vision_config.hidden_size': .* greater than 0"),
    ("vision_config", "hidden_size", "96", "key 'vision_config.hidden_size': .* integer"),
    ("text_config", "hidden_size", 10**9, "key 'text_config.hidden_size': .* less than"),
    ("text_config", "num_attention_heads", 0, "key 'text_config.num_attention_heads'"),
    ("vision_config", "patch_size", 0, "key 'vision_config.patch_size'"),
    ("vision_config", "num_attention_heads", 7, "section 'vision_config': hidden_size [0-9]+ is not a multiple"),
    (None, "reduce_dim", 0, "key 'reduce_dim'"), (None, "decoder_num_attention_heads", 0, "key 'decoder_num_att"),
    (None, "conditional_layer", 99, "the prompt would not be read"),
    (None, "extract_layers", [2, 1, 0], "not in ascending order"),
    (None, "text_config", "x", "key 'text_config'"), ("vision_config", "hidden_act", "no", "hidden_act")])
def test_an_impossible_size_names_the_file_and_the_key(folder, part, key, value, said):
    path = folder / "config.json"
    given = json.loads(path.read_text())
    (given[part] if part else given)[key] = value
    path.write_text(json.dumps(given))
    with pytest.raises(UserError, match=rf"config\.json: .*{said}") as error:
        models.build(config(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_an_empty_pin_is_refused(folder):
    (folder / "SHA256").write_text("")
    with pytest.raises(UserError, match="SHA256 names nothing"):
        weights_sha256(folder)


def test_the_simple_head_of_other_checkpoints_is_built():
    architecture = small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2))
    architecture.use_complex_transposed_convolution = False
    model = CLIPSeg(architecture, 32)
    assert model(torch.zeros(2, 3, 32, 32), model.tokenize(["a", "b"])).shape == (2, 32, 32)


def test_an_image_size_between_patches_is_refused(folder):
    between = ModelConfig(name="clipseg", weights=str(folder), image_size=33)
    for refuse in (models.build, models.MODELS["clipseg"].check_sizes):
        with pytest.raises(UserError, match="not a multiple of the patch size 8"):
            refuse(between)


@pytest.mark.parametrize("name", list(models.MODELS))
def test_the_sizes_are_checked_as_the_model_checks_them(name):
    config = ModelConfig(name=name, image_size=50)
    said = []
    for refuse in (models.MODELS[name], models.MODELS[name].check_sizes):
        with pytest.raises(UserError, match=f"model '{name}': image_size 50 is (not a multiple of|below)") as error:
            refuse(config)
        said.append(str(error.value))
    assert said[0] == said[1]
    models.MODELS[name].check_sizes(ModelConfig(name=name, image_size=448))


def test_a_clipseg_without_sizes_has_those_of_transformers():
    library = CLIPSegConfig()
    assert (library.vision_config.num_hidden_layers, library.text_config.num_hidden_layers) == (12, 12)
    assert sizes_of(ClipsegFile()) == Sizes(library.vision_config.patch_size, 12, tuple(library.extract_layers))


def test_the_seed_decides_random_weights(monkeypatch):
    import featherseg.models.clipseg.model as clipseg

    monkeypatch.setattr(clipseg, "full_config", lambda: small_config(width=32, text_width=32, depth=3, taps=(0, 1)))
    first, second, third = (models.build(ModelConfig(name="clipseg"), seed=seed).net.decoder.film_mul.weight
                            for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, third)
