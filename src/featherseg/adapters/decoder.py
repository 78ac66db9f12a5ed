"""Decoder tuning: both towers frozen."""

from featherseg.adapters.base import METHODS, AdapterConfig, Method, unfreeze
from featherseg.models.base import SegmentationModel


@METHODS.register("decoder")
class Decoder(Method):
    """The decoder alone is trained: what the papers' released code calls end-to-end for CLIPSeg.

    SAN's is its side network, with CLIP's positional embeddings.
    """

    requires = frozenset({"text"})  # what no prompt reaches is tuned in full
    colours = {"": "#E69F00"}

    def apply(self, model: SegmentationModel, config: AdapterConfig) -> None:
        """Unfreeze the decoder."""
        unfreeze(model, model.decoder_modules)
