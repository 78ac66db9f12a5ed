"""From rows that name files to a prepared dataset."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from featherseg.core.errors import UserError
from featherseg.data.images import Mask, open_mask, read_image
from featherseg.data.prepared import SPACING, PreparedWriter
from featherseg.data.prompts.prompt_engine import PromptEngine


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


def pixels_of(image: Source) -> np.ndarray:
    """An image: uint8 (H, W, 3).

    Raises:
        UserError: its file cannot be read.
    """
    return image.read() if isinstance(image, Pixels) else read_image(image)


_WHITE = {"255", "65535"}


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


class Markings:
    """By which levels or colours the mask files of each target mark it, over all files.

    A file that has two levels says which of them is the target, but not that the same level means the same in the
    next file: class 1 in one file and class 2 in another would become one target. Nor does a file of several levels
    say whether they are shares of raters, which a threshold divides, or classes.

    Args:
        threshold: of `images.open_mask`.
    """

    def __init__(self, threshold: float | None) -> None:
        self.threshold = threshold
        self._files: dict[str, dict[tuple, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._shares: dict[str, list[dict[float, float]]] = defaultdict(list)
        self._below: dict[str, str] = {}
        self._count = 0

    def add(self, target: str, source: Source, mask: Mask) -> None:
        """Take one mask file of a target into account."""
        self._count += 1
        if mask.target or mask.background or mask.hue:
            self._files[target][mask.target, mask.background, mask.hue].append(str(source))
        if mask.shares:
            self._shares[target].append(mask.shares)
        if mask.below:
            self._below[str(source)] = mask.below

    def faults(self) -> list[str]:
        """One sentence for each target whose files contradict one another."""
        return [f"the masks of {target!r} do not mark it alike: {self._counts(target)}; where these are different "
                "structures, name each (masks/<image>__<structure>.png), where they are one, save all masks white on "
                "black, or set `threshold`."
                for target in self._files if self._contradict(target)]

    def notes(self) -> list[str]:
        """One sentence for each target whose files mark it by several levels or colours, none of them wrong, one for
        each with several levels in a file, which may be wrong, and one for all files that the threshold makes empty."""
        several = [f"The masks of {target!r} mark it by several levels or colours: {self._counts(target)}."
                   for target in self._files if self._is_varied(target)]
        divided = [self._divided(target, files) for target, files in self._shares.items()]
        return several + divided + self._emptied()

    def _is_varied(self, target: str) -> bool:
        """Whether a target's files mark it by several levels or colours."""
        marks = {level or hue for level, _, hue in self._files[target]}
        return len(marks - {None}) > 1

    def _emptied(self) -> list[str]:
        """Which files have levels that all lie under the threshold, and what to do."""
        if not self._below:
            return []
        first, levels = next(iter(self._below.items()))
        count = len(self._below)
        have = "has" if count == 1 else "have"
        return [f"{count} of {self._count} mask files {have} levels other than 0 that all lie under the threshold "
                f"{self.threshold:g}, so that nothing is target ({Path(first).name}: {levels}); lower `threshold`, or "
                "rescale the masks to 0 and 255."]

    def _divided(self, target: str, files: list[dict[float, float]]) -> str:
        """What the threshold makes of the levels of a target's files."""
        levels = sorted(set().union(*files))
        shown = ", ".join(f"{level:g} {_mean_share(level, files):.1%}" for level in levels)
        threshold = cast(float, self.threshold)  # without one no mask is read as shares
        above = [f"{level:g}" for level in levels if level >= threshold]
        below = [f"{level:g}" for level in levels if level < threshold]
        return (f"{len(files)} {'mask' if len(files) == 1 else 'masks'} of {target!r} have {len(levels)} grey levels "
                f"({shown}); the threshold {threshold:g} counts {', '.join(above) or 'none'} as target and "
                f"{', '.join(below)} as background, as is right for shares of several raters; if the levels are "
                "classes, save one mask file a structure.")

    def _contradict(self, target: str) -> bool:
        """Whether two levels or colours, white apart, mark the target, or one marks target and background."""
        marks = zip(*self._files[target], strict=True)
        targets, backgrounds, hues = (set(filter(None, values)) for values in marks)
        return (len(targets - _WHITE) > 1 or len(hues - {"grey"}) > 1 or len(backgrounds) > 1
                or bool(targets & backgrounds))

    def _counts(self, target: str) -> str:
        phrases = []
        for (marked, background, hue), files in self._files[target].items():
            level = marked or hue or "no target"
            ground = f" on {background}" if background else ""
            named = f"{Path(files[0]).name}{', ...' * (len(files) > 1)}"
            phrases.append(f"{level}{ground} in {len(files)} {'file' if len(files) == 1 else 'files'} ({named})")
        return ", ".join(phrases)


