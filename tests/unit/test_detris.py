"""DETRIS: counts, the walk through both towers, its adapters, layouts of weights, and numbers of the released code."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from featherseg import adapters, cli, models
from featherseg.adapters.dense_aligner import SCALE, DenseAdapter, DenseAligner, _spread
from featherseg.checkpoint import changed_tensors
from featherseg.config import ModelConfig, Run
from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.describe import describe
from featherseg.models import public
from featherseg.models.detris import config as detris_config
from featherseg.models.detris.config import Architecture, small_config
from featherseg.models.detris.model import DETRIS, interpolate_places
from featherseg.models.weights import OWN_FILE, read_state
from featherseg.plan import of_dataset, read_recipe

# counted in the released code: Dense Aligners, Text Adapters, the head's three parts, all that is trained
RELEASED = {"detris_b": (2_297_376, 418_320, 10_114_560, 7_899_136, 4_788_737, 25_518_129),
            "detris_l": (2_692_128, 418_320, 10_507_776, 7_899_136, 4_788_737, 26_306_097)}
SMALL = small_config(width=64, text_width=32, image_size=32)
ADAPTER = {"name": "dense_aligner", "dim": 32, "text_dim": 16, "blocks": 2}
PROMPTS = ["a red circle", "", "the small one left of the square"]


def tiny(adapter: dict | None = None, **changes) -> DETRIS:
    torch.manual_seed(3)
    model = DETRIS("detris_b", SMALL, **changes).eval()
    return model if adapter is None else adapters.apply(model, adapter, seed=1).eval()


def batch(model: DETRIS) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, 3, model.image_size, model.image_size, generator=generator), model.tokenize(PROMPTS)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def released_layout(state: dict[str, torch.Tensor], position: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of a model and its adapters under the released names; `position` is the class token's."""
    names = {"backbone.visual.reg_token": "dinov2.register_tokens"}
    theirs = {}
    for name, tensor in state.items():
        tower, _, rest = name.removeprefix("exchange.").partition(".")
        if name.startswith("exchange."):
            block, _, inside = rest.partition(".")
            within = {"vision": "dinov2.blocks", "text": "txt_backbone.transformer.resblocks"}[tower]
            theirs[f"{within}.{block}.adapter.{inside}"] = tensor
        else:
            whole = name.replace("backbone.visual.", "dinov2.", 1).replace("backbone.", "txt_backbone.", 1)
            theirs[names.get(name, whole)] = tensor
    theirs["dinov2.cls_token"] = theirs["dinov2.cls_token"] - position
    theirs["dinov2.pos_embed"] = torch.cat([position, theirs["dinov2.pos_embed"]], dim=1)
    return theirs | {"dinov2.mask_token": torch.zeros(1, position.shape[-1])}


def released_file(path: Path, model: DETRIS) -> Path:
    state = {**model.net.state_dict(), **model.exchange.state_dict(prefix="exchange.")}
    layout = released_layout(state, torch.full((1, 1, model.vision.dim), 0.25))
    torch.save({"epoch": 50, "best_iou": 0.7, "state_dict": {f"module.{key}": v for key, v in layout.items()}}, path)
    return path


@pytest.fixture
def small_full(monkeypatch):
    monkeypatch.setitem(detris_config.FULL, "detris_b", SMALL)


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_at_full_size_are_the_released_codes(name):
    with torch.device("meta"):
        model = adapters.apply(models.MODELS[name](ModelConfig(name=name)), {"name": "dense_aligner"})
    net, exchange = model.net, model.exchange
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = (exchange.vision, exchange.text, net.neck, net.decoder, net.proj)
    assert (*map(count, parts), trained) == RELEASED[name]
    assert model.image_size == 448 and model.word_length == 17
    blocks = {"detris_b": [1, 3, 5, 7, 9, 11], "detris_l": [2, 6, 10, 14, 18, 22]}
    assert list(map(int, exchange.vision)) == blocks[name] and list(map(int, exchange.text)) == [1, 3, 5, 7, 9, 11]
    assert model.vision.taps == {"detris_b": (4, 8, 11), "detris_l": (8, 16, 23)}[name]


