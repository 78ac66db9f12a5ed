"""SAN: counts, the side network written out, proposals that CLIP recognises apart, and its two layouts of weights."""

import json

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from featherseg import adapters, models
from featherseg.adapters import trainable
from featherseg.config import ModelConfig
from featherseg.core.errors import UserError
from featherseg.describe import describe
from featherseg.models import MODELS, small_model
from featherseg.models.san import config as san
from featherseg.models.san.config import Architecture, small_config
from featherseg.models.san.model import SAN, SideNetwork

PROMPTS = ["polyp", "one large polyp at the top"]


def small(seed: int = 0, image_size: int = 64) -> SAN:
    torch.manual_seed(seed)
    return small_model("san", image_size).eval()


def inputs(model: SAN, images: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    size = model.image_size
    return torch.randn(images, 3, size, size, generator=generator), model.tokenize(PROMPTS)


def test_trainable_parameters_at_full_size_are_the_published_8_4_million():
    described = describe("san-decoder")
    trained = {group: numbers["trainable"] for group, numbers in described["groups"].items()}
    block = 2 * 2 * 240 + 240 * 720 + 720 + 240 * 240 + 240 + 2 * 240 * 960 + 960 + 240
    perceptron = 240 * 256 + 256 + 256 * 256 + 256
    side = (240 * 3 * 16 * 16 + 240 + (2 * 100 + 40 * 40) * 240 + 8 * block + 4 * (2 * 768 + 768 * 240 + 240)
            + 2 * (perceptron + 256 * 256 + 256) + perceptron + 256 * 256 * 12 + 256 * 12 + 2)
    assert trained == {"vision": 0, "text": 0, "positions": 197 * 768, "decoder": side, "adapter": 0, "unused": 0}
    assert described["trainable"] == 8_370_354 and described["image_size"] == 640
    assert described["total"] == 149_620_737 + side  # CLIP ViT-B/16 and the side network


@torch.no_grad()
def test_the_side_network_starts_as_the_released_codes():
    """Its blocks are those of timm's ViT; a fusion has the deviation 1 / sqrt(768)."""
    torch.manual_seed(0)
    side = SideNetwork(san.FULL, 64, before=(0, 1, 2, 3))
    theirs = dict(VisionTransformer(img_size=64, embed_dim=240, depth=8, num_heads=6, num_classes=0).blocks
                  .named_parameters())
    ours = dict(side.blocks.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        assert parameter.std().item() == pytest.approx(theirs[name].std().item(), rel=0.03), name
        assert parameter.mean().item() == pytest.approx(theirs[name].mean().item(), abs=1e-3), name
    for _, layer in side.fusions:
        assert layer.weight.std().item() == pytest.approx(768**-0.5, rel=0.03) and not layer.bias.any()


def test_features_of_an_image_depend_on_no_prompt_and_the_map_is_the_weighted_sum_of_proposals():
    model = small()
    pixels, tokens = inputs(model)
    (proposals, embeddings), text = model.encode_image(pixels).taps, model.encode_text(tokens)
    assert proposals.shape == (2, 10, 8, 8) and embeddings.shape == (2, 10, 64)
    expected = torch.zeros(2, 8, 8)
    for row in range(2):
        for query in range(10):
            weight = (embeddings[row, query] @ text.sentence[row]) / 64
            expected[row] += weight * proposals[row, query]
    torch.testing.assert_close(model(pixels, tokens), expected)
    one = model.encode_image(pixels[:1])  # one image for all prompts
    torch.testing.assert_close(model.decode(one, text)[0], expected[0])
    assert model.to_input(expected).shape == (2, 1, 64, 64)


@torch.no_grad()
def test_the_text_tower_is_open_clips():
    model = small()
    tokens = model.tokenize(PROMPTS)
    full = F.pad(tokens, (0, 77 - tokens.shape[1]))
    torch.testing.assert_close(model.encode_text(tokens).sentence, model.net.clip.encode_text(full))


@torch.no_grad()
def test_without_biases_every_proposal_is_what_clip_says_of_the_places():
    model = small()
    pixels, _ = inputs(model)
    visual = model.net.clip.visual
    states = model._clip_input(pixels)
    for block in visual.transformer.resblocks[:4]:
        states = block(states)
    biases = torch.zeros(2, 2, 10, 8, 8)
    found = model._recognise(states, biases)
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    seeing = torch.cat([states[:, :1], states], dim=1)  # a copy of the class token; the token itself
    hidden = torch.zeros(seeing.shape[1], seeing.shape[1])
    hidden[0, 1], hidden[1:, 0] = float("-inf"), float("-inf")
    for block in visual.transformer.resblocks[4:]:
        seeing = block(seeing, attn_mask=hidden)
    expected = F.normalize(visual.ln_post(seeing[:, 0]) @ visual.proj, dim=-1)
    torch.testing.assert_close(found[:, 0], expected)


@torch.no_grad()
def test_a_bias_makes_its_own_proposal_look_there_and_no_other():
    model = small()
    pixels, _ = inputs(model)
    states = model._clip_input(pixels)
    states = states.clone()
    states[:, 1] += 3  # something stands out in the upper left
    biases = torch.zeros(2, 2, 10, 8, 8)
    before = model._recognise(states, biases)
    biases[:, :, 4, :2, :2] = 8
    after = model._recognise(states, biases)
    others = [query for query in range(10) if query != 4]
    torch.testing.assert_close(after[:, others], before[:, others])
    assert (after[:, 4] - before[:, 4]).abs().max() > 0.01


@torch.no_grad()
def test_clips_states_are_those_of_open_clip_at_its_own_size():
    torch.manual_seed(0)
    model = small(image_size=64)  # CLIP sees 32 px, for which its positions are
    pixels, _ = inputs(model)
    small_pixels = F.interpolate(pixels, scale_factor=0.5, mode="bilinear", align_corners=False)
    states = model._clip_input(pixels)
    for block in model.net.clip.visual.transformer.resblocks:
        states = block(states)
    pooled = model.net.clip.visual.ln_post(states[:, 0]) @ model.net.clip.visual.proj
    torch.testing.assert_close(pooled, model.net.clip.encode_image(small_pixels))


@torch.no_grad()
def test_the_side_network_hears_clip_where_the_paper_fuses_it():
    model = small()
    pixels, _ = inputs(model)
    maps = [torch.randn(2, 64, 4, 4) for _ in range(4)]
    side = model.net.side
    proposals, biases = side(pixels, maps)
    assert biases.shape == (2, 2, 10, 8, 8)
    states = torch.cat([side.query.expand(2, -1, -1), side.patches(pixels).flatten(2).mT], dim=1) + side.positions
    for k, block in enumerate(side.blocks):
        if k < 4:
            norm, layer = side.fusions[k]
            seen = layer(norm(maps[k].flatten(2).mT)).mT.unflatten(2, (4, 4))
            seen = F.interpolate(seen, size=8, mode="bilinear", align_corners=False)
            states[:, 10:] += seen.flatten(2).mT
        states = block(states)
        if k < len(side.blocks) - 1:
            states = states + side.positions
    queries, keys = side.query_head(states[:, :10]), side.mask_head(states[:, 10:])
    torch.testing.assert_close(proposals, (queries @ keys.mT).unflatten(2, (8, 8)))
    keys = side.bias_head(states[:, 10:]).unflatten(2, (2, 32))[:, :, 1]  # of the second head
    expected = side.bias_scale.weight.item() * (queries @ keys.mT) + side.bias_scale.bias.item()
    torch.testing.assert_close(biases[:, 1], expected.unflatten(2, (8, 8)))


def test_gradients_reach_the_biases_through_frozen_clip():
    model = adapters.apply(small(), {"name": "decoder"})
    model.to_input(model(*inputs(model))).square().sum().backward()
    learned = trainable(model)
    assert {name for name in learned if not name.startswith("net.side.")} == {"net.clip.visual.positional_embedding"}
    for name in ("net.side.bias_head.0.weight", "net.side.bias_scale.weight", "net.clip.visual.positional_embedding"):
        assert learned[name].grad.abs().sum() > 0


@torch.no_grad()
def test_logits_with_and_without_gradients_agree():
    model = small()
    quick = model(*inputs(model))
    with torch.enable_grad():
        torch.testing.assert_close(model(*inputs(model)).detach(), quick)


@torch.no_grad()
def test_as_released_only_clips_first_states_are_added():
    model = MODELS["san"](ModelConfig(name="san", weights="random-small", side_fusion="published_swapped")).eval()
    pixels, _ = inputs(model)
    states, maps = model._see(pixels)
    expected, listed = model._clip_input(pixels), []
    for block in model.net.clip.visual.transformer.resblocks[:4]:
        listed.append(model._as_map(expected))
        expected = block(expected)
    torch.testing.assert_close(states, expected)
    assert all(torch.equal(*pair) for pair in zip(maps, listed, strict=True))
    assert model.net.side.before == (0, 1, 2, 4) and small().net.side.before == (0, 1, 2, 3)


def test_as_released_no_gradient_runs_through_clip():
    config = ModelConfig(name="san", weights="random-small", recognition="published_without_gradient")
    model = adapters.apply(MODELS["san"](config), {"name": "decoder"})
    proposals, embeddings = model.encode_image(inputs(model)[0]).taps
    assert proposals.requires_grad and not embeddings.requires_grad
    model.to_input(model(*inputs(model))).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trainable(model).values())
    assert not any("bias_" in name or "positional" in name for name in trainable(model))


def test_as_released_a_seventh_of_the_published_count_is_never_trained():
    described = describe("san-decoder-published")
    bias_head = 240 * 256 + 256 + 256 * 256 + 256 + 256 * 256 * 12 + 256 * 12 + 2
    fusion = 2 * 768 + 768 * 240 + 240
    assert described["trainable"] == 8_370_354 - bias_head - fusion - 197 * 768 == 7_115_968
    assert described["groups"]["unused"]["total"] == fusion + 1


def test_sizes_that_do_not_fit_are_one_sentence():
    with pytest.raises(UserError, match="model 'san': image_size 72 is not a multiple of 16"):
        small_model("san", 72)
    for change, words in (({"fused": (0, 6)}, "fused"), ({"fused": (2, 1)}, "fused"), ({"side_heads": 7}, "side_width"),
                          ({"side_depth": 3}, "more than the side network's 3 blocks")):
        with pytest.raises(ValueError, match=words):
            Architecture(**{**small_config().model_dump(), **change})


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    theirs = theirs.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in ours.state_dict().items())


def test_the_packages_own_folder_and_clip_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(san, "FULL", small_config())
    source = small(seed=4)
    own, clip = tmp_path / "own", tmp_path / "clip"
    own.mkdir(), clip.mkdir()
    (own / "config.json").write_text(json.dumps(source.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in source.net.state_dict().items()}, own / "model.safetensors")
    save_file({key: tensor.contiguous() for key, tensor in source.net.clip.state_dict().items()}
              | {"vocab_size": torch.tensor(49408)}, clip / "open_clip_model.safetensors")
    assert same(models.build(ModelConfig(name="san", weights=str(own))).net, source.net)
    first, again, other = (models.build(ModelConfig(name="san", weights=str(clip)), seed) for seed in (1, 1, 2))
    assert same(first.net.clip, source.net.clip) and same(first.net, again.net)
    assert not torch.equal(first.net.side.query, other.net.side.query)
    save_file({"visual.proj": torch.zeros(2, 2)}, clip / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=r"does not fit the model: \d+ missing \(clip\."):
        models.build(ModelConfig(name="san", weights=str(clip)))
