"""Every model with every method, through one table of shared checks."""

import pytest
import torch
from safetensors.torch import save_file

from featherseg import adapters, checkpoint
from featherseg.adapters import METHODS, trainable
from featherseg.config import ModelConfig, Run
from featherseg.describe import parameter_groups
from featherseg.errors import UserError
from featherseg.models.base import parameters_of
from featherseg.models.clipseg import CLIPSeg, full_config, small_config

POSITIONS = ("V", "VL", "VLC")
METHOD_CASES = [
    {"name": "zero_shot"}, {"name": "decoder"}, {"name": "full"},
    *({"name": "vlsm_dense", "dim": 8, "positions": positions} for positions in POSITIONS),
    *({"name": "vlsm_shallow", "dim": 8, "positions": positions} for positions in POSITIONS),
    {"name": "lora", "rank": 2, "positions": "V"}, {"name": "lora", "rank": 2, "positions": "VL"},
]
FULL_SIZE_COUNTS = [
    ({"name": "zero_shot"}, 0), ({"name": "decoder"}, 1_127_009), ({"name": "full"}, 136_177_249),
    ({"name": "vlsm_dense", "positions": "V"}, 1_784_448), ({"name": "vlsm_dense", "positions": "VL"}, 2_974_464),
    ({"name": "vlsm_dense", "positions": "VLC"}, 3_237_376), ({"name": "vlsm_shallow", "positions": "V"}, 2_363_136),
    ({"name": "vlsm_shallow", "positions": "VL"}, 3_939_072), ({"name": "vlsm_shallow", "positions": "VLC"}, 4_201_984),
    # rank 16 on two 768-wide projections of 10 vision blocks and two 512-wide ones of 12 text blocks
    ({"name": "lora"}, 2 * 2 * 16 * (10 * 768 + 12 * 512)),
]


def label(case: dict) -> str:
    return "-".join(str(value) for value in case.values())


def tiny() -> CLIPSeg:
    torch.manual_seed(3)
    config = small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
    return CLIPSeg(config, 32).eval()


def batch(model: CLIPSeg) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    masks = (torch.rand(4, 1, 32, 32, generator=generator) > 0.5).float()
    return pixels, model.tokenize(["a red circle", "left lung", "", "one large polyp at the top"]), masks


def step(model: CLIPSeg, optimizer: torch.optim.Optimizer) -> None:
    pixels, tokens, masks = batch(model)
    optimizer.zero_grad()
    torch.nn.functional.binary_cross_entropy_with_logits(model.to_input(model(pixels, tokens)), masks).backward()
    optimizer.step()


@pytest.mark.parametrize(("adapter", "count"), FULL_SIZE_COUNTS, ids=[label(case) for case, _ in FULL_SIZE_COUNTS])
def test_trainable_parameters_at_full_size_are_the_published_codes(adapter, count):
    with torch.device("meta"):
        model = adapters.apply(CLIPSeg(full_config()), adapter)
    assert sum(p.numel() for p in trainable(model).values()) == count
    groups = parameter_groups(model)
    assert sum(group["trainable"] for group in groups.values()) == count
    assert sum(group["total"] for name, group in groups.items() if name != "adapter") == 150_747_746
    assert groups["unused"] == {"total": 14_570_497, "trainable": 0}


@pytest.mark.parametrize("adapter", [case for case in METHOD_CASES if case["name"] != "zero_shot"], ids=label)
def test_training_moves_exactly_what_is_trainable(adapter):
    model = adapters.apply(tiny(), adapter, seed=1)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.1)
    step(model, optimizer)
    step(model, optimizer)  # LoRA's A has no gradient until B has moved
    for name, parameter in trainable(model).items():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, f"{name} is trainable but gets no gradient"
    for name, tensor in model.state_dict().items():
        if name not in trainable(model):
            assert torch.equal(tensor, before[name]), f"{name} is frozen but moved"


def test_full_trains_both_towers_and_nothing_that_never_reaches_the_mask():
    model = adapters.apply(tiny(), {"name": "full"})
    for tower in (model.vision, model.text):
        assert all(p.requires_grad for p in parameters_of(model, tower.modules).values())
    assert not any(p.requires_grad for p in parameters_of(model, model.unused).values())


@pytest.mark.parametrize("adapter", METHOD_CASES, ids=label)
def test_a_tower_is_constant_exactly_where_its_features_cannot_change(adapter):
    model = adapters.apply(tiny(), adapter, seed=1)
    pixels, tokens, _ = batch(model)
    before = model.encode_image(pixels).taps[-1].detach().clone(), model.encode_text(tokens).sentence.detach().clone()
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.05)
    after = model.encode_image(pixels).taps[-1], model.encode_text(tokens).sentence
    for tower, old, new in zip(("vision", "text"), before, after, strict=True):
        assert model.tower_is_constant(tower) == torch.equal(old, new)


@pytest.mark.parametrize("adapter", METHOD_CASES, ids=label)
def test_a_checkpoint_restores_the_logits(adapter, tmp_path):
    run = Run(study="study", recipe="r", dataset="d", model=ModelConfig(name="clipseg"), adapter=adapter)
    model = adapters.apply(tiny(), adapter, seed=1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    pixels, tokens, _ = batch(model)
    checkpoint.save(tmp_path / "checkpoint.safetensors", model, run)
    other = adapters.apply(tiny(), adapter, seed=2)
    checkpoint.load(tmp_path / "checkpoint.safetensors", other, run)
    assert torch.equal(model(pixels, tokens), other(pixels, tokens))


@pytest.mark.parametrize("adapter", METHOD_CASES, ids=label)
def test_the_seed_decides_initial_weights_and_the_global_generator_is_left_alone(adapter):
    states = []
    for global_seed in (11, 12):
        model = tiny()
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        states.append(adapters.apply(model, adapter, seed=1).state_dict())
        assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


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


def test_a_pair_that_does_not_fit_names_the_models_that_do(monkeypatch):
    monkeypatch.setattr(METHODS["lora"], "models", ("etris",))
    with pytest.raises(UserError, match="'lora' does not support model 'clipseg'; it supports etris"):
        adapters.apply(tiny(), {"name": "lora"})


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