def test_adapters_are_spread_evenly():
    assert _spread(12, range(12)) == list(range(12)) and _spread(6, range(3)) == [0, 1, 2]
    assert _spread(2, range(12)) == [3, 9] and _spread(1, range(5)) == [2]


def test_head_only_trains_the_head_and_describe_counts_it_beside_the_released_code(capsys):
    trained = {name: group["trainable"] for name, group in describe("detris_b-decoder")["groups"].items()}
    assert trained.pop("decoder") == 10_114_560 + 7_899_136 + 4_788_737 and set(trained.values()) == {0}
    cli.main(["describe", "detris_b-dense_aligner-published"])
    printed = capsys.readouterr().out
    rows = {line[:10].rstrip(): line.split()[-3:] for line in printed.splitlines()}
    for name, number in {"adapter": "2,715,696", "decoder": "22,802,433", "  neck": "10,114,560"}.items():
        assert rows[name] == [number] * 3
    assert "share of the backbone: DETRIS's adapters 1.81%\n" in printed
    assert "0.9 % to 1.8 % of the backbone (DETRIS, abstract)" in printed


def test_maps_are_those_of_the_places_and_the_last_one_is_normalised():
    model = tiny()
    pixels, tokens = batch(model)
    states = []
    for block in (0, 1, 3):
        model.get_submodule(model.vision.blocks[block]).register_forward_hook(
            lambda module, inputs, output: states.append(output))
    with torch.no_grad():
        maps = model.encode_image(pixels).taps
        states[-1] = model.net.backbone.visual.norm(states[-1])
    assert [tuple(tap.shape) for tap in maps] == [(3, 64, 4, 4)] * 3
    for tap, state in zip(maps, states, strict=True):
        assert state.shape == (3, 1 + 4 + 16, 64)
        assert torch.equal(tap[:, :, 1, 2], state[:, 5 + 1 * 4 + 2])


def test_the_neck_adds_what_its_last_convolutions_are_given():
    neck, seen = tiny().net.neck, []
    neck.aggr.register_forward_hook(lambda module, inputs, output: seen.append(output))
    maps, sentence = [torch.randn(2, 64, 4, 4) for _ in range(3)], torch.randn(2, 32)
    with torch.no_grad():
        joint = neck(maps, sentence)
        torch.testing.assert_close(joint, seen[0] + neck.coordconv(seen[0]))


@pytest.mark.parametrize("axes", [1, 2])
def test_each_branch_sees_what_the_ones_before_found(axes):
    adapter = DenseAdapter(24, 16, axes).eval()
    features = torch.randn(2, 16, 5, 5)[..., 0] if axes == 1 else torch.randn(2, 16, 5, 5)
    with torch.no_grad():
        first = adapter.dense_branch1(features)
        second = adapter.dense_branch2(torch.cat([features, first], dim=1))
        third = adapter.dense_branch3(torch.cat([features, first, second], dim=1))
        torch.testing.assert_close(adapter.mixed(features), torch.cat([first, second, third], dim=1))
    assert [part.shape[1] for part in (first, second, third)] == [8, 4, 4]
    assert adapter.dense_branch3[1].conv.kernel_size == (5,) * axes


def test_what_an_adapter_finds_is_added_to_its_blocks_mlp_before_the_layers_scale():
    model = tiny(ADAPTER)
    pixels, tokens = batch(model)
    number = next(iter(model.exchange.vision))
    block, aligner, seen = model.net.backbone.visual.blocks[int(number)], model.exchange.vision[number], {}
    block.norm2.register_forward_hook(lambda module, inputs, output: seen.update(normed=output))
    block.ls2.register_forward_hook(lambda module, inputs, output: seen.update(scaled=inputs[0]))
    with torch.no_grad():
        words = model.encode(pixels, tokens)[1].taps[0]
        with model.exchange.hearing(words):
            added = SCALE * aligner(seen["normed"])
        plain = block.mlp.fc2(block.mlp.act(block.mlp.fc1(seen["normed"])))
    torch.testing.assert_close(seen["scaled"], plain + added, rtol=1e-4, atol=1e-5)
    assert added.abs().max() > 1e-3


