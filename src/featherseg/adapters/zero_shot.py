"""Zero-shot: the base weights as they are."""

from featherseg.adapters.base import METHODS, AdapterConfig, Method
from featherseg.models.base import SegmentationModel


@METHODS.register("zero_shot")
class ZeroShot(Method):
    """Nothing is added and nothing is trained."""

    requires = frozenset({"head.pretrained"})
    trains = False
    colours = {"": "#7f7f7f"}

    def apply(self, model: SegmentationModel, config: AdapterConfig) -> None:
        """Leave the frozen model as it is."""
