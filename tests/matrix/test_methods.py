"""Every model with every method, through one table of shared checks."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from pairs import COVERING, PAIRS, SMALL, SUPPORTED, Pair, batch, label, small, step, untouched
from safetensors.torch import save_file

from featherseg import adapters, checkpoint
from featherseg.adapters import METHODS, trainable
from featherseg.adapters.base import fitting_models
from featherseg.adapters.lora import inject_lora
from featherseg.config import ModelConfig, Run
from featherseg.core.errors import UserError
from featherseg.describe import parameter_groups
from featherseg.models import MODELS
from featherseg.models.base import SegmentationModel, parameters_of
from featherseg.models.clipseg.model import CLIPSeg, full_config
from featherseg.models.etris.config import FULL
from featherseg.models.etris.model import build_etris

FULL_SIZE_COUNTS = [
    ({"name": "zero_shot"}, 0), ({"name": "decoder"}, 1_127_009), ({"name": "full"}, 136_177_249),
    ({"name": "vlsm_dense", "positions": "V"}, 1_784_448), ({"name": "vlsm_dense", "positions": "VL"}, 2_974_464),
    ({"name": "vlsm_dense", "positions": "VLC"}, 3_237_376), ({"name": "vlsm_shallow", "positions": "V"}, 2_363_136),
    ({"name": "vlsm_shallow", "positions": "VL"}, 3_939_072), ({"name": "vlsm_shallow", "positions": "VLC"}, 4_201_984),
    # rank 16 on two 768-wide projections of 10 vision blocks and two 512-wide ones of 12 text blocks
    ({"name": "lora"}, 2 * 2 * 16 * (10 * 768 + 12 * 512)),
]

ETRIS_HEADS = {"etris_r50": 12_867_072 + 7_899_136 + 5_968_897, "etris_r101": 11_556_352 + 7_899_136 + 4_788_737,
               "etris_vit": 9_983_488 + 7_899_136 + 4_788_737}
# LoRA and bottlenecks are in all 12 blocks of a transformer, 512 wide (text) or 768 wide (vision)
ETRIS_TUNED = [
    ({"name": "zero_shot"}, {"etris_r50": 0, "etris_r101": 0, "etris_vit": 0}, False),
    ({"name": "decoder"}, {"etris_r50": 0, "etris_r101": 0, "etris_vit": 0}, True),
    ({"name": "bridger"}, {"etris_r50": 1_942_080 + 141_824, "etris_r101": 1_942_080 + 141_824,
                           "etris_vit": 598_592 + 559_360}, True),
    ({"name": "bridger", "stages": 2, "positional_embeddings": False},
     {"etris_r50": 1_513_088, "etris_r101": 1_513_088}, True),
    ({"name": "bridger", "stages": 1, "positional_embeddings": False},
     {"etris_r50": 1_215_168, "etris_r101": 1_215_168}, True),
    ({"name": "lora", "rank": 16}, {"etris_r50": 12 * 512 * 16 * 6, "etris_r101": 12 * 512 * 16 * 6,
                                    "etris_vit": 12 * (512 + 768) * 16 * 6}, True),
    ({"name": "houlsby", "dim": 64}, {"etris_r50": 24 * (2 * 64 * 512 + 64 + 512),
                                      "etris_vit": 24 * (2 * 64 * (512 + 768) + 2 * 64 + 512 + 768)}, True),
    ({"name": "prompt"}, {"etris_r50": 8 * 512, "etris_vit": 8 * (512 + 768)}, True),
    ({"name": "prompt", "head": False}, {"etris_r101": 8 * 512, "etris_vit": 8 * (512 + 768)}, False),
]


def tiny() -> CLIPSeg:
    return small("clipseg")


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "-".join(map(label, pair)))
def pair(request) -> Pair:
    """Each model with each method that fits it."""
    return request.param


@pytest.fixture(scope="module")
def adapted(pair) -> SegmentationModel:
    """The pair's model with the method applied; no test changes it."""
    name, adapter = pair
    return adapters.apply(small(name), adapter, seed=1)


