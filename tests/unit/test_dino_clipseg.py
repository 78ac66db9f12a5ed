"""CLIPSeg's decoder on DINOv2 and MiniLM: means of words, padding that changes nothing, public towers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

from featherseg import models
from featherseg.config import ModelConfig
from featherseg.core.errors import UserError
from featherseg.core.files import write_json
from featherseg.models.base import LearnedTokens
from featherseg.models.detris.config import small_config as small_detris
from featherseg.models.detris.model import BertDETRIS
from featherseg.models.dino_clipseg.config import Architecture, small_config
from featherseg.models.dino_clipseg.model import DinoCLIPSeg
from featherseg.models.towers.word_pieces import SPELLING

TINY = small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
PROMPTS = ["", "polyp", "one small pink round polyp, located in the lower left of the image"]


def tiny(config: Architecture = TINY, **knobs) -> DinoCLIPSeg:
    torch.manual_seed(0)
    return DinoCLIPSeg("dino_clipseg", config, **knobs).eval()


def reference_bert(model: DinoCLIPSeg) -> BertModel:
    """transformers' whole model with the same weights."""
    config = BertConfig(vocab_size=len(SPELLING), hidden_size=32, num_hidden_layers=4, num_attention_heads=1,
                        intermediate_size=128, max_position_embeddings=256)
    bert = BertModel(config, add_pooling_layer=False).eval()
    bert.load_state_dict(model.bert.state_dict())
    return bert


@torch.no_grad()
def test_a_sentence_is_the_mean_of_berts_words_as_sentence_transformers_pools_them():
    model = tiny()
    tokens = model.tokenize(PROMPTS)
    mask = (tokens != 0).long()
    found, expected = model.encode_text(tokens), reference_bert(model)(
        tokens, attention_mask=mask, output_hidden_states=True)
    for k, tap in zip(TINY.text_taps, found.taps, strict=True):
        state = expected.hidden_states[k + 1]
        rows = [row[kept.bool()].mean(dim=0) for row, kept in zip(state, mask, strict=True)]
        assert torch.allclose(tap, torch.stack(rows), atol=1e-5)
    last = [row[kept.bool()].mean(dim=0) for row, kept in zip(expected.last_hidden_state, mask, strict=True)]
    assert torch.allclose(found.sentence, torch.stack(last), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("learned", [0, 3])
def test_a_longer_batch_changes_no_prompt(learned):
    model = tiny()
    model.text_prompt = LearnedTokens(learned, 32)
    alone = model.encode_text(model.tokenize(PROMPTS[1:2]))
    together = model.encode_text(model.tokenize(PROMPTS)).index(torch.tensor([1]))
    assert torch.allclose(alone.sentence, together.sentence, atol=1e-5)


@torch.no_grad()
def test_the_decoder_reads_the_states_after_clipsegs_blocks():
    model, pixels = tiny(), torch.randn(2, 3, 32, 32)
    tower, taps = model.dinov2, []
    states = tower._pos_embed(tower.patch_embed(pixels))
    for block in tower.blocks:
        states = block(states)
        taps.append(states)
    found = model.encode_image(pixels).taps
    assert all(torch.equal(found[k], taps[tap]) for k, tap in enumerate(TINY.taps))
    assert {"net.vision.blocks.3", "net.vision.norm"} == set(model.unused)


@torch.no_grad()
def test_patches_of_fourteen_pixels_give_masks_of_the_pictures_size():
    model = tiny(TINY.model_copy(update={"patch_size": 14}), image_size=42)
    logits = model(torch.randn(2, 3, 42, 42), model.tokenize(["polyp", "lung"]))
    assert logits.shape == (2, 27, 27) and model.to_input(logits).shape == (2, 1, 42, 42)


def test_full_size_counts():
    model = DinoCLIPSeg("dino_clipseg", Architecture(), 140)
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in model.net.items()}
    # as published: DINOv2 ViT-S/14 with 1,370 positions and a mask token, MiniLM with its pooler
    assert counts["vision"] == 22_056_576 - (1_370 - 100 + 1) * 384
    assert counts["text"] == 22_713_216 - 147_840


def public_folder(tmp_path: Path) -> Path:
    """Weights as they are put together from public ones: positions of another grid, the class token's among them."""
    source = tiny(image_size=56)
    own_names = [name for name in source.net.state_dict() if not name.startswith("decoder.")]
    state = {name: source.net.state_dict()[name].clone() for name in own_names}
    own = torch.randn(1, 1, 32)
    state["vision.pos_embed"] = torch.cat([own, state["vision.pos_embed"]], dim=1)
    state["vision.cls_token"] = state["vision.cls_token"] - own
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", TINY.model_dump(mode="json"))
    return tmp_path


def test_public_weights_are_fitted_to_the_input_and_leave_the_decoder_to_the_seed(tmp_path):
    folder = public_folder(tmp_path)
    same, smaller = (models.build(ModelConfig(name="dino_clipseg", weights=str(folder), image_size=size), seed=1)
                     for size in (56, 32))
    source = tiny(image_size=56)
    assert torch.allclose(same.net["vision"].cls_token, source.net["vision"].cls_token, atol=1e-6)
    assert torch.equal(same.net["vision"].pos_embed, source.net["vision"].pos_embed)
    assert smaller.net["vision"].pos_embed.shape == (1, 16, 32)
    other = models.build(ModelConfig(name="dino_clipseg", weights=str(folder), image_size=56), seed=2)
    assert not torch.equal(same.net["decoder"].film_mul.weight, other.net["decoder"].film_mul.weight)
    assert torch.equal(same.net["text"].embeddings.word_embeddings.weight,
                       other.net["text"].embeddings.word_embeddings.weight)


@pytest.mark.parametrize(("size", "said"), [(33, "image_size 33 is not a multiple of the patch size 8")])
def test_a_size_between_patches_is_one_sentence(size, said):
    with pytest.raises(UserError, match=f"model 'dino_clipseg': {said}"):
        models.build(ModelConfig(name="dino_clipseg", weights="random-small", image_size=size))


@torch.no_grad()
def test_detris_hears_the_same_words():
    model = BertDETRIS("detris_s", small_detris(image_size=32, bert=True), word_length=9).eval()
    tokens = model.tokenize(["polyp", "a"])
    text = model.encode_text(tokens)
    kept = tokens != 0
    assert torch.equal(text.padding, ~kept)
    means = [words[row].mean(dim=0) for words, row in zip(text.taps[0], kept, strict=True)]
    assert torch.allclose(text.sentence, torch.stack(means), atol=1e-6)
    assert model(torch.randn(2, 3, 32, 32), tokens).shape[0] == 2


def test_detris_takes_public_weights_at_another_size(tmp_path):
    config = small_detris(image_size=64, bert=True)
    source = BertDETRIS("detris_s", config, word_length=9)
    state = {name: tensor.clone() for name, tensor in source.net.state_dict().items() if name.startswith("backbone.")}
    own, places = torch.randn(1, 1, 64), "backbone.visual.pos_embed"
    state[places] = torch.cat([own, state[places]], dim=1)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", config.model_dump(mode="json"))
    model = models.build(ModelConfig(name="detris_s", weights=str(tmp_path), image_size=32))
    found = model.net["backbone"].visual
    assert found.pos_embed.shape == (1, 16, 64)
    assert torch.allclose(found.cls_token, source.net["backbone"].visual.cls_token + own)
    with pytest.raises(UserError, match="the text tower is a BERT, which is not that of model 'detris_b'"):
        models.build(ModelConfig(name="detris_b", weights=str(tmp_path), image_size=32))