def test_a_text_adapter_reads_the_state_before_the_norm():
    model = tiny(ADAPTER)
    pixels, tokens = batch(model)
    number = next(iter(model.exchange.text))
    block, adapter, seen = model.net.backbone.transformer.resblocks[int(number)], model.exchange.text[number], {}
    block.ln_2.register_forward_hook(lambda module, inputs, output: seen.update(state=inputs[0], normed=output))
    block.ls_2.register_forward_hook(lambda module, inputs, output: seen.update(sum=inputs[0]))
    with torch.no_grad():
        model.encode(pixels, tokens)
        plain = block.mlp.c_proj(block.mlp.gelu(block.mlp.c_fc(seen["normed"])))
        torch.testing.assert_close(seen["sum"], plain + SCALE * adapter(seen["state"]), rtol=1e-4, atol=1e-5)


def test_adapters_that_find_nothing_change_nothing():
    plain, model = tiny(), tiny(ADAPTER)
    with torch.no_grad():
        for adapter in (*model.exchange.vision.values(), *model.exchange.text.values()):
            adapter.D_fc2.weight.zero_()
            adapter.D_fc2.bias.zero_()
        torch.testing.assert_close(model(*batch(model)), plain(*batch(plain)))


def test_the_image_hears_the_words_and_the_text_does_not_hear_the_image():
    model = tiny(ADAPTER)
    pixels, tokens = batch(model)
    with torch.no_grad():
        image, text = model.encode(pixels, tokens)
        other, same = model.encode(pixels.flip(0), tokens)
        heard, _ = model.encode(pixels, tokens.flip(0))
    assert torch.equal(text.taps[0], same.taps[0]) and torch.equal(text.sentence, same.sentence)
    assert (image.taps[2] - heard.taps[2])[0].abs().max() > 1e-4
    assert not torch.equal(image.taps[2], other.taps[2])
    for before in image.taps[:1]:  # the first adapter lies behind the first map
        torch.testing.assert_close(before, heard.taps[0])


def test_words_are_forgotten_whatever_happens_and_without_them_there_are_no_features():
    model = tiny(ADAPTER)
    pixels, tokens = batch(model)
    with pytest.raises(AssertionError):
        model.encode(pixels[:, :, :9], tokens)
    assert all(aligner.words is None for aligner in model.exchange.vision.values())
    for call, given in ((model.encode_image, pixels), (model.encode_text, tokens)):
        with pytest.raises(RuntimeError, match="together"):
            call(given)


def test_aligners_start_as_the_released_codes_constructor_leaves_them():
    torch.manual_seed(0)
    aligner = DenseAligner(width=768, text_width=512, dim=128, prefix=5)
    for name, parameter in aligner.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 4:
            assert parameter.std().item() == pytest.approx((2 / parameter[0].numel()) ** 0.5, rel=0.1), name
        elif "in_proj" in name:  # of queries, keys and values, which the constructor passes over
            assert parameter.abs().max().item() == pytest.approx((6 / sum(parameter.shape)) ** 0.5, rel=0.01), name
        elif parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
        else:
            assert "bn" in name and (parameter == 1).all(), name


@pytest.mark.parametrize(("width", "share"), [(768, 0.050), (1024, 0.043)])
def test_an_aligner_starts_at_a_twentieth_of_what_the_mlp_returns(width, share):
    """The released code's modules, drawn by its constructor, give these shares; drawn by Kaiming alone 1.0 and 0.8."""
    torch.manual_seed(0)
    aligner, mlp = DenseAligner(width, 512, 128, prefix=5), [nn.Linear(width, 4 * width), nn.Linear(4 * width, width)]
    for layer in mlp:  # as DINOv2's are drawn
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    states, aligner.words = F.layer_norm(torch.randn(2, 5 + 64, width), (width,)), torch.randn(2, 17, 512)
    with torch.no_grad():
        added, returned = SCALE * aligner(states), mlp[1](F.gelu(mlp[0](states)))
    assert (added.norm() / returned.norm()).item() == pytest.approx(share, rel=0.1)


