"""BiomedCLIPSeg: open_clip's towers, padding that changes nothing, CLIPSeg's depths, three layouts of weights."""

import json
from pathlib import Path

import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from tiny import tiny_data
from torch import nn
from transformers.models.bert.configuration_bert import BertConfig

from featherseg import adapters, engine, models
from featherseg.checkpoint import changed_tensors
from featherseg.config import ModelConfig, Run
from featherseg.core.errors import UserError
from featherseg.core.files import read_json
from featherseg.describe import describe, parameter_groups
from featherseg.evaluate import evaluate
from featherseg.models import public
from featherseg.models.biomedclipseg import config as biomedclipseg_config
from featherseg.models.biomedclipseg.config import MODELS, Architecture, small_config
from featherseg.models.biomedclipseg.model import BiomedCLIPSeg
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.models.clipseg.model import small_config as small_clipseg
from featherseg.tasks.segmentation.config import SegmentationTrain
from featherseg.tasks.segmentation.features import _tower_hash

TINY = small_config(width=32, text_width=32, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
# the smallest of timm's ViT-B/16 relatives, and a BERT of four blocks
REAL = Architecture(vision_width=192, vision_heads=3, text_width=64, text_depth=10, text_heads=4, vocabulary=300,
                    positions=64, context_length=64, embed_dim=48)
PROMPTS = ["", "polyp", "one small pink round polyp, located in the lower left of the image"]


def tiny(name: str = "biomedclipseg", config: Architecture = TINY, seed: int = 0, **knobs) -> BiomedCLIPSeg:
    torch.manual_seed(seed)
    return BiomedCLIPSeg(name, config, **knobs).eval()


def open_clips(config: Architecture, timm_name: str) -> nn.ModuleDict:
    """BiomedCLIP's towers as open_clip builds them from its published configuration, but BERT's pooler."""
    bert = BertConfig(vocab_size=config.vocabulary, hidden_size=config.text_width,
                      num_hidden_layers=config.text_depth, num_attention_heads=config.text_heads,
                      intermediate_size=4 * config.text_width, max_position_embeddings=config.positions)
    text = HFTextEncoder("", config.embed_dim, bert, "cls_last_hidden_state_pooler", "mlp")
    text.transformer.pooler = None  # open_clip leaves it out where it builds BERT by name
    visual = TimmModel(timm_name, config.embed_dim, pool="", proj="linear")
    return nn.ModuleDict({"visual": visual, "text": text})


@pytest.fixture(scope="module")
def reference() -> nn.ModuleDict:
    torch.manual_seed(5)
    towers = open_clips(REAL, "vit_tiny_patch16_224").double().eval()
    for parameter in towers.parameters():
        nn.init.normal_(parameter, std=0.05)
    return towers


def with_towers(reference: nn.ModuleDict, **knobs) -> BiomedCLIPSeg:
    model = tiny(config=REAL, **knobs).double()
    model.load_base({**reference.state_dict(), "logit_scale": torch.tensor(4.4)}, "open_clip's towers")
    return model


@torch.no_grad()
def test_the_text_tower_is_open_clips(reference):
    model = with_towers(reference)
    tokens = model.tokenize(PROMPTS)
    assert len(set((tokens != 0).sum(1).tolist())) == 3
    torch.testing.assert_close(model.encode_text(tokens).sentence, reference.text(tokens))


@torch.no_grad()
@pytest.mark.parametrize(("tap_offset", "depths"), [(0, [3, 6, 9]), (1, [4, 7, 10])])
def test_the_vision_taps_are_open_clips_states_after_clipsegs_blocks_or_one_later(reference, tap_offset, depths):
    pixels = torch.randn(2, 3, 224, 224, dtype=torch.double)
    found = with_towers(reference, tap_offset=tap_offset).encode_image(pixels).taps
    expected = reference.visual.trunk.forward_intermediates(
        pixels, depths, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True)
    assert len(found) == 3
    for ours, (patches, prefix) in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torch.cat([prefix, patches], dim=1))