def _mean_share(level: float, files: Sequence[dict[float, float]]) -> float:
    return sum(file.get(level, 0) for file in files) / len(files)


def write_rows(rows: Iterable[Row], writer: PreparedWriter, threshold: float | None,
               engine: PromptEngine | None = None, unite: bool = False) -> Markings:
    """Write every row, one image and one mask in memory at a time; return how the mask files mark their targets.

    Args:
        engine: makes the prompts of rows that have none.
        unite: of `images.open_mask`.

    Raises:
        UserError: the first file that cannot be read, mask that does not fit, or class without a template; at the
            end, masks that mark a target in different ways.
    """
    added: set[str] = set()
    markings = Markings(threshold)
    for row in rows:
        if row.image_id not in added:
            writer.add_image(row.image_id, row.image.read() if isinstance(row.image, Pixels) else row.image)
            added.add(row.image_id)
        mask = united_mask(row, writer.image_size(row.image_id), markings, unite)
        attributes, prompts = row.attributes, row.prompts
        if engine is not None and prompts is None:
            attributes, prompts = engine.describe(writer.pixels(row.image_id), mask, row.target, attributes)
        if isinstance(row.image, Pixels) and (spacing := row.image.spacing()):
            attributes = {SPACING: list(spacing)} | attributes
        writer.add_sample(image_id=row.image_id, target=row.target, mask=mask, split=row.split,
                          group=row.group, prompts=prompts, attributes=attributes)
    for fault in markings.faults():
        raise UserError(fault)
    return markings


def faults(rows: Iterable[Row], markings: Markings) -> Iterator[str]:
    """What is wrong with the files of each row, without stopping at the first fault.

    Args:
        markings: what takes the files into account, new.
    """
    sizes: dict[Source, tuple[int, int] | None] = {}
    for row in rows:
        if row.image not in sizes:
            sizes[row.image] = None
            try:
                height, width = pixels_of(row.image).shape[:2]
                sizes[row.image] = height, width
            except UserError as error:
                yield str(error)
        size = sizes[row.image]
        if size is not None:
            try:
                united_mask(row, size, markings)
            except UserError as error:
                yield str(error)
    yield from markings.faults()


def united_mask(row: Row, size: tuple[int, int], markings: Markings, unite: bool = False) -> np.ndarray:
    """The union of a row's masks: bool of shape `size`, the (height, width) of its image.

    Args:
        markings: what takes the row's files into account, and has the threshold.
        unite: of `images.open_mask`.

    Raises:
        UserError: no mask, an unreadable or grey one, or one of another size.
    """
    if not row.masks:
        raise UserError(f"{row.where}: {row.image} has no mask; "
                        "add one (all black where nothing is to be found).")
    union = np.zeros(size, dtype=bool)
    for source in row.masks:
        if isinstance(source, Pixels):
            mask = source.read()
        else:
            file = open_mask(source, markings.threshold, unite)
            markings.add(row.target, source, file)
            mask = file.pixels
        if mask.shape != size:
            raise UserError(f"{source} is {mask.shape[1]}x{mask.shape[0]} pixels but its image {row.image} is "
                            f"{size[1]}x{size[0]} (upright); save the mask at its image's size.")
        union |= mask
    return union
