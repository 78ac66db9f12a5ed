"""BiomedCLIPSeg (Poudel et al., "MedVLSM", MIDL 2024, arXiv 2308.07706): BiomedCLIP's towers, CLIPSeg's decoder.

BiomedCLIP (Zhang et al., arXiv 2303.00915) is a timm ViT and a BERT, here under open_clip's names, and built from an
architecture in this package, since open_clip would fetch BERT's from the model hub. Both towers are walked with
gradients, the vision tower up to the last tap and no further.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertModel
from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

from featherseg.config import ModelConfig
from featherseg.data.transforms import Squash
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, Tower, TowerSpec
from featherseg.models.biomedclipseg.config import Architecture, Knobs, architecture_of, check_towers
from featherseg.models.clipseg.decoder import build_decoder, decoded
from featherseg.models.towers.bert import ATTENTION, MLP, PROJECTIONS, build_bert, walk_bert
from featherseg.models.towers.word_pieces import SPELLING, vocabulary_of, word_piece_reader
from featherseg.models.weights import check_keys

TRUNK, TEXT = "net.clip.visual.trunk", "net.clip.text"


class BiomedCLIP(nn.Module):
    """The two towers and their projections, named as open_clip names them; `BiomedCLIPSeg` walks them.

    Args:
        config: the architecture.
        text_dropout: of BERT's states and attention in training.
    """

    def __init__(self, config: Architecture, text_dropout: float) -> None:
        super().__init__()
        trunk = VisionTransformer(
            img_size=config.image_size, patch_size=config.patch_size, embed_dim=config.vision_width,
            depth=config.vision_depth, num_heads=config.vision_heads, num_classes=0, dynamic_img_size=True)
        head = nn.Sequential(OrderedDict(proj=nn.Linear(config.vision_width, config.embed_dim, bias=False)))
        self.visual = nn.ModuleDict({"trunk": trunk, "head": head})
        between = (config.text_width + config.embed_dim) // 2
        projection = nn.Sequential(nn.Linear(config.text_width, between, bias=False), nn.GELU(),
                                   nn.Linear(between, config.embed_dim, bias=False))
        bert = build_bert(config.vocabulary, config.text_width, config.text_depth, config.text_heads, config.positions,
                          text_dropout)
        self.text = nn.ModuleDict({"transformer": bert, "proj": projection})
        self.logit_scale = nn.Parameter(torch.ones([]))

    @property
    def trunk(self) -> VisionTransformer:
        """The vision tower without its projection."""
        return cast(VisionTransformer, self.visual["trunk"])

    @property
    def bert(self) -> BertModel:
        """The text tower without its projection."""
        return self.text["transformer"]


class BiomedCLIPSeg(SegmentationModel):
    """BiomedCLIP's vision states at CLIPSeg's depths, decoded under the projected first token of its BERT.

    Args:
        name: `biomedclipseg`, whose decoder comes untrained, or `biomedclipseg_d`, with CLIPSeg's trained one.
        config: the architecture.
        image_size: side of the square input in pixels, a multiple of the patch size; None for the architecture's
            own. Positions are interpolated where it differs.
        vocabulary: the text tower's word pieces; None spells words out in letters.
        tap_offset: how many blocks later than CLIPSeg the image is read: 0, or 1 as the released code does.
        text_dropout: in the text tower in training. Above 0 it changes a frozen tower's features too, as in the
            released code, so that they are not computed once.

    Raises:
        ValueError: a size, tap or vocabulary that does not fit the architecture.
    """

    net: nn.ModuleDict
    vocabulary: Sequence[str]
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    decoder_modules = ("net.decoder",)

    def __init__(self, name: str, config: Architecture, image_size: int | None = None,
                 vocabulary: Sequence[str] | None = None, tap_offset: int = 0, text_dropout: float = 0.0) -> None:
        super().__init__()
        self.name, self.config, self.text_dropout = name, config, text_dropout
        self.trains_head = name == "biomedclipseg"
        self.image_size = image_size or config.image_size
        self.resize = Squash(self.image_size)
        self.sentence_dim = config.embed_dim
        self.vocabulary = tuple(vocabulary or SPELLING)
        check_towers(config, self.image_size, self.vocabulary, tap_offset)
        self.reader = word_piece_reader(self.vocabulary, config.context_length)
        taps = tuple(tap + tap_offset for tap in config.taps)
        self.net = nn.ModuleDict({"clip": BiomedCLIP(config, text_dropout), "decoder": _build_decoder(config)})
        blocks = tuple(f"{TRUNK}.blocks.{k}" for k in range(config.vision_depth))
        reached, beyond = blocks[: taps[-1] + 1], blocks[taps[-1] + 1 :]
        inputs = tuple(f"{TRUNK}.{part}" for part in ("cls_token", "pos_embed", "patch_embed"))
        self.vision = TowerSpec(reached, "attn", "mlp", config.vision_width, taps, (*inputs, *reached),
                                {"qkv": "attn.qkv", "out": "attn.proj"})
        self.text = TowerSpec(
            tuple(f"{TEXT}.transformer.encoder.layer.{k}" for k in range(config.text_depth)),
            ATTENTION, MLP, config.text_width, config.taps, (TEXT,), PROJECTIONS)
        self.unused = (*beyond, f"{TRUNK}.norm", "net.clip.visual.head", "net.clip.logit_scale")

    @property
    def clip(self) -> BiomedCLIP:
        """The towers."""
        return cast(BiomedCLIP, self.net["clip"])

    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside the model's weights says."""
        return self.config.model_dump(mode="json")

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """States (B, 1 + patches, width) after the tapped blocks; blocks after the last tap never run."""
        trunk = self.clip.trunk
        states = self.vision_prompt.insert(trunk._pos_embed(trunk.patch_embed(pixels)))
        states, taps = trunk.norm_pre(states), []
        for k, block in enumerate(trunk.blocks[: self.vision.taps[-1] + 1]):
            states = block(states)
            if k in self.vision.taps:
                taps.append(self.vision_prompt.remove(states))
        return ImageFeatures(tuple(taps))

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The projected first token (B, D), and the first token's states (B, width) at the tap depths."""
        walked = walk_bert(self.clip.bert, tokens, self.text_prompt)
        taps = tuple(walked[tap][:, 0] for tap in self.text.taps)
        return TextFeatures(self.clip.text["proj"](walked[-1][:, 0]), taps)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w): the input's resolution for patch 16, half of it for patch 8."""
        return decoded(self.net["decoder"], self.image_neck(image), self.text_neck(text))

    def tower_is_constant(self, tower: Tower) -> bool:
        """Whether nothing that training changes lies before this tower's taps, dropout included."""
        return super().tower_is_constant(tower) and not (tower == "text" and self.text_dropout)

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model.

        Two layouts are known: the whole model, and BiomedCLIP alone.
        """
        towers_alone = not any(name.startswith("decoder.") for name in state)
        return {f"net.clip.{name}" if towers_alone else f"net.{name}": tensor for name, tensor in state.items()}

    def load_base(self, state: dict[str, Tensor], source: str) -> None:
        """Load weights in one of the layouts of `base_tensors`; BiomedCLIP alone leaves an untrained decoder as it is.

        Raises:
            UserError: tensors are missing, unexpected or misshapen, among them the decoder's of `biomedclipseg_d`.
        """
        given = {name.removeprefix("net."): tensor for name, tensor in self.base_tensors(state).items()}
        expected = self.net.state_dict()
        if self.trains_head and not any(name.startswith("decoder.") for name in given):
            expected = {name: tensor for name, tensor in expected.items() if name.startswith("clip.")}
        check_keys(given, expected, source)
        self.net.load_state_dict(given, strict=False)


def _build_decoder(config: Architecture) -> CLIPSegDecoder:
    vision = {"hidden_size": config.vision_width, "num_hidden_layers": config.vision_depth,
              "num_attention_heads": config.vision_heads, "patch_size": config.patch_size}
    return build_decoder(vision, config.embed_dim, config.taps, config.reduce_dim, config.decoder_heads,
                         config.decoder_mlp)


def build(config: ModelConfig, knobs: Knobs) -> BiomedCLIPSeg:
    """BiomedCLIPSeg, or BiomedCLIPSeg-D, of the architecture that its weights name; errors are those of the class."""
    architecture = architecture_of(config, knobs)
    vocabulary = vocabulary_of(config.weights, architecture.vocabulary)
    return BiomedCLIPSeg(config.name, architecture, knobs.image_size, vocabulary, knobs.tap_offset, knobs.text_dropout)