def test_at_full_size_the_towers_have_open_clips_tensors():
    with torch.device("meta"):
        expected = open_clips(biomedclipseg_config.FULL, "vit_base_patch16_224").state_dict()
        model = BiomedCLIPSeg("biomedclipseg", biomedclipseg_config.FULL)
    found = {name: tensor.shape for name, tensor in model.net.clip.state_dict().items()}
    assert found.pop("logit_scale") == ()
    assert found == {name: tensor.shape for name, tensor in expected.items()}
    assert model.image_size == 224 and model.most_tokens == 256


@torch.no_grad()
@pytest.mark.parametrize("method", [{"name": "zero_shot"}, {"name": "prompt", "tokens_text": 3}],
                         ids=lambda method: method["name"])
def test_a_longer_batch_changes_no_prompt_since_padding_is_masked(method):
    model = adapters.apply(tiny("biomedclipseg_d"), method, seed=1).double()
    for parameter in model.parameters():
        parameter.normal_(std=0.2)
    together = model.encode_text(model.tokenize(PROMPTS))
    for row, prompt in enumerate(PROMPTS):
        alone = model.encode_text(model.tokenize([prompt]))
        torch.testing.assert_close(alone.sentence[0], together.sentence[row])
        torch.testing.assert_close(alone.taps[-1][0], together.taps[-1][row])
    assert not torch.allclose(together.sentence[0], together.sentence[1], rtol=1e-3)


@torch.no_grad()
def test_words_see_what_comes_after_them():
    model = tiny()
    first, second = model.tokenize(["left lung", "left knee"])
    assert torch.equal(first[:5], second[:5]) and not torch.equal(first, second)
    states = [model.encode_text(tokens[None]).taps[0] for tokens in (first, second)]
    assert not torch.allclose(*states)


@torch.no_grad()
def test_tokens_learned_by_the_text_tower_are_seen_by_its_first_token():
    plain, tuned = tiny("biomedclipseg_d"), tiny("biomedclipseg_d")
    adapters.apply(tuned, {"name": "prompt", "tokens_text": 3, "tokens_vision": 0}, seed=1)
    tokens = plain.tokenize(["polyp"])
    states = tuned.net.clip.text.transformer.embeddings(input_ids=tokens)
    states = torch.cat([states[:, :1], tuned.text_prompt.tokens[None], states[:, 1:]], dim=1)
    for block in tuned.net.clip.text.transformer.encoder.layer:
        states = block(states, None)
    torch.testing.assert_close(tuned.encode_text(tokens).sentence, tuned.net.clip.text.proj(states[:, 0]))
    assert not torch.allclose(tuned.encode_text(tokens).sentence, plain.encode_text(tokens).sentence)


def test_the_decoder_is_clipsegs():
    config = small_clipseg(width=32, text_width=16, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
    theirs, ours = CLIPSeg(config, 32), tiny()
    ours.net.decoder.load_state_dict(theirs.net.decoder.state_dict())
    image, text = ours.encode(torch.randn(2, 3, 32, 32), ours.tokenize(["polyp", "lung"]))
    with torch.no_grad():
        assert torch.equal(ours.decode(image, text), theirs.decode(image, text))


def test_random_logits_are_small():
    model = tiny()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, 32, 32), model.tokenize(["polyp", "lung"]))
    assert logits.shape == (2, 16, 16) and 0 < logits.std() < 2


def test_positions_are_interpolated_for_another_input_size():
    model = tiny(image_size=48)
    assert model.encode_image(torch.randn(1, 3, 48, 48)).taps[0].shape == (1, 1 + 6 * 6, 32)
    assert model.net.clip.visual.trunk.pos_embed.shape == (1, 1 + 4 * 4, 32)


@pytest.mark.parametrize(("config", "knobs", "words"), [
    (TINY, {"image_size": 33}, "image_size 33 is not a multiple of the patch size 8"),
    (TINY.model_copy(update={"taps": (0, 1, 3)}), {"tap_offset": 1}, "the last tap is 4, but .* 0 to 3"),
    (TINY, {"vocabulary": [str(number) for number in range(500)]}, "500 word pieces, but the text tower knows"),
])
def test_what_does_not_fit_the_architecture_is_one_sentence(config, knobs, words):
    with pytest.raises(ValueError, match=words):
        tiny(config=config, **knobs)