@pytest.fixture(scope="module")
def changed(adapted) -> SegmentationModel:
    """The same with other values in all that is trainable; no test changes it either."""
    model = copy.deepcopy(adapted)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def base_weights(tmp_path_factory) -> dict[str, Path]:
    """Folders of every model's base weights."""
    folders = {}
    for name in SMALL:
        folders[name] = tmp_path_factory.mktemp(name)
        save_file({key: tensor.contiguous() for key, tensor in untouched(name).net.state_dict().items()},
                  folders[name] / "model.safetensors")
        (folders[name] / "config.json").write_text("{}")
    return folders


def full_size(name: str) -> SegmentationModel:
    """A model of the published size, without values."""
    return copy.deepcopy(_built_at_full_size(name))


@functools.cache
def _built_at_full_size(name: str) -> SegmentationModel:
    with torch.device("meta"):
        return CLIPSeg(full_config()) if name == "clipseg" else build_etris(name, FULL[name])


@pytest.mark.parametrize(("adapter", "count"), FULL_SIZE_COUNTS, ids=[label(case) for case, _ in FULL_SIZE_COUNTS])
def test_trainable_parameters_at_full_size_are_the_published_codes(adapter, count):
    with torch.device("meta"):
        model = adapters.apply(full_size("clipseg"), adapter)
    assert sum(p.numel() for p in trainable(model).values()) == count
    groups = parameter_groups(model)
    assert sum(group["trainable"] for group in groups.values()) == count
    assert sum(group["total"] for name, group in groups.items() if name != "adapter") == 150_747_746
    assert groups["unused"] == {"total": 14_570_497, "trainable": 0}


@pytest.mark.parametrize(("name", "adapter", "count", "with_head"), [
    (name, adapter, count, with_head) for adapter, counts, with_head in ETRIS_TUNED for name, count in counts.items()
], ids=label)
def test_trainable_parameters_of_etris_at_full_size(name, adapter, count, with_head):
    with torch.device("meta"):
        model = adapters.apply(full_size(name), adapter)
    trained = {group: numbers["trainable"] for group, numbers in parameter_groups(model).items()}
    assert trained["decoder"] == (ETRIS_HEADS[name] if with_head else 0)
    assert sum(trained.values()) - trained["decoder"] == count
    assert sum(p.numel() for p in trainable(model).values()) == sum(trained.values())


@pytest.mark.parametrize(("name", "adapter"), [pair for pair in PAIRS if pair[1]["name"] != "zero_shot"], ids=label)
def test_training_moves_exactly_what_is_trainable(name, adapter):
    model = adapters.apply(small(name), adapter, seed=1)
    model.train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    learned = trainable(model)
    optimizer = torch.optim.SGD(learned.values(), lr=0.1)
    step(model, optimizer)
    step(model, optimizer)  # LoRA's A has no gradient until B has moved
    for key, parameter in learned.items():
        assert torch.isfinite(parameter.grad).all(), key
        if not key.endswith(".conv.bias"):  # in DETRIS's adapters, where BatchNorm takes the bias away again
            assert parameter.grad.abs().sum() > 0, f"{key} is trainable but gets no gradient"
    trained = {key.rpartition(".")[0] for key in learned}  # their BatchNorm statistics may move
    for key, tensor in model.state_dict().items():
        module, _, tensor_name = key.rpartition(".")
        is_statistic = tensor_name.startswith(("running_", "num_batches_tracked"))
        if key not in learned and not (is_statistic and module in trained):
            assert torch.equal(tensor, before[key]), f"{key} is frozen but moved"


@pytest.mark.parametrize("name", SMALL)
def test_full_trains_both_towers_and_nothing_that_never_reaches_the_mask(name):
    model = adapters.apply(small(name), {"name": "full"})
    unused = parameters_of(model, model.unused)
    assert trainable(model).keys() == dict(model.named_parameters()).keys() - unused.keys()


def test_a_tower_is_constant_exactly_where_its_features_cannot_change(adapted, changed):
    pixels, tokens, _ = batch(adapted)
    with torch.no_grad():
        before, after = adapted.encode(pixels, tokens), changed.encode(pixels, tokens)
    differs = {"vision": not torch.equal(before[0].taps[-1], after[0].taps[-1]),
               "text": not torch.equal(before[1].sentence, after[1].sentence)}
    for tower, changes in differs.items():
        assert adapted.tower_is_constant(tower) != changes


def test_no_backward_runs_through_a_tower_without_anything_trainable(adapted):
    image, text = adapted.encode(*batch(adapted)[:2])
    assert image.taps[-1].requires_grad != adapted.tower_is_constant("vision")
    assert text.sentence.requires_grad != adapted.tower_is_constant("text")


