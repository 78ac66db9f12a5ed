"""From rows that name files to a prepared dataset."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featherseg.data.images import read_image, read_mask
from featherseg.data.prepared import SPACING, PreparedWriter
from featherseg.data.prompt_engine import PromptEngine
from featherseg.errors import UserError


@dataclass(frozen=True)
class Pixels:
    """Pixels that are no picture file of their own, such as one label of a map or run lengths of a list.

    Attributes:
        name: where they come from, for messages.
        read: gives them: uint8 (H, W, 3) of an image, bool (H, W) of a mask.
        spacing: gives height and width of a pixel in millimetres, None where that is not known.
    """

    name: str
    read: Callable[[], np.ndarray]
    spacing: Callable[[], tuple[float, float] | None] = lambda: None

    def __str__(self) -> str:
        return self.name


Source = Path | Pixels


@dataclass(frozen=True)
class Row:
    """One target of one image, with what shows it.

    `masks` are united. `split`, `group` and `prompts` are None where `PreparedWriter.add_sample` decides.
    """

    where: str
    image_id: str
    image: Source
    masks: tuple[Source, ...]
    target: str
    split: str | None
    group: str | None
    prompts: dict[str, list[str]] | None
    attributes: dict[str, Any]


def write_rows(rows: Iterable[Row], writer: PreparedWriter, threshold: float | None,
               engine: PromptEngine | None = None) -> None:
    """Write every row, one image and one mask in memory at a time.

    Args:
        engine: makes the prompts of rows that have none.

    Raises:
        UserError: the first file that cannot be read, mask that does not fit, or class without a template.
    """
    added: set[str] = set()
    for row in rows:
        if row.image_id not in added:
            writer.add_image(row.image_id, row.image.read() if isinstance(row.image, Pixels) else row.image)
            added.add(row.image_id)
        mask = united_mask(row, writer.image_size(row.image_id), threshold)
        attributes, prompts = row.attributes, row.prompts
        if engine is not None and prompts is None:
            attributes, prompts = engine.describe(writer.pixels(row.image_id), mask, row.target, attributes)
        if isinstance(row.image, Pixels) and (spacing := row.image.spacing()):
            attributes = {SPACING: list(spacing)} | attributes
        writer.add_sample(image_id=row.image_id, target=row.target, mask=mask, split=row.split,
                          group=row.group, prompts=prompts, attributes=attributes)


def faults(rows: Iterable[Row], threshold: float | None) -> Iterator[str]:
    """What is wrong with the files of each row, without stopping at the first fault."""
    sizes: dict[Path, tuple[int, int] | None] = {}
    for row in rows:
        if row.image not in sizes:
            sizes[row.image] = None
            try:
                sizes[row.image] = read_image(row.image).shape[:2]
            except UserError as error:
                yield str(error)
        size = sizes[row.image]
        if size is not None:
            try:
                united_mask(row, size, threshold)
            except UserError as error:
                yield str(error)


def united_mask(row: Row, size: tuple[int, int], threshold: float | None) -> np.ndarray:
    """The union of a row's masks: bool of shape `size`, the (height, width) of its image.

    Raises:
        UserError: no mask, an unreadable or grey one, or one of another size.
    """
    if not row.masks:
        raise UserError(f"{row.where}: {row.image} has no mask; "
                        "add one (all black where nothing is to be found).")
    union = np.zeros(size, dtype=bool)
    for source in row.masks:
        mask = source.read() if isinstance(source, Pixels) else read_mask(source, threshold)
        if mask.shape != size:
            raise UserError(f"{source} is {mask.shape[1]}x{mask.shape[0]} pixels but its image {row.image} is "
                            f"{size[1]}x{size[0]} (upright); save the mask at its image's size.")
        union |= mask
    return union
