"""CLIPSeg's decoder on DINOv2's and MiniLM's towers, put together as MedVLSM (arXiv 2308.07706) builds BiomedCLIPSeg-D.

Both towers are public and small enough for a processor. They were never trained beside each other, as CLIP's are, so
the decoder, which comes untrained, has to learn what a sentence means for a picture. DINOv2 scales what its attention
and MLPs give before each residual sum (LayerScale), so adapters there are scaled, too.
"""

from collections.abc import Sequence
from typing import Any, cast

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertModel
from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

from featherseg.config import ModelConfig
from featherseg.data.transforms import Squash
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, TowerSpec
from featherseg.models.clipseg.decoder import build_decoder, decoded
from featherseg.models.dino_clipseg.config import Architecture, Knobs, architecture_of, check_towers
from featherseg.models.towers.bert import ATTENTION, MLP, PROJECTIONS, build_bert, mean_of_words, walk_bert
from featherseg.models.towers.dinov2 import MEAN, STD, build_dinov2, on_grid
from featherseg.models.towers.word_pieces import SPELLING, vocabulary_of, word_piece_reader
from featherseg.models.weights import check_keys

VISION, TEXT = "net.vision", "net.text"


class DinoCLIPSeg(SegmentationModel):
    """DINOv2's states at CLIPSeg's depths, decoded under the mean of MiniLM's words; padding is masked.

    Args:
        name: the model's name in recipes.
        config: the architecture.
        image_size: side of the square input in pixels, a multiple of the patch size; None for the architecture's own.
        vocabulary: the text tower's word pieces; None spells words out in letters.

    Raises:
        ValueError: a size or a vocabulary that does not fit the architecture.
    """

    net: nn.ModuleDict
    vocabulary: Sequence[str]
    mean, std = MEAN, STD
    decoder_modules = ("net.decoder",)
    trains_head = True

    def __init__(self, name: str, config: Architecture, image_size: int | None = None,
                 vocabulary: Sequence[str] | None = None) -> None:
        super().__init__()
        self.name, self.config = name, config
        self.image_size = image_size or config.image_size
        self.resize = Squash(self.image_size)
        self.sentence_dim = config.text_width
        self.vocabulary = tuple(vocabulary or SPELLING)
        check_towers(config, self.image_size, self.vocabulary)
        self.reader = word_piece_reader(self.vocabulary, config.context_length)
        self.net = nn.ModuleDict({
            "vision": build_dinov2(config.vision_width, config.vision_depth, config.vision_heads, config.patch_size,
                                   self.image_size),
            "text": build_bert(config.vocabulary, config.text_width, config.text_depth, config.text_heads,
                               config.positions),
            "decoder": _build_decoder(config)})
        blocks = tuple(f"{VISION}.blocks.{k}" for k in range(config.vision_depth))
        reached, beyond = blocks[: config.taps[-1] + 1], blocks[config.taps[-1] + 1 :]
        inputs = tuple(f"{VISION}.{part}" for part in ("cls_token", "pos_embed", "patch_embed"))
        self.vision = TowerSpec(reached, "attn", "mlp", config.vision_width, config.taps, (*inputs, *reached),
                                {"qkv": "attn.qkv", "out": "attn.proj"})
        self.text = TowerSpec(tuple(f"{TEXT}.encoder.layer.{k}" for k in range(config.text_depth)), ATTENTION, MLP,
                              config.text_width, config.text_taps, (TEXT,), PROJECTIONS)
        self.unused = (*beyond, f"{VISION}.norm")

    @property
    def dinov2(self) -> VisionTransformer:
        """The vision tower."""
        return cast(VisionTransformer, self.net["vision"])

    @property
    def bert(self) -> BertModel:
        """The text tower."""
        return self.net["text"]

    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside the model's weights says, at this input size."""
        return self.config.model_copy(update={"image_size": self.image_size}).model_dump(mode="json")

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """States (B, 1 + patches, width) after the tapped blocks; blocks after the last tap never run."""
        tower = self.dinov2
        states = self.vision_prompt.insert(tower._pos_embed(tower.patch_embed(pixels)))
        taps = []
        for k, block in enumerate(tower.blocks[: self.vision.taps[-1] + 1]):
            states = block(states)
            if k in self.vision.taps:
                taps.append(self.vision_prompt.remove(states))
        return ImageFeatures(tuple(taps))

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The mean of the words (B, D), and their means (B, width) at the tap depths."""
        walked = walk_bert(self.bert, tokens, self.text_prompt)
        taps = tuple(mean_of_words(walked[tap], tokens) for tap in self.text.taps)
        return TextFeatures(mean_of_words(walked[-1], tokens), taps)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w): nine times the grid for patch 14, half of the input's resolution for patch 8."""
        return decoded(self.net["decoder"], self.image_neck(image), self.text_neck(text))

    def base_tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a weights file under the names that they have in this model; positions are interpolated."""
        prefix = "vision."
        vision = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        fitted = on_grid(vision, self.image_size // self.config.patch_size)
        others = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
        tensors = {f"{prefix}{name}": tensor for name, tensor in fitted.items()} | others
        return {f"net.{name}": tensor for name, tensor in tensors.items()}

    def load_base(self, state: dict[str, Tensor], source: str) -> None:
        """Load both towers, and the decoder where the weights hold one.

        Raises:
            UserError: tensors are missing, unexpected or misshapen.
        """
        given = {name.removeprefix("net."): tensor for name, tensor in self.base_tensors(state).items()}
        expected = self.net.state_dict()
        if not any(name.startswith("decoder.") for name in given):
            expected = {name: tensor for name, tensor in expected.items() if not name.startswith("decoder.")}
        check_keys(given, expected, source)
        self.net.load_state_dict(given, strict=False)
        self.untrained = tuple(f"net.{name}" for name in self.net.state_dict() if name not in given)


def _build_decoder(config: Architecture) -> CLIPSegDecoder:
    vision = {"hidden_size": config.vision_width, "num_hidden_layers": config.vision_depth,
              "num_attention_heads": config.vision_heads, "patch_size": config.patch_size}
    return build_decoder(vision, config.text_width, config.taps, config.reduce_dim, config.decoder_heads,
                         config.decoder_mlp)


def build(config: ModelConfig, knobs: Knobs) -> DinoCLIPSeg:
    """The model of the architecture that its weights name; errors are those of the class."""
    architecture = architecture_of(config, knobs)
    vocabulary = vocabulary_of(config.weights, architecture.vocabulary)
    return DinoCLIPSeg(config.name, architecture, knobs.image_size, vocabulary)