def test_no_backward_runs_through_what_lies_before_the_first_stage_of_a_bridger():
    adapter = {"name": "bridger", "dim": 8, "heads": 2, "stages": 2, "positional_embeddings": False}
    model, seen = adapters.apply(small("etris_vit"), adapter), []
    for tower in (model.vision, model.text):
        for block in tower.blocks:
            model.get_submodule(block).register_forward_hook(
                lambda _, inputs, output: seen.append((inputs[0].requires_grad, output.requires_grad)))
    model(*batch(model)[:2])
    assert seen == 4 * [(False, False)] + 2 * [(True, True)]


def test_what_a_method_adds_is_in_the_models_mode(adapted):
    assert not any(module.training for module in adapted.modules())


def test_a_checkpoint_restores_the_logits(pair, changed, tmp_path):
    name, adapter = pair
    run = Run(study="study", recipe="r", dataset="d", model=ModelConfig(name=name), adapter=adapter)
    checkpoint.save(tmp_path / "checkpoint.safetensors", changed, run)
    other = adapters.apply(small(name), adapter, seed=2)
    checkpoint.load(tmp_path / "checkpoint.safetensors", other, run)
    pixels, tokens, _ = batch(changed)
    with torch.no_grad():
        assert torch.equal(changed(pixels, tokens), other(pixels, tokens))


def test_a_checkpoint_holds_what_a_method_trains_and_no_frozen_weight(pair, adapted, base_weights):
    name, adapter = pair
    run = Run(study="study", recipe="r", dataset="d", adapter=adapter,
              model=ModelConfig(name=name, weights=str(base_weights[name])))
    adapted(*batch(adapted)[:2])
    known = untouched(name).state_dict().keys()
    added = {key for key in adapted.state_dict() if key.replace(".base_layer", "") not in known}
    assert checkpoint.changed_tensors(adapted, run).keys() == trainable(adapted).keys() | added


@pytest.mark.parametrize(("name", "adapter"), COVERING, ids=label)
def test_the_seed_decides_initial_weights_and_the_global_generator_is_left_alone(name, adapter):
    states = []
    for global_seed in (11, 12):
        model = small(name)
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        states.append(adapters.apply(model, adapter, seed=1).state_dict())
        assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_our_forward_is_the_librarys():
    model = tiny()
    pixels, tokens, _ = batch(model)
    with torch.no_grad():
        assert torch.equal(model(pixels, tokens), model.net(input_ids=tokens, pixel_values=pixels).logits)


def test_positions_are_interpolated_as_in_the_library():
    model = tiny()
    model.image_size = 48
    pixels, tokens = torch.randn(2, 3, 48, 48), model.tokenize(["a", "b"])
    with torch.no_grad():
        assert torch.equal(model(pixels, tokens), model.net(input_ids=tokens, pixel_values=pixels).logits)


def test_trimming_prompts_changes_nothing_since_the_text_tower_is_causal():
    model = tiny().double()
    _, tokens, _ = batch(model)
    padded = torch.full((len(tokens), 77), tokens.max())
    padded[:, : tokens.shape[1]] = tokens
    torch.testing.assert_close(model.encode_text(tokens).sentence, model.encode_text(padded).sentence)


def reference_block(states: torch.Tensor, block: torch.nn.Module) -> torch.Tensor:
    hidden = torch.clamp(states @ block.down.weight.T + block.down.bias, min=0)
    return states + torch.clamp(hidden @ block.up.weight.T + block.up.bias, min=0)


def test_dense_adapters_are_the_papers_formula():
    adapted = adapters.apply(tiny(), {"name": "vlsm_dense", "dim": 8, "positions": "V"}, seed=1)
    pixels, *_ = batch(adapted)
    plain = tiny().net.clip.vision_model
    with torch.no_grad():
        states = plain.pre_layrnorm(plain.embeddings(pixels))
        for k in range(3):
            block, ours = plain.encoder.layers[k], adapted.net.clip.vision_model.encoder.layers[k]
            attention = block.self_attn(block.layer_norm1(states), None)[0]
            if k < 2:  # the last tap's own block is not adapted
                attention = reference_block(attention, ours.self_attn.adapter)
            states = states + attention
            mlp = block.mlp(block.layer_norm2(states))
            if k < 2:
                mlp = reference_block(mlp, ours.mlp.adapter)
            states = states + mlp
        assert not hasattr(adapted.net.clip.vision_model.encoder.layers[2].mlp, "adapter")
        torch.testing.assert_close(adapted.encode_image(pixels).taps[-1], states)