@pytest.mark.parametrize(("change", "words"), [
    ({"taps": (2, 1)}, "taps"), ({"taps": (1, 9)}, "taps"), ({"vision_heads": 5}, "vision_width 32"),
    ({"image_size": 33}, "image_size 33"), ({"context_length": 300}, "context_length 300")])
def test_an_architecture_that_does_not_fit_together_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Architecture(**{**TINY.model_dump(), **change})


# Counts at full size, from the layers' shapes. A block of either tower, 768 wide:
BLOCK = 4 * (768 * 768 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768 + 2 * 2 * 768
VISION = 768 * 3 * 16 * 16 + 768 + 768 + 197 * 768 + 12 * BLOCK + 2 * 768
VISION_HEAD = 768 * 512
TEXT = (30522 + 512 + 2) * 768 + 2 * 768 + 12 * BLOCK + 768 * 640 + 640 * 512
DECODER = 1_127_009
BEHIND_THE_LAST_TAP = 2 * BLOCK + 2 * 768 + VISION_HEAD + 1  # and the final norm, the head and the logit scale
DENSE = 9 * 2 * (2 * 768 * 64 + 64 + 768)  # two blocks of width 64 in each of nine
FULL_SIZE = [
    ({"name": "decoder"}, 0, 0), ({"name": "full"}, VISION + VISION_HEAD + TEXT + 1 - BEHIND_THE_LAST_TAP, 0),
    ({"name": "full"}, VISION + VISION_HEAD + TEXT + 1 - BEHIND_THE_LAST_TAP + BLOCK, 1),
    ({"name": "vlsm_dense", "positions": "V"}, DENSE, 0), ({"name": "vlsm_dense", "positions": "VL"}, 2 * DENSE, 0),
    ({"name": "vlsm_dense", "positions": "VLC"}, 2 * DENSE + 2 * 512 * 256 + 256 + 512, 0),
    ({"name": "vlsm_dense", "positions": "V"}, DENSE * 10 // 9, 1),
    ({"name": "vlsm_shallow", "positions": "V"}, 3 * (2 * 768 * 512 + 512 + 768), 0),
    # vision: one matrix for query, key and value, and the output's; text: queries and values
    ({"name": "lora"}, 16 * (10 * (768 + 3 * 768 + 2 * 768) + 12 * 2 * 2 * 768), 0),
    ({"name": "lora", "positions": "L", "targets": ["out_proj"]}, 16 * 12 * 2 * 768, 0),
    ({"name": "houlsby"}, (10 + 12) * 2 * (2 * 768 * 64 + 64 + 768), 0), ({"name": "prompt"}, 2 * 8 * 768, 0),
]


@pytest.mark.parametrize(("name", "adapter", "count", "tap_offset"), [
    *(("biomedclipseg_d", *case) for case in FULL_SIZE),
    *(("biomedclipseg", *case) for case in FULL_SIZE if case[0]["name"] in ("decoder", "vlsm_shallow", "prompt")),
], ids=str)
def test_trainable_parameters_at_full_size(name, adapter, count, tap_offset):
    with torch.device("meta"):
        model = models.MODELS[name](ModelConfig(name=name, tap_offset=tap_offset))
        adapters.apply(model, adapter)
    groups = parameter_groups(model)
    head = adapter["name"] in ("decoder", "full") or name == "biomedclipseg"
    assert groups["decoder"] == {"total": DECODER, "trainable": DECODER * head}
    assert sum(group["trainable"] for group in groups.values()) == count + DECODER * head
    assert sum(group["total"] for key, group in groups.items() if key != "adapter") == 195_902_721 + DECODER
    assert groups["unused"] == {"total": BEHIND_THE_LAST_TAP - BLOCK * tap_offset, "trainable": 0}


@pytest.mark.parametrize(("recipe", "unused"), [
    ("biomedclipseg-decoder", BEHIND_THE_LAST_TAP), ("biomedclipseg_d-decoder-published", BEHIND_THE_LAST_TAP - BLOCK)])
def test_a_recipe_is_described_with_its_own_taps_and_prompt_length(recipe, unused, monkeypatch):
    monkeypatch.setattr("featherseg.describe.multiply_adds", lambda model: 0)  # which takes most of the time
    described = describe(recipe)
    assert described["groups"]["unused"]["total"] == unused and described["trainable"] == DECODER
    assert described["prompt_tokens"] == 256 and described["image_size"] == 224


@pytest.mark.parametrize("positions", ["VL", "VLC"])
def test_shallow_blocks_on_bert_are_refused_by_name(positions):
    model = tiny()
    with pytest.raises(UserError, match=r"width 32 to a condition of width 16 in model 'biomedclipseg'; use .*: V\."):
        adapters.apply(model, {"name": "vlsm_shallow", "positions": positions})
    assert isinstance(model.image_neck, nn.Identity)


def test_projections_that_the_vision_tower_keeps_in_one_matrix_cannot_be_chosen():
    with pytest.raises(UserError, match=r"targets: q_proj, but model 'biomedclipseg_d' keeps"):
        adapters.apply(tiny("biomedclipseg_d"), {"name": "lora", "targets": ["q_proj"], "positions": "V"})
    model = adapters.apply(tiny("biomedclipseg_d"), {"name": "lora", "targets": ["q_proj"], "positions": "L"})
    assert {name.split(".lora_")[0].rpartition("layer.")[2][2:] for name in adapters.trainable(model)} == {
        "attention.self.query"}


@torch.no_grad()
def test_dense_adapters_stand_before_berts_residual_sums():
    plain, adapted = tiny(), adapters.apply(tiny(), {"name": "vlsm_dense", "dim": 8, "positions": "VL"}, seed=1)
    tokens = plain.tokenize(["polyp"])
    states = plain.net.clip.text.transformer.embeddings(input_ids=tokens)
    blocks = zip(plain.net.clip.text.transformer.encoder.layer, adapted.net.clip.text.transformer.encoder.layer,
                 strict=True)
    for k, (block, ours) in enumerate(blocks):
        attended = block.attention.output.dense(block.attention.self(states, None)[0])
        if k < 2:  # the block of the last tap, and those after it, are not adapted
            attended = ours.attention.output.dense.adapter(attended)
        states = block.attention.output.LayerNorm(states + attended)
        hidden = block.output.dense(block.intermediate(states))
        if k < 2:
            hidden = ours.output.dense.adapter(hidden)
        states = block.output.LayerNorm(states + hidden)
    torch.testing.assert_close(adapted.encode_text(tokens).sentence, plain.net.clip.text.proj(states[:, 0]))


def test_dropout_in_the_text_tower_is_off_by_default_and_belongs_to_training():
    tokens = tiny().tokenize(["one large polyp"])
    for dropout in (0.0, 0.3):
        model = adapters.apply(tiny(text_dropout=dropout), {"name": "decoder"})
        assert model.tower_is_constant("text") == (dropout == 0) and model.tower_is_constant("vision")
        twice = [model.train().encode_text(tokens).sentence for _ in range(2)]
        assert torch.equal(*twice) == (dropout == 0)
        assert torch.equal(*(model.eval().encode_text(tokens).sentence for _ in range(2)))


def test_another_vocabulary_is_another_tower():
    model, other = tiny(), tiny(vocabulary=[*biomedclipseg_config.SPELLING[:-2], "##x_", "##y_"])
    assert _tower_hash(model, "text") != _tower_hash(other, "text") and _tower_hash(model, "text") == _tower_hash(
        tiny(), "text")


def test_another_number_of_heads_or_length_is_another_tower():
    model = tiny()
    for changed in ({"vision_heads": 4}, {"text_heads": 4}, {"context_length": 5}):
        other = tiny(config=TINY.model_copy(update=changed))
        other.load_state_dict(model.state_dict())
        assert _tower_hash(model, "vision") != _tower_hash(other, "vision"), changed


# --- weights


VOCABULARY = [*biomedclipseg_config.SPELLING[:-3], "polyp", "##oid", "lung"]


def own_folder(folder: Path, model: BiomedCLIPSeg) -> Path:
    (folder / "config.json").write_text(json.dumps(model.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in model.net.state_dict().items()},
              folder / "model.safetensors")
    return folder


def public_folder(folder: Path, model: BiomedCLIPSeg) -> Path:
    """BiomedCLIP in the hub's layout, with what older versions of transformers kept beside the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    positions = {"text.transformer.embeddings.position_ids": torch.arange(model.config.positions)[None]}
    torch.save({**model.net.clip.state_dict(), **positions}, folder / "open_clip_pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def build(name: str, weights: Path, seed: int = 0, **changes) -> BiomedCLIPSeg:
    return models.build(ModelConfig(name=name, weights=str(weights), **changes), seed)


def equal(ours: nn.Module, theirs: nn.Module) -> bool:
    theirs = theirs.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in ours.state_dict().items())


@pytest.fixture
def small_full(monkeypatch):
    """The tiny architecture in place of the full-size one."""
    monkeypatch.setattr(biomedclipseg_config, "FULL", TINY)


@pytest.mark.parametrize("name", MODELS)
def test_the_packages_own_folder(name, tmp_path):
    folder = own_folder(tmp_path, tiny(seed=4))
    model = build(name, folder)
    assert equal(model.net, tiny(seed=4).net) and model.image_size == 32 and not model.training
    assert model.tokenize(["ab"]).tolist() == [[2, 4, 4 + 68 + 1, 3]]  # a and ##b, of 68 characters
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    assert build(name, folder).tokenize(["Polypoid"]).tolist() == [[2, len(VOCABULARY) - 3, len(VOCABULARY) - 2, 3]]


def test_biomedclip_alone_leaves_the_decoder_to_the_seed(small_full, tmp_path):
    folder = public_folder(tmp_path, tiny(seed=4))
    first, again, other = (build("biomedclipseg", folder, seed) for seed in (1, 1, 2))
    assert equal(first.net.clip, tiny(seed=4).net.clip) and equal(first.net, again.net)
    assert not torch.equal(first.net.decoder.film_mul.weight, other.net.decoder.film_mul.weight)
    assert first.tokenize(["polyp"]).shape == (1, 3)


def test_a_checkpoint_on_biomedclip_alone_holds_the_decoder_and_no_tower(small_full, tmp_path):
    folder = public_folder(tmp_path, tiny(seed=4))
    run = Run(study="study", recipe="r", dataset="d", adapter={"name": "vlsm_dense", "dim": 4, "positions": "VL"},
              model=ModelConfig(name="biomedclipseg", weights=str(folder)))
    model = adapters.apply(build("biomedclipseg", folder), run.adapter)
    changed = changed_tensors(model, run)
    assert changed.keys() == adapters.trainable(model).keys()
    assert any(name.startswith("net.decoder.") for name in changed)


def test_biomedclipseg_d_without_a_trained_decoder_is_refused(small_full, tmp_path):
    with pytest.raises(UserError, match=r"does not fit the model: \d+ missing \(decoder\."):
        build("biomedclipseg_d", public_folder(tmp_path, tiny()))


@pytest.mark.parametrize(("content", "words"), [
    (None, "does not exist"), ("[PAD]\n[UNK]\n[CLS]\na", r"lacks \[SEP\]"),
    ("\n".join(reversed(VOCABULARY)), r"\[PAD\] first"), ("\n".join(VOCABULARY[:-1]), "word pieces, but the weights"),
    ("\n".join([*VOCABULARY[:-1], VOCABULARY[-2]]), "each piece once")])
def test_a_vocabulary_that_is_not_the_weights_own_is_one_sentence(content, words, monkeypatch, tmp_path):
    config = TINY.model_copy(update={"vocabulary": len(VOCABULARY)} if content else {"vocabulary": 999})
    monkeypatch.setattr(biomedclipseg_config, "FULL", config)
    folder = public_folder(tmp_path, tiny(config=config))
    if content is None:
        (folder / "vocab.txt").unlink()
    else:
        (folder / "vocab.txt").write_text(content)
    with pytest.raises(UserError, match=rf"vocab\.txt.*{words}") as error:
        build("biomedclipseg", folder)
    assert "\n" not in str(error.value)


@pytest.fixture
def mirror(small_full, tmp_path, monkeypatch) -> Path:
    """A mirror of what BiomedCLIPSeg-D is put together from, beside an empty project."""
    monkeypatch.chdir(tmp_path)
    public_folder(tmp_path / "mirror" / "biomedclip", tiny(seed=4))
    clipseg = tmp_path / "mirror" / "clipseg-rd64-refined"
    clipseg.mkdir()
    config = small_clipseg(width=32, text_width=16, depth=4, image_size=32, taps=(0, 1, 2), reduce_dim=16)
    torch.manual_seed(6)
    net = CLIPSeg(config, 32).net
    config.to_json_file(clipseg / "config.json")
    save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, clipseg / "model.safetensors")
    return tmp_path / "mirror"


def test_biomedclipseg_d_is_put_together_from_two_public_models(mirror):
    public.fetch_weights("biomedclipseg-d", str(mirror))
    folder = Path("data/weights/biomedclipseg-d")
    assert read_json(folder / "status.json")["status"] == "ok"
    assert set(read_json(Path("data/checksums.json"))) == {
        "weights/biomedclip/open_clip_pytorch_model.bin", "weights/biomedclip/vocab.txt",
        "weights/clipseg-rd64-refined/config.json", "weights/clipseg-rd64-refined/model.safetensors"}
    model = build("biomedclipseg_d", folder)
    theirs = models.build(ModelConfig(name="clipseg", weights=str(mirror / "clipseg-rd64-refined"), image_size=32))
    assert equal(model.net.clip, tiny(seed=4).net.clip) and equal(model.net.decoder, theirs.net.decoder)
    assert model.tokenize(["polyp"]).shape == (1, 3)
    before = (folder / "model.safetensors").read_bytes()
    public.fetch_weights("biomedclipseg-d", str(mirror))
    assert (folder / "model.safetensors").read_bytes() == before


def test_biomedclipseg_d_is_not_run_where_a_part_is_not_to_be_had(mirror, monkeypatch):
    (mirror / "biomedclip" / "vocab.txt").unlink()

    def offline(*args, **kwargs):
        raise OSError

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    public.fetch_weights("biomedclipseg-d", str(mirror))
    status = read_json(Path("data/weights/biomedclipseg-d/status.json"))
    assert status["status"] == "not_run" and "vocab.txt of microsoft/BiomedCLIP" in status["reason"]
    assert not Path("data/weights/biomedclipseg-d/model.safetensors").exists()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_it_trains_and_is_scored_like_any_other_model(dropout, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    weights = own_folder(tmp_path, tiny(seed=4))
    data = tiny_data(tmp_path / "data", train=4, val=2)
    run = Run(study="tests", recipe="tiny", dataset="squares", seed=1, adapter={"name": "decoder"},
              model=ModelConfig(name="biomedclipseg", weights=str(weights), text_dropout=dropout),
              train=SegmentationTrain(epochs=1, batch_size=4, schedule="constant"),
              evaluate={"splits": ("val",)})
    engine.train(run, data, tmp_path / "out", tmp_path / "out.json")
    evaluate(run, data, tmp_path / "out", tmp_path / "scores")
    assert read_json(tmp_path / "scores" / "status.json")["status"] == "ok"
    cached = [path for path in (tmp_path / "cache" / "features").iterdir() if path.is_dir()]
    assert len(cached) == (2 if dropout else 4)  # images, and texts that cannot change, to train and to score on