def test_a_copy_has_its_own_adapters():
    model = tiny(ADAPTER)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = model(*batch(model))
        for parameter in twin.exchange.parameters():
            parameter.add_(0.1)
        torch.testing.assert_close(model(*batch(model)), before)
        assert (twin(*batch(model)) - before).abs().max() > 1e-3


@pytest.mark.parametrize("knob", ["dim", "text_dim"])
def test_a_width_that_the_branches_cannot_share_is_one_sentence(knob):
    model = tiny()
    with pytest.raises(UserError, match=f"adapter 'dense_aligner' has {knob}: 24, .*a multiple of 16"):
        adapters.apply(model, ADAPTER | {knob: 24})
    assert not model.joint


def test_only_detris_takes_dense_aligners():
    with pytest.raises(UserError, match="'dense_aligner' does not support model 'etris_vit'"):
        adapters.check_pair("etris_vit", "dense_aligner")


@pytest.mark.parametrize(("changes", "words"), [
    ({"patch_size": None, "resnet_layers": (1, 1, 1, 1)}, "DINOv2 is a ViT"),
    ({"vision_stages": (5, 5, 12)}, "vision_stages are 3 numbers")])
def test_an_architecture_that_does_not_fit_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        Architecture(**{"vision_width": 64, "patch_size": 14} | changes)


def test_a_size_that_is_not_one_of_whole_patches_is_one_sentence():
    with pytest.raises(UserError, match="image_size 416 is not a multiple of 14"):
        models.build(ModelConfig(name="detris_b", image_size=416))


def test_a_released_checkpoint_hands_its_adapters_over(small_full, tmp_path):
    source = tiny(ADAPTER)
    weights = str(released_file(tmp_path / "best_model.pth", source))
    model = models.build(ModelConfig(name="detris_b", weights=weights))
    assert not model.joint
    with pytest.raises(UserError, match="what the adapter dense_aligner adds, .* use that adapter"):
        adapters.apply(model, {"name": "decoder"})
    adapters.apply(model, ADAPTER, seed=7).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(*batch(model)), source(*batch(source)), rtol=1e-4, atol=1e-5)
    run = Run(study="s", recipe="r", dataset="d", model=ModelConfig(name="detris_b", weights=weights), adapter=ADAPTER)
    assert changed_tensors(model, run).keys() == adapters.trainable(model).keys()


def test_adapters_of_other_knobs_name_what_does_not_fit(small_full, tmp_path):
    weights = str(released_file(tmp_path / "best_model.pth", tiny(ADAPTER)))
    for knobs, words in (({"dim": 16}, "misshapen"), ({"blocks": 1}, "unexpected")):
        model = models.build(ModelConfig(name="detris_b", weights=weights))
        with pytest.raises(UserError, match=f"DETRIS's adapters does not fit.*{words}"):
            adapters.apply(model, ADAPTER | knobs)


def test_missing_unexpected_and_misshapen_tensors_of_a_released_checkpoint_are_named(small_full, tmp_path):
    path = released_file(tmp_path / "best_model.pth", tiny(ADAPTER))
    state = torch.load(path, weights_only=True)["state_dict"]
    state["module.dinov2.surplus"] = torch.zeros(1)
    state["module.dinov2.pos_embed"] = torch.zeros(3)
    del state["module.txt_backbone.ln_final.bias"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError) as error:
        models.build(ModelConfig(name="detris_b", weights=str(path)))
    for words in ("missing (backbone.ln_final.bias)", "unexpected (backbone.visual.surplus)",
                  "backbone.visual.pos_embed (3,) instead of (1, 16, 64)"):
        assert words in str(error.value)