def test_shallow_adapters_are_the_papers_formula():
    model = adapters.apply(tiny(), {"name": "vlsm_shallow", "dim": 8, "cond_dim": 4}, seed=1)
    pixels, tokens, _ = batch(model)
    with torch.no_grad():
        image, text = model.encode_image(pixels), model.encode_text(tokens)
        adapted = zip(image.taps, model.image_neck.blocks, strict=True)
        taps = tuple(reference_block(tap, block) for tap, block in adapted)
        sentence = reference_block(text.sentence, model.text_neck.condition)
        for tap, block in zip(text.taps, model.text_neck.blocks, strict=True):
            sentence = sentence + reference_block(tap, block)
        torch.testing.assert_close(model(pixels, tokens), model.net.decoder(taps, sentence).logits)


def test_houlsby_adapters_are_the_papers_formula_in_every_block_that_reaches_the_mask():
    adapted = adapters.apply(tiny(), {"name": "houlsby", "dim": 8, "positions": "V"}, seed=1)
    pixels, *_ = batch(adapted)
    tower = adapted.net.clip.vision_model
    with torch.no_grad():
        for parameter in trainable(adapted).values():
            parameter.mul_(20)
        states = tower.pre_layrnorm(tower.embeddings(pixels))
        for plain, ours in zip(tiny().net.clip.vision_model.encoder.layers[:3], tower.encoder.layers, strict=False):
            for layer, norm, part in (("self_attn", "layer_norm1", ours.self_attn), ("mlp", "layer_norm2", ours.mlp)):
                inputs = getattr(plain, norm)(states)
                output = plain.self_attn(inputs, None)[0] if layer == "self_attn" else plain.mlp(inputs)
                hidden = output @ part.adapter.down.weight.T + part.adapter.down.bias
                hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
                states = states + output + hidden @ part.adapter.up.weight.T + part.adapter.up.bias
        torch.testing.assert_close(adapted.encode_image(pixels).taps[-1], states)
    assert len([name for name in trainable(adapted) if name.endswith("down.weight")]) == 2 * 3


def test_houlsby_adapters_are_nearly_the_identity_at_the_start():
    plain, adapted = tiny(), adapters.apply(tiny(), {"name": "houlsby", "dim": 8}, seed=1)
    pixels, tokens, _ = batch(plain)
    with torch.no_grad():
        before, after = plain(pixels, tokens), adapted(pixels, tokens)
    assert 0 < (after - before).abs().max() < 0.01 * before.std()


def test_lora_on_joint_attention_is_the_formula_and_leaves_the_frozen_weights_alone():
    class Towers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)

    torch.manual_seed(0)
    plain, tuned, states = Towers(), Towers(), torch.randn(3, 5, 16)
    tuned.load_state_dict(plain.state_dict())
    frozen = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    inject_lora(tuned.requires_grad_(False), ["attention"], rank=2, alpha=6)
    layer = tuned.attention
    with torch.no_grad():
        for parameter in trainable(tuned).values():
            parameter.normal_(std=0.3)
        for weight, lora in ((plain.attention.in_proj_weight, layer),
                             (plain.attention.out_proj.weight, layer.base_layer.out_proj)):
            weight.add_(6 / 2 * lora.lora_B.default.weight @ lora.lora_A.default.weight)
    expected = plain.attention(states, states, states, need_weights=False)[0]
    for _ in range(3):
        found = tuned.attention(states, states, states, need_weights=False)[0]
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
    assert len(trainable(tuned)) == 4 and all(p.grad.abs().sum() > 0 for p in trainable(tuned).values())
    for name, tensor in tuned.state_dict().items():
        if "lora" not in name:
            assert torch.equal(tensor, frozen[name.replace("base_layer.", "")]), name


def test_an_adapter_initialised_to_zero_would_never_learn():
    block = adapters.base.AdapterBlock(8, 4)
    torch.nn.init.zeros_(block.up.weight)
    torch.nn.init.zeros_(block.up.bias)
    block(torch.randn(5, 8)).sum().backward()
    assert block.up.weight.grad.abs().sum() == 0


