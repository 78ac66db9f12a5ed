"""ETRIS: counts, names of tensors, the walk through both towers, and numbers of the released code."""

import itertools
from dataclasses import replace

import open_clip
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from featherseg import adapters
from featherseg.adapters.bridger import Bridger, BridgerConfig
from featherseg.config import ModelConfig
from featherseg.core.errors import UserError
from featherseg.models import MODELS, small_model
from featherseg.models.etris.config import Architecture, small_config, small_resnet_config
from featherseg.models.etris.model import build_etris

# FACTS of the released configurations: Bridger, alignments, projector, trained positions, all that is trained
PUBLISHED = {"etris_r50": (1_942_080, 12_867_072, 7_899_136, 5_968_897, 141_824, 28_819_009),
             "etris_r101": (1_942_080, 11_556_352, 7_899_136, 4_788_737, 141_824, 26_328_129),
             "etris_vit": (598_592, 9_983_488, 7_899_136, 4_788_737, 559_360, 23_829_313)}
CLIP_CONFIGS = {"etris_r50": "RN50-quickgelu", "etris_r101": "RN101-quickgelu", "etris_vit": "ViT-B-16-quickgelu"}
SMALL = {"etris_vit": small_config(width=32, text_width=32, stages=(1, 2, 4), patch=16, image_size=64),
         "etris_r50": small_resnet_config()}
BRIDGER = {"name": "bridger", "dim": 8, "heads": 2}
PROMPTS = ["a red circle", "", "the small one left of the square"]


def tiny(name: str, adapter: dict | None = None, **changes):
    torch.manual_seed(3)
    model = build_etris(name, SMALL[name], **changes).eval()
    return model if adapter is None else adapters.apply(model, adapter, seed=1).eval()


def batch(model) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, 3, model.image_size, model.image_size, generator=generator), model.tokenize(PROMPTS)