def test_the_packages_own_folder_at_another_size_interpolates_the_places(tmp_path):
    source = tiny()
    (tmp_path / "config.json").write_text(json.dumps(source.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in source.net.state_dict().items()}, tmp_path / OWN_FILE)
    same, other = (models.build(ModelConfig(name="detris_b", weights=str(tmp_path), image_size=size))
                   for size in (None, 48))
    assert all(torch.equal(tensor, source.net.state_dict()[key]) for key, tensor in same.net.state_dict().items())
    assert other.net.backbone.visual.pos_embed.shape == (1, 36, 64)
    assert torch.equal(other.net.backbone.visual.cls_token, source.net.backbone.visual.cls_token)


def test_places_are_interpolated_by_the_released_codes_ratio():
    grid = torch.randn(1, 6, 37, 37)
    positions = grid.flatten(2).transpose(1, 2)
    assert interpolate_places(positions, 37) is positions
    ours = interpolate_places(positions, 32).transpose(1, 2).unflatten(2, (32, 32))
    theirs = F.interpolate(grid, scale_factor=((32 + 0.1) / 37,) * 2, mode="bicubic")
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, F.interpolate(grid, size=(32, 32), mode="bicubic"), atol=1e-3)
    for odd in (torch.randn(1, 5, 6), torch.randn(4), torch.zeros(1, 4, 2, dtype=torch.long)):
        assert interpolate_places(odd, 3) is odd


@pytest.fixture
def mirror(small_full, tmp_path, monkeypatch) -> Path:
    """A mirror of the two that DETRIS is put together from, beside an empty project."""
    monkeypatch.chdir(tmp_path)
    backbone = {key: tensor.contiguous() for key, tensor in tiny().net.backbone.state_dict().items()}
    vision = {key.removeprefix("visual."): tensor for key, tensor in backbone.items() if key.startswith("visual.")}
    text = {key: tensor for key, tensor in backbone.items() if not key.startswith("visual.")}
    extra = {"visual.proj": torch.zeros(2), "input_resolution": torch.tensor(224)}
    for name, file, state in (("dinov2-b14-reg", "model.safetensors", vision),
                              ("clip-vit-b16", "open_clip_model.safetensors", text | extra)):
        (tmp_path / "mirror" / name).mkdir(parents=True)
        save_file(state, tmp_path / "mirror" / name / file)
    return tmp_path / "mirror"


def test_detris_is_put_together_from_dinov2_and_clips_text_tower(mirror):
    public.fetch_weights("detris-b", str(mirror))
    folder = Path("data/weights/detris-b")
    assert read_json(folder / "status.json")["status"] == "ok" and sorted(path.name for path in folder.iterdir()) == [
        "card.md", "config.json", "model.safetensors", "status.json"]
    model = models.build(ModelConfig(name="detris_b", weights=str(folder)))
    theirs = tiny().net.backbone.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in model.net.backbone.state_dict().items())
    assert set(read_state(folder)) == {f"backbone.{key}" for key in theirs}
    assert {name.split(".")[1] for name in model.untrained} == {"neck", "decoder", "proj"}


def test_detris_is_not_run_where_a_part_is_not_to_be_had(mirror, monkeypatch):
    (mirror / "dinov2-b14-reg" / "model.safetensors").unlink()

    def offline(*args, **kwargs):
        raise OSError

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    public.fetch_weights("detris-b", str(mirror))
    status = read_json(Path("data/weights/detris-b/status.json"))
    assert status["status"] == "not_run"
    assert "model.safetensors of timm/vit_base_patch14_reg4_dinov2.lvd142m could not be" in status["reason"]
    assert not Path("data/weights/detris-b/model.safetensors").exists()