@pytest.mark.parametrize(("adapter", "words"), [
    ({"name": "vlsm_densee"}, ("vlsm_densee", "vlsm_dense")),
    ({"name": "vlsm_dense", "dmi": 8}, ("dmi", "dim")),
    ({"name": "vlsm_dense", "dim": 0}, ("dim", "greater than 0")),
    ({"name": "vlsm_dense", "positions": "L"}, ("positions", "VLC")),
    ({"dim": 8}, ("name", "vlsm_shallow")),
])
def test_a_wrong_method_or_knob_is_one_sentence_and_changes_nothing(adapter, words):
    model = tiny()
    names = list(model.state_dict())
    with pytest.raises(UserError) as error:
        adapters.apply(model, adapter)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert list(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("method", list(METHODS))
def test_every_pair_works_or_is_refused_by_name(name, method):
    pairs = [adapter for model, adapter in PAIRS if (model, adapter["name"]) == (name, method)]
    fitting = fitting_models(method)
    assert ((name, method) in SUPPORTED) == (name in fitting)
    if name in fitting:
        assert pairs or name not in SMALL, "a supported pair goes through the shared checks"
        return
    with pytest.raises(UserError) as error:
        adapters.check_pair(name, method)
    said = str(error.value)
    assert f"adapter '{method}' does not support model '{name}', which lacks " in said and not pairs
    assert f"; it supports {', '.join(fitting)}, and model '{name}' takes " in said


@pytest.mark.parametrize(("name", "adapter", "words"), [
    ("etris_r50", {"name": "houlsby", "positions": "V"}, ("positions: V,", "'etris_r50'", "use positions: L")),
    ("etris_r50", {"name": "lora", "positions": "VL"}, ("positions: VL,", "vision tower", "use positions: L")),
    ("etris_r50", {"name": "prompt", "tokens_vision": 4}, ("tokens_vision: 4", "'etris_r50'", "use tokens_vision: 0")),
    ("etris_vit", {"name": "lora", "targets": ["q_proj"]}, ("targets: q_proj", "'etris_vit'", "targets: null")),
    ("clipseg", {"name": "prompt", "tokens_vision": 0, "tokens_text": 0}, ("tokens_text are both 0",)),
])
def test_a_knob_that_a_model_cannot_have_is_one_sentence(name, adapter, words):
    model = small(name)
    names = list(model.state_dict())
    with pytest.raises(UserError) as error:
        adapters.apply(model, adapter)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)
    assert list(model.state_dict()) == names


def damaged(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "no safetensors":
        path.write_bytes(b"not a checkpoint")
    elif how == "nothing of a run":
        save_file({"x": torch.zeros(1)}, path, {"run": '{"study": "another tool"}'})
    elif how == "absent":
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "no safetensors", "absent", "nothing of a run"])
def test_a_damaged_checkpoint_is_one_sentence(how, tmp_path):
    path, adapter = tmp_path / "checkpoint.safetensors", {"name": "decoder"}
    run = Run(study="study", recipe="r", dataset="d", model=ModelConfig(name="clipseg"), adapter=adapter)
    model = adapters.apply(tiny(), adapter)
    checkpoint.save(path, model, run)
    damaged(path, how)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match="checkpoint.safetensors"):
        checkpoint.load(path, model, run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("changes", "words"), [
    ({"adapter": {"name": "vlsm_dense", "dim": 4, "positions": "V"}}, ("adapter", "'dim': 8", "'dim': 4")),
    ({"model": ModelConfig(name="clipseg", sha256="f" * 64)}, ("base weights", "ffffffffffff")),
    ({"model": ModelConfig(name="other")}, ("model clipseg", "other")),
])
def test_a_checkpoint_of_something_else_says_what_differs(changes, words, tmp_path):
    path, adapter = tmp_path / "checkpoint.safetensors", {"name": "vlsm_dense", "dim": 8, "positions": "V"}
    run = Run(study="study", recipe="r", dataset="d", model=ModelConfig(name="clipseg"), adapter=adapter)
    checkpoint.save(path, adapters.apply(tiny(), adapter), run)
    other = run.model_copy(update=changes)
    with pytest.raises(UserError) as error:
        checkpoint.load(path, adapters.apply(tiny(), other.adapter), other)
    assert all(word in str(error.value) for word in words)
