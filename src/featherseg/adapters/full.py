"""Full fine-tuning: both towers and the decoder, as far as they reach the mask."""

from featherseg.adapters.base import METHODS, AdapterConfig, Method, unfreeze
from featherseg.models.base import SegmentationModel


@METHODS.register("full")
class Full(Method):
    """Every parameter that reaches the mask is trained.

    The papers' "end-to-end" CLIPSeg rows train the decoder only, since the library's forward runs the
    towers without gradients; that is the method `decoder`. It is the one method of the CNNs, which read no prompt.
    """

    colours = {"": "#D55E00"}

    def apply(self, model: SegmentationModel, config: AdapterConfig) -> None:
        """Unfreeze towers and decoder."""
        unfreeze(model, (*model.vision.modules, *model.text.modules, *model.decoder_modules))