def full_size(name: str, adapter: dict):
    with torch.device("meta"):
        return adapters.apply(MODELS[name](ModelConfig(name=name)), adapter)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_at_full_size_are_the_published_codes(name):
    model = full_size(name, {"name": "bridger"})
    positions = sum(p.numel() for p in model.net.backbone.parameters() if p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    net = model.net
    assert (*map(count, (model.exchange, net.neck, net.decoder, net.proj)), positions, trained) == PUBLISHED[name]
    assert model.image_size == 416 and model.word_length == 17


@pytest.mark.parametrize(("stages", "parameters"), [(1, 1_215_168), (2, 1_513_088), (3, 1_942_080)])
def test_a_resnets_bridger_of_fewer_stages_has_the_last_ones(stages, parameters):
    bridger = full_size("etris_r50", {"name": "bridger", "stages": stages}).exchange
    assert count(bridger) == parameters
    assert list(bridger.fusion_v) == [str(stage) for stage in range(3 - stages, 3)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_backbones_tensors_have_clips_names_and_shapes(name):
    with torch.device("meta"):
        clip = open_clip.model.CLIP(**open_clip.get_model_config(CLIP_CONFIGS[name]))
    theirs = {key: tensor.shape for key, tensor in clip.state_dict().items()}
    ours = {key: tensor.shape for key, tensor in full_size(name, BRIDGER).net.backbone.state_dict().items()}
    connect = {key for key in ours if key.startswith("visual.attnpool.connect.")}
    assert len(connect) == (0 if name == "etris_vit" else 6)
    if name == "etris_vit":
        assert ours.pop("visual.positional_embedding") == (26 * 26 + 1, 768)
        assert theirs.pop("visual.positional_embedding") == (14 * 14 + 1, 768)
    assert {key: shape for key, shape in ours.items() if key not in connect} == theirs


def test_connect_is_what_clip_lacks():
    for name, parameters in (("etris_r50", 2_099_200), ("etris_r101", 1_049_600)):
        assert count(full_size(name, BRIDGER).net.backbone.visual.attnpool.connect) == parameters


def test_the_heads_tensors_have_the_released_names():
    model = full_size("etris_r50", BRIDGER)
    names = {name.rsplit(".", 1)[0] for part in ("neck", "decoder", "proj")
             for name in model.net[part].state_dict(prefix=f"{part}.")}
    expected = {f"neck.{part}" for k in (3, 4, 5) for part in (
        f"fusion{k}.multihead_attn", f"fusion{k}.multihead_attn.out_proj", f"f{k}_proj.0", f"f{k}_proj.1")}
    expected |= {"neck.txt_proj", "neck.aggr.0", "neck.aggr.1", "neck.coordconv.0.conv1.0", "neck.coordconv.0.conv1.1",
                 "neck.coordconv.1.0", "neck.coordconv.1.1", "decoder.norm", "proj.txt", "proj.vis.1.0", "proj.vis.1.1",
                 "proj.vis.3.0", "proj.vis.3.1", "proj.vis.4"}
    expected |= {f"decoder.layers.{k}.{part}" for k in range(3) for part in (
        "self_attn_norm", "cross_attn_norm", "self_attn", "self_attn.out_proj", "multihead_attn",
        "multihead_attn.out_proj", "ffn.0", "ffn.3", "ffn.4", "norm1", "norm2", "norm3")}
    assert names == expected
    assert {name.split(".")[0] for name in model.exchange.state_dict()} == {
        "fusion_v", "fusion_t", "zoom_in", "zoom_out", "linear1", "linear2", "ln_v", "ln_t"}


class Nothing(nn.Module):
    """An exchange that passes on what it gets, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, stage, vision, text, carry):
        self.seen.append((stage, tuple(vision.shape), tuple(text.shape), carry))
        return vision, text, stage


@pytest.mark.parametrize("name", SMALL)
def test_towers_encoded_together_without_an_exchange_are_those_encoded_apart(name):
    model = tiny(name)
    pixels, tokens = batch(model)
    with torch.no_grad():
        apart = model.encode_image(pixels), model.encode_text(tokens)
        together = model.encode(pixels, tokens)
        model.exchange = Nothing()
        walked = model.encode(pixels, tokens)
    for features in (together, walked):
        torch.testing.assert_close([*features[0].taps, features[1].sentence, *features[1].taps, features[1].padding],
                                   [*apart[0].taps, apart[1].sentence, *apart[1].taps, apart[1].padding])
    widths, sides = model.exchange_spec.widths, {"etris_vit": (4, 4, 4), "etris_r50": (8, 4, 2)}[name]
    assert model.exchange.seen == [
        (stage, (3, widths[stage], sides[stage], sides[stage]), (3, 17, 32), None if stage == 0 else stage - 1)
        for stage in range(3)]


@pytest.mark.parametrize("name", SMALL)
def test_features_are_maps_words_and_padding(name):
    model = tiny(name)
    pixels, tokens = batch(model)
    image, text = model.encode(pixels, tokens)
    assert [tap.ndim for tap in image.taps] == [4, 4, 4] and image.taps[2].shape[1] == model.sentence_dim
    assert text.taps[0].shape == (3, 17, 32) and text.sentence.shape == (3, model.sentence_dim)
    assert text.padding.tolist() == (tokens == 0).tolist()
    assert model.decode(image, text).shape == (3, 16, 16)
    for gathered in (text.index(torch.tensor([2, 2])), type(text).concat([text.index(torch.tensor([2]))] * 2)):
        assert gathered.padding.tolist() == [text.padding[2].tolist()] * 2


@pytest.mark.parametrize("name", SMALL)
def test_with_an_exchange_there_are_no_features_apart(name):
    model = tiny(name, BRIDGER)
    pixels, tokens = batch(model)
    assert model.joint and not model.tower_is_constant("vision") and not model.tower_is_constant("text")
    for call, given in ((model.encode_image, pixels), (model.encode_text, tokens)):
        with pytest.raises(RuntimeError, match="together"):
            call(given)


@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_the_logits_where_the_towers_exchange_and_only_there(name):
    def logits(adapter, words):
        model = tiny(name, adapter, word_length=words)
        with torch.no_grad():
            return model(batch(model)[0], model.tokenize(PROMPTS))

    torch.testing.assert_close(logits(None, 11), logits(None, 22))
    assert (logits(BRIDGER, 11) - logits(BRIDGER, 22)).abs().max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("direction", ["text_to_vision", "vision_to_text"])
def test_one_direction_changes_one_tower(name, direction):
    apart, model = tiny(name), tiny(name, BRIDGER | {"direction": direction, "stages": 1})
    pixels, tokens = batch(model)
    with torch.no_grad():
        old, new = apart.encode(pixels, tokens), model.encode(pixels, tokens)
    heard = direction == "text_to_vision"
    assert torch.allclose(old[0].taps[2], new[0].taps[2], atol=1e-5) is not heard
    assert torch.allclose(old[1].sentence, new[1].sentence, atol=1e-5) is heard
    assert torch.allclose(old[1].taps[0], new[1].taps[0], atol=1e-5) is heard
    for before, after in zip(old[0].taps[:2], new[0].taps[:2], strict=True):  # the stages before say nothing
        torch.testing.assert_close(before, after)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("direction", ["both", "text_to_vision", "vision_to_text"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_gradients_reach_exactly_what_is_trainable(name, direction, stages):
    model = tiny(name, BRIDGER | {"direction": direction, "stages": stages}).train()
    model(*batch(model)).square().mean().backward()
    trained = adapters.trainable(model)
    assert set(trained) == {key for key, _ in model.named_parameters() if key.startswith(
        ("exchange.", "net.neck.", "net.decoder.", "net.proj.")) or "positional_embedding" in key}
    for key, parameter in model.named_parameters():
        if key in trained:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
        else:
            assert parameter.grad is None, key


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("positions", [False, True])
def test_no_graph_is_built_before_the_first_trainable_parameter(name, positions):
    model = tiny(name, BRIDGER | {"stages": 1, "positional_embeddings": positions}).train()
    recorded = {}
    for tower in (model.vision, model.text):
        for block in tower.blocks:
            model.get_submodule(block).register_forward_hook(
                lambda module, inputs, output, block=block: recorded.update({block: output.requires_grad}))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        model.encode(*batch(model))
    assert set(recorded) == {*model.vision.blocks, *model.text.blocks}
    # a ResNet's positions are in its attention pool, behind all blocks
    assert {block for block, graph in recorded.items() if graph} == (set() if not positions else {
        *model.text.blocks, *(model.vision.blocks if name == "etris_vit" else ())})
    if not positions:
        of_clip = {parameter.data_ptr() for block in recorded for parameter in model.get_submodule(block).parameters()}
        assert kept and not any(tensor.data_ptr() in of_clip for tensor in kept)


def test_dim_that_the_heads_do_not_divide_is_one_sentence():
    model = tiny("etris_vit")
    with pytest.raises(UserError, match="dim: 12, which its 8 attention heads do not divide"):
        adapters.apply(model, {"name": "bridger", "dim": 12})
    assert model.exchange is None


def test_clipseg_has_no_bridger():
    message = "'bridger' does not support model 'clipseg', which lacks exchange.stages; it supports etris_r101"
    with pytest.raises(UserError, match=message):
        adapters.apply(small_model("clipseg", 64), {"name": "bridger"})


@pytest.mark.parametrize(("name", "size", "words", "message"), [
    ("etris_r50", 400, None, "400 is not a multiple of 32"), ("etris_vit", 72, None, "72 is not a multiple of 16"),
    ("etris_vit", None, 78, "word_length 78"), ("etris_vit", None, 2, "word_length 2")])
def test_sizes_that_do_not_fit_are_refused(name, size, words, message):
    with pytest.raises(ValueError, match=message):
        build_etris(name, SMALL[name], size, words)


PARTS = ("hierarchical_alignment", "global_alignment", "projector")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("parts", [some for size in (1, 2, 3) for some in itertools.combinations(PARTS, size)])
def test_any_parts_of_the_head_train_to_the_last_parameter(name, parts):
    """And what stands in for a part gives maps of the same size."""
    model = tiny(name, {"name": "full"}, head_parts=parts).train()
    with torch.no_grad():  # CLIP's ResNets start with branches that weigh nothing
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    logits = model(*batch(model))
    assert logits.shape == (3, 16, 16)
    logits.square().mean().backward()
    still = {key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    silent = {"net.backbone.logit_scale"} | ({"net.backbone.text_projection"} if parts == PARTS[1:2] else set())
    assert still - silent == {key for key in still if key.endswith("k_proj.bias")}, still  # softmax does not see it
    assert silent <= still


def test_each_part_of_the_head_brings_what_it_is_named_for():
    pixels, tokens = batch(tiny("etris_vit"))

    def logits(*parts: str) -> torch.Tensor:
        model = tiny("etris_vit", head_parts=parts)
        with torch.no_grad():
            image, text = model.encode(pixels, tokens)
            words = replace(text, taps=(torch.zeros_like(text.taps[0]),))
            sentence = replace(text, sentence=torch.zeros_like(text.sentence))
            coarse = replace(image, taps=(*(torch.zeros_like(tap) for tap in image.taps[:2]), image.taps[2]))
            whole = model.decode(image, text)
            return [torch.allclose(whole, model.decode(*given), atol=1e-6)
                    for given in ((image, words), (image, sentence), (coarse, text))]

    # whether the logits do without the words, the sentence, the first two maps
    assert logits(*PARTS) == [False, False, False]
    assert logits("global_alignment") == [False, True, True]
    assert logits("hierarchical_alignment") == [True, False, False]
    assert logits("projector") == [True, False, True]


@pytest.mark.parametrize(("name", "without"), [
    ("etris_r50", {"hierarchical_alignment": 12_867_072 - (1024 * 512 * 4 + 2 * 512),
                   "global_alignment": 7_899_136, "projector": 5_968_897 - 513}),
    ("etris_vit", {"hierarchical_alignment": 9_983_488 - (512 * 512 + 2 * 512),
                   "global_alignment": 7_899_136, "projector": 4_788_737 - 513})])
def test_what_a_head_without_a_part_saves(name, without):
    whole = PUBLISHED[name][-1]
    for part, saved in without.items():
        parts = tuple(other for other in PARTS if other != part)
        with torch.device("meta"):
            model = adapters.apply(MODELS[name](ModelConfig(name=name, head_parts=parts)), {"name": "bridger"})
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == whole - saved


def test_an_image_for_several_sentences_is_decoded_alike_without_parts():
    model = tiny("etris_vit", head_parts=("global_alignment",))
    pixels, tokens = batch(model)
    with torch.no_grad():
        image, text = model.encode(pixels[:1].expand(3, -1, -1, -1), tokens)
        torch.testing.assert_close(model.decode(image.index(torch.tensor([0])), text), model.decode(image, text))


def test_the_way_back_as_released_is_probabilities_by_splines_with_aligned_corners():
    model, logits = tiny("etris_vit"), 9 * noise(2 * 16 * 16, 4).view(2, 16, 16).float()
    ours = model.to_input(logits)
    model.upsampling = "published_bicubic"
    theirs = model.to_input(logits)
    expected = F.interpolate(logits.sigmoid()[:, None], size=(64, 64), mode="bicubic", align_corners=True)
    torch.testing.assert_close(theirs.sigmoid(), expected.clamp(1e-6, 1 - 1e-6))
    for threshold in (0.35, 0.5):
        assert ((theirs.sigmoid() > threshold) == (expected > threshold)).all()
        assert ((ours.sigmoid() > threshold) != (expected > threshold)).float().mean() > 0.02
    torch.testing.assert_close(theirs[:, 0, ::63, ::63], logits[:, ::15, ::15], rtol=1e-3, atol=1e-3)  # the corners
    saturated = model.to_input(torch.full((1, 16, 16), 500.0))
    assert saturated.isfinite().all() and (saturated > 10).all()
    whole = torch.randn(1, 64, 64)
    assert torch.equal(model.to_input(whole)[:, 0], whole)


def noise(numbers: int, seed: int) -> torch.Tensor:
    """Fixed numbers in [-1, 1], independent of any generator."""
    values = torch.sin(torch.arange(numbers, dtype=torch.float64) * 12.9898 + seed * 78.233) * 43758.5453
    return 2 * (values - values.floor()) - 1


# what the released code (kkakkkka/ETRIS at cdc6d8e) gave on these weights and inputs, without dropout
GOLDEN = {
    "etris_r50": {
        "logits": (1.270015, 1.54887, -1.395904, 0.02454, -1.903224, -2.625931, 0.033294, -1.931566),
        "loss": 3.6134448,
        "gradients": {
            "bridger.zoom_in.0.weight": 15.654942, "bridger.fusion_t.1.multihead_attn.in_proj_weight": 1.4420718,
            "bridger.ln_v.1.weight": 0.5395252, "bridger.linear2.2.weight": 4.0516415,
            "neck.coordconv.0.conv1.0.weight": 26.373499, "decoder.layers.1.ffn.4.weight": 1.8027891,
            "proj.txt.weight": 9.6895037, "backbone.positional_embedding": 22.544617,
            "backbone.visual.attnpool.positional_embedding": 0.24731864}},
    "etris_vit": {
        "logits": (-1.86241, -4.977714, -6.364687, -1.830886, -7.462162, -7.333676, -1.905354, -7.123051),
        "loss": 2.5210106,
        "gradients": {
            "bridger.fusion_t.1.multihead_attn.in_proj_weight": 2.1749618, "bridger.ln_v.1.weight": 0.4123554,
            "bridger.linear2.2.weight": 1.2378327, "neck.coordconv.0.conv1.0.weight": 26.848667,
            "decoder.layers.1.ffn.4.weight": 1.8168133, "proj.txt.weight": 12.392154,
            "backbone.positional_embedding": 18.057735, "backbone.visual.positional_embedding": 2.7834718}}}


def golden_model(name: str):
    """A small ETRIS with fixed weights, its Bridger handed over by the base weights."""
    tower = ({"vision_width": 8, "resnet_layers": (1, 1, 2, 1), "pool_grid": 3, "embed_dim": 48}
             if name == "etris_r50" else {"vision_width": 128, "patch_size": 16, "embed_dim": 64})
    model = build_etris(name, Architecture(**tower, text_width=64, text_heads=1, head_width=64, head_mlp=48,
                                           image_size=64, word_length=9))
    bridger = Bridger(model.exchange_spec, BridgerConfig(name="bridger", dim=16))
    state = {**model.net.state_dict(), **bridger.state_dict(prefix="bridger.")}
    for number, (key, tensor) in enumerate(sorted(state.items())):
        if tensor.is_floating_point():
            values = noise(tensor.numel(), number).view(tensor.shape)
            if tensor.ndim > 1:
                values *= 1.5 / (tensor.numel() / len(tensor)) ** 0.5
            else:
                values = 1 + 0.3 * values if key.endswith(("weight", "running_var")) else 0.1 * values
            state[key] = values.float()
    model.load_base(state, "golden")
    return adapters.apply(model, {"name": "bridger", "dim": 16}).eval()


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_and_gradients_are_the_released_codes(name):
    model, golden = golden_model(name), GOLDEN[name]
    pixels = noise(2 * 3 * 64 * 64, 7).view(2, 3, 64, 64).float() * 1.7
    tokens = model.tokenize(["a red circle", "the small man on the left of the"])
    with torch.no_grad():
        logits = model(pixels, tokens)
    torch.testing.assert_close(logits[:, ::5, ::7].flatten()[:8], torch.tensor(golden["logits"]), rtol=1e-4, atol=1e-4)
    model.frozen_batchnorm_moves = True
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    target = (noise(logits.numel(), 9).view(logits.shape) > 0).float()
    loss = F.binary_cross_entropy_with_logits(model(pixels, tokens), target)
    loss.backward()
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-4)
    parameters = {key.replace("exchange.", "bridger.").removeprefix("net."): p for key, p in model.named_parameters()}
    for key, norm in golden["gradients"].items():
        assert parameters[key].grad.norm().item() == pytest.approx(norm, rel=1e-3), key
