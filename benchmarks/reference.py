"""What our forward is measured against: the library's own, with gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.models.towers.padding import cut, padded
from featherseg.models.towers.tokenizer import CONTEXT, END_ID


class Reference(SegmentationModel):
    """CLIPSeg as transformers runs it, without its `no_grad`, around the modules of a model of ours.

    All vision blocks run, those after the last tap too, and every prompt is padded to the full context.
    Weights, methods hooked onto blocks and necks are the model's own, so that the logits must be equal.

    Args:
        model: with its method applied.
    """

    def __init__(self, model: CLIPSeg) -> None:
        super().__init__()
        for name in ("name", "image_size", "resize", "mean", "std", "vision", "text", "sentence_dim", "decoder_modules",
                     "unused", "reader"):
            setattr(self, name, getattr(model, name))
        self.net, self.image_neck, self.text_neck = model.net, model.image_neck, model.text_neck

    def architecture(self) -> dict[str, Any]:
        """The library's configuration."""
        return self.net.config.to_dict()

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, 77), padded with the end token."""
        return padded([cut(ids, CONTEXT) for ids in self.token_ids(prompts)], END_ID, CONTEXT)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """States (B, 1 + patches, width) after the tapped blocks, out of all that the library keeps."""
        output = self.net.clip.get_image_features(pixel_values=pixels, output_hidden_states=True)
        return ImageFeatures(tuple(output.hidden_states[k + 1] for k in self.vision.taps))

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """The library's text features (B, D), and the end-of-text states (B, width) at the tap depths."""
        output = self.net.clip.get_text_features(input_ids=tokens, output_hidden_states=True)
        rows, end_of_text = torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)
        taps = tuple(output.hidden_states[k + 1][rows, end_of_text] for k in self.text.taps)
        return TextFeatures(output.pooler_output, taps)

    def decode(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Logits (B, h, w) of the library's decoder after the necks."""
        image, text = self.image_neck(image), self.text_neck(text)
        logits = self.net.decoder(image.taps, text.sentence).logits
        return logits.reshape(len(text.sentence), *logits.shape[-2:])
