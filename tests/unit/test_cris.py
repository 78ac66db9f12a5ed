"""CRIS: counts, names of tensors, the released code's numbers, weights, padding, and what it shares with ETRIS."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from featherseg import adapters, cli, models
from featherseg.config import ModelConfig, Params
from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.describe import describe
from featherseg.models.cris import config as cris_config
from featherseg.models.cris.config import FULL, Architecture, small_config
from featherseg.models.cris.model import CRIS
from featherseg.models.public import fetch_weights
from featherseg.models.towers.tokenizer import clip_tokenizer
from featherseg.plan import read_recipe, resolve_model
from featherseg.tasks.segmentation.features import FeatureBank

PROMPTS = ["a red circle", "", "one small oval polyp on the left of the picture"]
END = clip_tokenizer().token_to_id("<|endoftext|>")
# of the released modules (DerrickWang005/CRIS.pytorch at e596332, CLIP RN50)
PUBLISHED = {"backbone": 104_106_337, "neck": 24_142_336, "decoder": 12_631_552, "proj": 5_968_897}


def tiny(**changes) -> CRIS:
    torch.manual_seed(3)
    return CRIS("cris", small_config(), **changes).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_at_full_size_are_the_released_codes():
    with torch.device("meta"):
        model = CRIS("cris", FULL["cris"])
    assert {part: count(model.net[part]) for part in PUBLISHED} == PUBLISHED
    assert model.image_size == 416 and model.word_length == 17
    assert len(model.net.state_dict()) == 662


@pytest.mark.parametrize(("recipe", "trained"), [
    ("cris-full", 146_849_121), ("cris-full-published", 146_849_121), ("cris-full-medvlsm", 146_849_121),
    ("cris-full-medvlsm-published", 146_849_121), ("cris-full-referring-published", 146_849_121),
    ("cris-decoder", 42_742_785), ("cris-zero_shot", 0),
    ("cris-lora", 12 * 512 * 16 * (1 + 3 + 1 + 1)), ("cris-prompt", 8 * 512)])
def test_a_recipe_is_described_at_full_size(recipe, trained, monkeypatch):
    monkeypatch.setattr("featherseg.describe.multiply_adds", lambda model: 0)  # which takes most of the time
    described = describe(recipe)
    assert described["trainable"] == trained and described["groups"]["unused"]["total"] == 1
    added = trained if recipe in ("cris-lora", "cris-prompt") else 0
    assert described["total"] == 146_849_122 + added
    assert described["image_size"] == 416 and described["prompt_tokens"] == (17 if "referring" in recipe else 77)


def test_the_table_of_a_recipe(capsys):
    cli.main(["describe", "cris-full"])
    printed = capsys.readouterr().out
    assert "146,849,122" in printed and "77 tokens" in printed


def test_the_heads_tensors_have_the_released_names():
    names = {name.rsplit(".", 1)[0] for part in ("neck", "decoder", "proj")
             for name in tiny().net[part].state_dict(prefix=f"{part}.")}
    convolutions = ("f1_v_proj", "f2_v_proj", "f2_cat", "f3_v_proj", "f3_cat", "f4_proj5", "f4_proj4", "f4_proj3",
                    "aggr", "coordconv.0.conv1", "coordconv.1")
    expected = {f"neck.{part}.{k}" for part in (*convolutions, "txt_proj") for k in (0, 1)} | {"neck.norm_layer.0"}
    expected |= {f"decoder.layers.{k}.{part}" for k in range(3) for part in (
        "self_attn_norm", "cross_attn_norm", "self_attn", "self_attn.out_proj", "multihead_attn",
        "multihead_attn.out_proj", "ffn.0", "ffn.3", "ffn.4", "norm1", "norm2", "norm3")}
    expected |= {f"proj.vis.{k}" for k in ("1.0", "1.1", "3.0", "3.1", "4")} | {"decoder.norm", "proj.txt"}
    assert names == expected


def noise(numbers: int, seed: int) -> torch.Tensor:
    """Fixed numbers in [-1, 1], independent of any generator."""
    values = torch.sin(torch.arange(numbers, dtype=torch.float64) * 12.9898 + seed * 78.233) * 43758.5453
    return 2 * (values - values.floor()) - 1


# what the released code gave on these weights and inputs, without dropout
GOLDEN_LOGITS = {
    "masked": (-4.473098, -5.962614, -5.19044, -4.730524, -4.299447, -3.851853, -4.727213, -4.3445),
    "published_unmasked": (-4.434355, -5.40959, -4.661042, -4.052265, -3.959877, -3.484508, -4.044335, -3.970303)}
GOLDEN_LOSS = 2.428783655166626
GOLDEN_GRADIENTS = {
    "backbone.positional_embedding": 8.5741386, "backbone.visual.conv1.weight": 230.7911377,
    "backbone.visual.attnpool.connect.0.weight": 45.6675072, "neck.f3_cat.0.weight": 10.2813425,
    "neck.coordconv.0.conv1.0.weight": 22.4188423, "decoder.layers.0.multihead_attn.in_proj_weight": 3.3840978,
    "decoder.layers.1.ffn.4.weight": 2.2700102, "proj.txt.weight": 5.2832437}


def golden_model(text_padding: str) -> CRIS:
    """A small CRIS with fixed weights."""
    architecture = Architecture(
        vision_width=8, resnet_layers=(1, 1, 2, 1), pool_grid=3, embed_dim=48, text_width=64, text_heads=1,
        head_width=64, head_mlp=96, neck_widths=(32, 64, 128), image_size=64, word_length=9)
    model = CRIS("cris", architecture, text_padding=text_padding)
    state = dict(model.net.state_dict())
    for number, (key, tensor) in enumerate(sorted(state.items())):
        if tensor.is_floating_point():
            values = noise(tensor.numel(), number).view(tensor.shape)
            if tensor.ndim > 1:
                values *= 1.5 / (tensor.numel() / len(tensor)) ** 0.5
            else:
                values = 1 + 0.3 * values if key.endswith(("weight", "running_var")) else 0.1 * values
            state[key] = values.float()
    model.load_base(state, "golden")
    return model.eval()


def golden_batch(model: CRIS) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = noise(2 * 3 * 64 * 64, 7).view(2, 3, 64, 64).float() * 1.7
    return pixels, model.tokenize(["a red circle", "the small man on the left of the"])


@pytest.mark.parametrize("text_padding", GOLDEN_LOGITS)
def test_logits_are_the_released_codes(text_padding):
    model = golden_model(text_padding)
    with torch.no_grad():
        logits = model(*golden_batch(model))
    torch.testing.assert_close(logits[:, ::5, ::7].flatten()[:8], torch.tensor(GOLDEN_LOGITS[text_padding]),
                               rtol=1e-4, atol=1e-4)


def test_gradients_are_the_released_codes():
    model = golden_model("masked").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    logits = model(*golden_batch(model))
    target = (noise(logits.numel(), 9).view(logits.shape) > 0).float()
    loss = F.binary_cross_entropy_with_logits(logits, target)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN_LOSS, rel=1e-4)
    parameters = {key.removeprefix("net."): parameter for key, parameter in model.named_parameters()}
    for key, norm in GOLDEN_GRADIENTS.items():
        assert parameters[key].grad.norm().item() == pytest.approx(norm, rel=1e-3), key


def test_the_decoder_is_kept_from_padding_and_as_released_it_is_not():
    pixels = torch.randn(3, 3, 64, 64)

    def logits(text_padding, words):
        model = tiny(text_padding=text_padding, word_length=words)
        with torch.no_grad():
            return model(pixels, model.tokenize(PROMPTS))

    torch.testing.assert_close(logits("masked", 20), logits("masked", 40))
    assert (logits("published_unmasked", 20) - logits("published_unmasked", 40)).abs().max() > 1e-3


def test_tokens_are_cut_with_the_end_kept_and_filled_up():
    for text_padding, fill in (("masked", 0), ("published_unmasked", END)):
        model = tiny(text_padding=text_padding, word_length=8)
        tokens = model.tokenize(PROMPTS)
        assert tokens.shape == (3, 8) and tokens.argmax(dim=1).tolist() == [4, 1, 7]
        assert (tokens[0, 5:] == fill).all() and (tokens[1, 2:] == fill).all()
        masked = model.encode_text(tokens).padding
        assert masked.sum(dim=1).tolist() == ([3, 6, 0] if text_padding == "masked" else [0, 0, 0])


def test_an_image_for_all_texts_is_the_image_repeated():
    model = tiny()
    with torch.no_grad():
        image, text = model.encode(torch.randn(1, 3, 64, 64), model.tokenize(PROMPTS))
        repeated = image.index(torch.zeros(3, dtype=torch.long))
        torch.testing.assert_close(model.decode(image, text), model.decode(repeated, text))


def test_logits_reach_the_input_corner_on_corner():
    grid = torch.linspace(-3, 3, 16).expand(1, 16, 16)
    found = tiny().to_input(grid)
    assert found.shape == (1, 1, 64, 64)
    torch.testing.assert_close(found[0, 0, :, [0, 63]], torch.tensor([[-3.0, 3.0]]).expand(64, 2))
    torch.testing.assert_close(found[0, 0, 10], torch.linspace(-3, 3, 64), atol=0.1, rtol=0)


def test_a_batch_of_one_can_train():
    model = adapters.apply(tiny(), {"name": "decoder"}).train()
    model(torch.randn(1, 3, 64, 64), model.tokenize(["a"])).mean().backward()
    assert model.net.proj.txt.weight.grad.abs().sum() > 0


def released(file, model: CRIS, **changes) -> dict[str, torch.Tensor]:
    """Write a checkpoint in the released layout."""
    state = {f"module.{key}": tensor for key, tensor in model.net.state_dict().items()} | changes
    torch.save({"epoch": 50, "best_iou": 0.7, "prec": {}, "state_dict": state, "optimizer": {"state": {}}}, file)
    return state


def build(weights, seed: int = 0, **changes) -> CRIS:
    return models.build(ModelConfig(name="cris", weights=str(weights), **changes), seed)


def equal(ours: CRIS, theirs: CRIS) -> bool:
    theirs = theirs.net.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in ours.net.state_dict().items())


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setitem(cris_config.FULL, "cris", small_config())


@pytest.mark.usefixtures("_small")
def test_a_released_checkpoint_loads(tmp_path):
    source = tiny()
    released(tmp_path / "best_model.pth", source)
    for weights in (tmp_path, tmp_path / "best_model.pth"):
        model = build(weights, word_length=9, text_padding="published_unmasked")
        assert equal(model, source)
        assert model.word_length == 9 and not model.masks_padding and not model.training


@pytest.mark.usefixtures("_small")
def test_its_weights_come_from_the_inbox_and_are_not_run_until_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fetch_weights("cris")
    assert read_json("data/weights/cris/status.json")["status"] == "not_run"
    reason = read_json("data/weights/cris/status.json")["reason"]
    assert reason.startswith("best_model.pth is on no model hub") and "into data/inbox/cris/" in reason
    Path("data/inbox/cris").mkdir(parents=True)
    source = tiny()
    released("data/inbox/cris/best_model.pth", source)
    fetch_weights("cris")
    assert read_json("data/weights/cris/status.json")["status"] == "ok" and equal(build("data/weights/cris"), source)
    assert list(read_json("data/checksums.json")) == ["weights/cris/best_model.pth"]


@pytest.mark.usefixtures("_small")
def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    state = released(tmp_path / "best_model.pth", tiny())
    del state["module.neck.txt_proj.1.running_var"]
    state |= {"module.decoder.surplus": torch.zeros(1), "module.proj.txt.bias": torch.zeros(3)}
    torch.save({"state_dict": state}, tmp_path / "best_model.pth")
    with pytest.raises(UserError) as error:
        build(tmp_path)
    for words in ("1 missing (neck.txt_proj.1.running_var)", "1 unexpected (decoder.surplus)",
                  "1 misshapen (proj.txt.bias (3,) instead of (145,))"):
        assert words in str(error.value)


@pytest.mark.usefixtures("_small")
def test_clip_alone_leaves_head_and_connect_to_the_seed(tmp_path):
    clip = {key: tensor for key, tensor in tiny().net.backbone.state_dict().items() if "connect" not in key}
    save_file(clip, tmp_path / "open_clip_model.safetensors")
    first, again, other = (build(tmp_path, seed).net.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[f"backbone.{key}"], tensor) for key, tensor in clip.items())
    assert all(torch.equal(tensor, again[key]) for key, tensor in first.items())
    for key in ("neck.aggr.0.weight", "backbone.visual.attnpool.connect.0.weight"):
        assert not torch.equal(first[key], other[key])


def test_the_packages_own_folder(tmp_path):
    source = tiny()
    (tmp_path / "config.json").write_text(json.dumps(source.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in source.net.state_dict().items()},
              tmp_path / "model.safetensors")
    model = build(tmp_path)
    assert model.config == source.config and model.image_size == 64 and equal(model, source)
    (tmp_path / "config.json").write_text(json.dumps(source.architecture() | {"neck_widht": [1, 2, 3]}))
    with pytest.raises(UserError, match=r"config\.json.*neck_widht.*did you mean 'neck_widths'"):
        build(tmp_path)


def test_pictures_are_squashed_or_keep_their_aspect():
    squashed, kept = (models.build(ModelConfig(name="cris", weights="random-small", resize=kind)).resize
                      for kind in ("squash", "letterbox"))
    picture = np.full((20, 40, 3), 200, np.uint8)
    assert (squashed.image(picture) == 200).all() and models.build(
        ModelConfig(name="cris", weights="random-small")).resize == squashed
    assert (kept.image(picture)[16:48] == 200).all() and (kept.image(picture)[:16] == (123, 117, 104)).all()


@pytest.mark.parametrize(("changes", "words"), [
    ({"image_size": 65}, "image_size 65 is not a multiple of 32"),
    ({"word_length": 2}, "word_length 2 is not between")])
def test_sizes_that_do_not_fit_are_one_sentence(changes, words):
    with pytest.raises(UserError, match=f"'cris': {words}"):
        models.build(ModelConfig(name="cris", weights="random-small", **changes))


class Pixels:
    """Three random images as a dataset's decoded pixels."""

    fingerprint = "three"

    def images(self, rows):
        generator = torch.Generator().manual_seed(1)
        return torch.randint(0, 256, (3, 64, 64, 3), generator=generator, dtype=torch.uint8)[list(rows)]