@pytest.mark.parametrize("size", ["b", "l"])
def test_recipes_follow_the_released_settings(size):
    plain, published = (read_recipe(f"detris_{size}-dense_aligner{suffix}") for suffix in ("", "-published"))
    assert plain.adapter == published.adapter == {"name": "dense_aligner", "dim": 128, "text_dim": 64, "blocks": 6}
    epochs, milestones = (of_dataset(plain.train[key], "refcoco") for key in ("epochs", "milestones"))
    assert (epochs, milestones) == {"b": (65, [35, 55]), "l": (50, [35])}[size]
    assert plain.word_length == published.word_length == {"default": 17, "refcocog_umd": 22}
    assert not plain.published and published.evaluate["threshold"] == 0.35


def noise(numbers: int, seed: int) -> torch.Tensor:
    """Fixed numbers in [-1, 1], independent of any generator."""
    values = torch.sin(torch.arange(numbers, dtype=torch.float64) * 12.9898 + seed * 78.233) * 43758.5453
    return 2 * (values - values.floor()) - 1


GOLDEN_SIZES = Architecture(
    vision_width=128, patch_size=14, vision_stages=(2, 3, 4), text_width=64, text_heads=1, stages=(1, 2, 4),
    embed_dim=64, head_width=64, head_mlp=48, image_size=56, word_length=9)


def golden_state() -> dict[str, torch.Tensor]:
    """Fixed weights in the released layout, with positions for a grid of five places a side."""
    model = adapters.apply(DETRIS("detris_b", GOLDEN_SIZES, image_size=70), ADAPTER)
    own = {**model.net.state_dict(), **model.exchange.state_dict(prefix="exchange.")}
    state = released_layout(own, torch.zeros(1, 1, 128))
    for number, (key, tensor) in enumerate(sorted(state.items())):
        if tensor.is_floating_point():
            values = noise(tensor.numel(), number).view(tensor.shape)
            if tensor.ndim > 1:
                values *= 1.5 / (1 if "embed" in key or "token" in key else tensor.numel() / len(tensor)) ** 0.5
            else:
                is_scale = key.endswith(("weight", "running_var", "gamma"))
                values = 1 + 0.3 * values if is_scale else 0.1 * values
            state[key] = values.float()
    return state


def golden_inputs(model: DETRIS) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = noise(2 * 3 * 56 * 56, 7).view(2, 3, 56, 56).float() * 1.7
    return pixels, model.tokenize(["a red circle", "the small man on the left of the"])


# what the released code (jiaqihuang01/DETRIS at c94b1e1) gave on these weights and inputs, without dropout
GOLDEN_LOGITS = (1.360171, 1.321131, 2.554383, 2.304507, 3.251875, 5.602257, 5.125426, 0.86444)
GOLDEN_LOSS = 2.0573831
GOLDEN_GRADIENTS = {
    "exchange.vision.1.dense_branch2.1.conv.weight": 0.0014124,
    "exchange.vision.3.cross.multihead_attn.in_proj_weight": 0.0119108, "exchange.vision.1.D_fc1.weight": 0.05945,
    "exchange.text.1.dense_branch3.1.conv.weight": 0.0433141, "exchange.text.3.D_fc2.weight": 0.9067703,
    "net.neck.coordconv.0.conv1.0.weight": 14.9140711, "net.decoder.layers.1.ffn.4.weight": 1.6438717,
    "net.proj.txt.weight": 6.0956426}


def test_logits_and_gradients_are_the_released_codes():
    model = DETRIS("detris_b", GOLDEN_SIZES)
    model.load_base(golden_state(), "golden")
    adapters.apply(model, ADAPTER).eval()
    pixels, tokens = golden_inputs(model)
    with torch.no_grad():
        logits = model(pixels, tokens)
    torch.testing.assert_close(logits[:, ::3, ::5].flatten()[:8], torch.tensor(GOLDEN_LOGITS), rtol=1e-4, atol=1e-4)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    target = (noise(logits.numel(), 9).view(logits.shape) > 0).float()
    loss = F.binary_cross_entropy_with_logits(model(pixels, tokens), target)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN_LOSS, rel=1e-4)
    parameters = dict(model.named_parameters())
    for key, norm in GOLDEN_GRADIENTS.items():
        assert parameters[key].grad.norm().item() == pytest.approx(norm, rel=1e-3), key
