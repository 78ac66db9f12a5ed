"""Prompt tuning: learned tokens at the input of the towers.

Vision: VPT-shallow (Jia et al., "Visual Prompt Tuning", ECCV 2022). Text: continuous context tokens (Zhou et al.,
"Learning to Prompt for Vision-Language Models", IJCV 2022), here behind the positional embeddings, so that the
words keep the positions that they were trained with.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from featherseg.adapters.base import METHODS, HeadConfig, Method, unfreeze_head
from featherseg.core.errors import UserError
from featherseg.models.base import LearnedTokens, SegmentationModel

Count = Annotated[int, Field(ge=0)]


class PromptConfig(HeadConfig):
    """How many tokens each tower learns, and whether the decoder is trained.

    `tokens_vision: null` is 8 where the vision tower has transformer blocks and none elsewhere.
    """

    tokens_vision: Count | None = None
    tokens_text: Count = 8

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if self.tokens_vision == self.tokens_text == 0:
            raise ValueError("tokens_vision and tokens_text are both 0, so there is no token to learn")
        return self


@METHODS.register("prompt")
class Prompt(Method):
    """Learned tokens after the class token and after the start token, before the first block.

    Their own states never leave the tower, and the causal mask of the text tower covers them.
    """

    Config = PromptConfig
    requires = frozenset({"text.tokens"})
    colours = {"": "#B8A500"}

    def apply(self, model: SegmentationModel, config: PromptConfig) -> None:
        """Put the tokens into the model's seam.

        Raises:
            UserError: vision tokens for a vision tower without transformer blocks.
        """
        if config.tokens_vision and not model.vision.attn:
            raise UserError(f"adapter 'prompt' has tokens_vision: {config.tokens_vision}, but the vision tower of "
                            f"model '{model.name}' has no transformer blocks; use tokens_vision: 0.")
        tokens_vision = config.tokens_vision
        if tokens_vision is None:
            tokens_vision = 8 if model.vision.attn else 0
        model.vision_prompt = LearnedTokens(tokens_vision, model.vision.dim)
        model.text_prompt = LearnedTokens(config.tokens_text, model.text.dim)
        unfreeze_head(model, config.head)
