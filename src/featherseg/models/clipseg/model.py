"""CLIPSeg (Lueddecke & Ecker, CVPR 2022) out of transformers' modules, with a forward of our own.

The library's forward runs both encoders without gradients, so that only its decoder can be trained, with
no error. Here the same blocks are walked with gradients, up to the last tap and no further.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers.models.clipseg.configuration_clipseg import CLIPSegConfig
from transformers.models.clipseg.modeling_clipseg import CLIPSegForImageSegmentation

from featherseg.config import ModelConfig, parse
from featherseg.core.errors import UserError
from featherseg.core.files import read_object
from featherseg.data.transforms import Squash
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, TowerSpec
from featherseg.models.clipseg.config import (
    FULL,
    FULL_SIZE,
    READER,
    SMALL,
    VOCABULARY,
    ClipsegFile,
    Knobs,
    Sizes,
    input_size,
)
from featherseg.models.clipseg.decoder import decoded, redraw, set_attention
from featherseg.models.towers.tokenizer import END_ID
from featherseg.models.weights import RANDOM_SMALL, SMALL_SIZE, config_file, is_random


def full_config() -> CLIPSegConfig:
    """The architecture of CIDAS/clipseg-rd64-refined: ViT-B/16 with positions for 224 px, used at 352 px."""
    return CLIPSegConfig(vision_config={"patch_size": FULL.patch_size}, use_complex_transposed_convolution=True,
                         extract_layers=list(FULL.taps), reduce_dim=64)


def small_config(width: int = 96, text_width: int = 64, depth: int = SMALL.depth,
                 patch: int = SMALL.patch_size, image_size: int = SMALL_SIZE, taps: tuple[int, ...] = SMALL.taps,
                 reduce_dim: int = 32) -> CLIPSegConfig:
    """The same architecture at small widths: the embedded model (the defaults) and tiny ones for tests."""
    return CLIPSegConfig(
        vision_config={"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth,
                       "num_attention_heads": max(1, width // 32), "patch_size": patch, "image_size": image_size},
        text_config={"hidden_size": text_width, "intermediate_size": 4 * text_width, "num_hidden_layers": depth,
                     "num_attention_heads": max(1, text_width // 32), "vocab_size": VOCABULARY},
        projection_dim=text_width, reduce_dim=reduce_dim, extract_layers=list(taps),
        decoder_num_attention_heads=4, decoder_intermediate_size=4 * reduce_dim,
        use_complex_transposed_convolution=True)


class CLIPSeg(SegmentationModel):
    """CLIPSeg with features at taps: the library's modules under `net`, walked stage by stage.

    Args:
        config: the architecture; see `full_config` and `small_config`.
        image_size: side of the square input in pixels, a multiple of the patch size. Positions are
            interpolated where it differs from what the weights were made for.

    Raises:
        ValueError: the image size is not a multiple of the patch size, or a tap lies beyond the last block.
    """

    name = "clipseg"
    net: CLIPSegForImageSegmentation
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    reader = READER
    pad_token = END_ID
    decoder_modules = ("net.decoder",)

    def __init__(self, config: CLIPSegConfig, image_size: int = FULL_SIZE) -> None:
        super().__init__()
        taps = tuple(config.extract_layers)
        depth = min(config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers)
        Sizes(config.vision_config.patch_size, depth, taps).check(image_size)
        self.image_size, self.resize = image_size, Squash(image_size)
        self.sentence_dim = config.projection_dim
        self.net = CLIPSegForImageSegmentation(config)
        redraw(self.net.decoder)
        set_attention(self.net.decoder)
        vision, text = "net.clip.vision_model", "net.clip.text_model"
        reached = tuple(f"{vision}.encoder.layers.{k}" for k in range(taps[-1] + 1))
        beyond = tuple(f"{vision}.encoder.layers.{k}"
                       for k in range(taps[-1] + 1, config.vision_config.num_hidden_layers))
        blocks = tuple(f"{text}.encoder.layers.{k}" for k in range(config.text_config.num_hidden_layers))
        self.vision = TowerSpec(reached, "self_attn", "mlp", config.vision_config.hidden_size, taps,
                                (f"{vision}.embeddings", f"{vision}.pre_layrnorm", *reached))
        self.text = TowerSpec(blocks, "self_attn", "mlp", config.text_config.hidden_size, taps,
                              (text, "net.clip.text_projection"))
        self.unused = (*beyond, f"{vision}.post_layernorm", "net.clip.visual_projection", "net.clip.logit_scale")

    def architecture(self) -> dict[str, Any]:
        """What `config.json` beside the model's weights says."""
        return self.net.config.to_diff_dict()

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """States (B, 1 + patches, width) after the tapped blocks; blocks after the last tap never run."""
        tower = self.net.clip.vision_model
        states = self.vision_prompt.insert(tower.embeddings(pixels, interpolate_pos_encoding=True))
        states = tower.pre_layrnorm(states)
        taps = []
        for k, block in enumerate(tower.encoder.layers[: self.vision.taps[-1] + 1]):
            states = block(states, None)
            if k in self.vision.taps:
                taps.append(self.vision_prompt.remove(states))
        return ImageFeatures(tuple(taps))

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The projected end-of-text state (B, D), and the end-of-text states (B, width) at the tap depths."""
        tower = self.net.clip.text_model
        states = self.text_prompt.insert(tower.embeddings(input_ids=tokens))
        length = states.shape[1]
        causal = torch.full((length, length), float("-inf"), device=states.device, dtype=states.dtype).triu(1)
        rows = torch.arange(len(tokens), device=tokens.device)
        end_of_text = tokens.argmax(dim=-1) + self.text_prompt.count
        taps = []
        for k, block in enumerate(tower.encoder.layers):
            states = block(states, causal[None, None])
            if k in self.text.taps:
                taps.append(states[rows, end_of_text])
        sentence = self.net.clip.text_projection(tower.final_layer_norm(states[rows, end_of_text]))
        return TextFeatures(sentence, tuple(taps))

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w): the input's resolution for patch 16, half of it for patch 8."""
        return decoded(self.net.decoder, self.image_neck(image), self.text_neck(text))


def build(config: ModelConfig, knobs: Knobs) -> CLIPSeg:
    """CLIPSeg of the architecture that its weights name.

    Raises:
        UserError: a `config.json` that does not describe a CLIPSeg.
        ValueError: a size that does not fit it.
    """
    size = input_size(config, knobs)
    if config.weights == RANDOM_SMALL:
        return CLIPSeg(small_config(image_size=size), size)
    architecture = full_config() if is_random(config.weights) else _read_config(config_file(config.weights))
    return CLIPSeg(architecture, size)


def _read_config(file: Path) -> CLIPSegConfig:
    given = read_object(file)
    parse(ClipsegFile, given, str(file))
    try:
        return CLIPSegConfig.from_dict(given)
    except (TypeError, AttributeError, StrictDataclassError) as error:
        raise UserError(f"{file} is not that of a CLIPSeg ({' '.join(str(error).split())}).") from None