def test_cached_text_features_are_those_of_the_padding(tmp_path, monkeypatch):
    """The two paddings give other words, so they share no cache."""
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path))
    for text_padding in ("masked", "published_unmasked"):
        model = adapters.apply(tiny(text_padding=text_padding, word_length=20), {"name": "decoder"})
        bank = FeatureBank(model, Pixels(), [0, 1, 2], PROMPTS)
        with torch.no_grad():
            image, text = bank.pairs([0, 1, 2], PROMPTS)
            expected = model(model.normalise(Pixels().images([0, 1, 2])), model.tokenize(PROMPTS))
            torch.testing.assert_close(model.decode(image, text), expected, rtol=1e-4, atol=1e-4)
    assert sum(path.is_dir() for path in (tmp_path / "features").iterdir()) == 4


@pytest.mark.parametrize(("recipe", "padding"), [("cris-full", "masked"), ("cris-full-published", "published_unmasked"),
                                                 ("cris-full-medvlsm-published", "published_unmasked")])
def test_a_plan_holds_the_padding_of_its_recipe_unless_params_say_another(recipe, padding):
    study = {"datasets": ["lesions"], "recipes": [recipe], "seeds": [0]}

    def planned(**knobs):
        params = Params.model_validate({"study": study, "model": {"weights": {"cris": "random-small"}, **knobs}})
        return resolve_model(read_recipe(recipe), params, "params.yaml")[0]

    assert (planned().text_padding, planned().word_length) == (padding, 77)
    assert models.build(planned()).masks_padding == (padding == "masked")
    assert {layer.p for layer in models.build(planned()).modules() if isinstance(layer, nn.Dropout)} == {0.2}
    assert planned(text_padding="masked", word_length=12).text_padding == "masked"
    assert models.build(planned(text_padding="published_unmasked", word_length=12)).tokenize([""])[0, -1] == END
