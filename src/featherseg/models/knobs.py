"""What a run may choose of a model: the knobs that all models have, and types that several families share."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from featherseg.config import InputSide, Strict

FrozenBatchNorm = Literal["fixed", "published_moving"]
Upsampling = Literal["bilinear", "bicubic", "published_bicubic"]
WayBack = Literal["bilinear", "published_nearest", "published_cubic"]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class ModelKnobs(Strict):
    """Base of a family's `Knobs`, which adds its own; a knob that is absent has its default.

    `image_size` is the side of the square input in pixels. `way_back` is the way from the input to the picture's own
    size: logits `bilinear`, or probabilities, as in released code, by the nearest pixel (`published_nearest`: MedVLSM
    and VLSM-Adapter, which cut them before, and so choose the same pixels) or by cubic splines (`published_cubic`:
    CRIS, ETRIS, DETRIS).

    Attributes:
        where_named: knobs that a study's value reaches only in the runs whose recipe names them; that of every other
            knob reaches each run of the family's models.
    """

    where_named: ClassVar[frozenset[str]] = frozenset()

    image_size: InputSide | None = None
    way_back: WayBack = "bilinear"
