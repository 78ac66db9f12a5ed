"""Features that cannot change are computed once.

Where nothing trainable lies before a tower's taps, that tower's features of every image or prompt are
computed in a pass of their own. Everywhere else, equal images and equal prompts of a batch are encoded once, or
equal pairs of them where the towers exchange on their way.
"""

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from featherseg.core.caches import RowFile, RowWriter, cached_folder, key_of
from featherseg.core.device import to_device
from featherseg.core.files import cache_root
from featherseg.core.progress import progress
from featherseg.core.sources import closure, code_of
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures, Tower, within
from featherseg.tasks.objective import parts
from featherseg.tasks.segmentation.pixels import PixelDataset

IMAGES_PER_PASS, PROMPTS_PER_PASS = 16, 64
_SPARE_DISK = 2**30
Encoder = Callable[[list], Sequence[Tensor]]


@dataclass(frozen=True)
class Fetched:
    """What one tower needs for a batch, on the model's device.

    Attributes:
        tensors: each item's features out of a cache; or the pixels or tokens of the distinct items alone.
        positions: (B,) for each item its place among the distinct ones; None with features out of a cache.
    """

    tensors: tuple[Tensor, ...]
    positions: Tensor | None = None


class FeatureBank:
    """Image and text features of a model, out of a cache where they cannot change.

    On a CPU the cache is on disk (`features`, float32), shared by all runs with the same tower and data, and
    read row by row. On an accelerator it is in the device's memory, where it fits into half of what is free,
    since reading it from disk would take longer than encoding. Where neither has room, features are encoded
    anew each time; a message says so once.

    Args:
        model: on the device where it is used, in the state in which its towers are to be used.
        pixels: the data.
        rows: the image rows that will be asked for.
        prompts: the prompts that will be asked for; others are encoded when asked for.
        cache: False encodes everything anew.
    """

    def __init__(self, model: SegmentationModel, pixels: PixelDataset, rows: Iterable[int],
                 prompts: Iterable[str], cache: bool = True) -> None:
        self._model, self._pixels = model, pixels
        self._device = next(model.parameters()).device
        self._image_place = {row: place for place, row in enumerate(sorted(set(rows)))}
        ordered = by_length(prompts)
        self._text_place = {prompt: place for place, prompt in enumerate(ordered)}
        self._image_rows = self._text_rows = None
        if cache and model.tower_is_constant("vision"):
            self._image_rows = self._fill("vision", list(self._image_place), IMAGES_PER_PASS,
                                          pixels.fingerprint, lambda some: self._encode_images(some).taps)
        if cache and model.reads_text and model.tower_is_constant("text"):
            self._text_rows = self._fill("text", ordered, PROMPTS_PER_PASS, "",
                                         lambda some: _tensors(self._encode_texts(some)))

    def pairs(self, rows: Sequence[int], prompts: Sequence[str]) -> tuple[ImageFeatures, TextFeatures]:
        """Features of image rows, each with its prompt, on the model's device: two batches of len(rows)."""
        return self.encode(*self.fetch(rows, prompts))

    def images(self, rows: Sequence[int]) -> ImageFeatures:
        """Features of image rows, on the model's device: a batch of len(rows), equal rows encoded once."""
        return self._image_features(self._fetch_images(rows))

    def texts(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts, on the model's device: a batch of len(prompts), equal prompts encoded once."""
        return self._text_features(self._fetch_texts(prompts))

    def fetch(self, rows: Sequence[int], prompts: Sequence[str]) -> tuple[Fetched, Fetched]:
        """What `encode` needs for image rows, each with its prompt, read and brought to the model's device."""
        if not self._model.joint:
            return self._fetch_images(rows), self._fetch_texts(prompts)
        pairs, positions = self._distinct(list(zip(rows, prompts, strict=True)))
        pixels = self._pixels_of([row for row, _ in pairs])
        tokens = self._tokens([prompt for _, prompt in pairs])
        return Fetched((pixels,), positions), Fetched((tokens,), positions)

    def encode(self, image: Fetched, text: Fetched) -> tuple[ImageFeatures, TextFeatures]:
        """Features of what was fetched; nothing is read from the disk or from the device."""
        if not self._model.joint:
            return self._image_features(image), self._text_features(text)
        assert image.positions is not None and text.positions is not None  # joint towers have no cache
        (pixels,), (tokens,) = image.tensors, text.tensors
        image_features, text_features = self._model.encode(self._model.normalise(pixels), tokens)
        return image_features.index(image.positions), text_features.index(text.positions)

    def _fetch_images(self, rows: Sequence[int]) -> Fetched:
        if self._image_rows is not None and all(row in self._image_place for row in rows):
            return Fetched(self._image_rows([self._image_place[row] for row in rows]))
        some, positions = self._distinct(rows)
        return Fetched((self._pixels_of(some),), positions)

    def _fetch_texts(self, prompts: Sequence[str]) -> Fetched:
        if self._text_rows is not None and all(prompt in self._text_place for prompt in prompts):
            return Fetched(self._text_rows([self._text_place[prompt] for prompt in prompts]))
        some, positions = self._distinct(prompts)
        return Fetched((self._tokens(some),), positions)

    def _image_features(self, image: Fetched) -> ImageFeatures:
        if image.positions is None:
            return ImageFeatures(image.tensors)
        (pixels,) = image.tensors
        return self._model.encode_image(self._model.normalise(pixels)).index(image.positions)

    def _text_features(self, text: Fetched) -> TextFeatures:
        if text.positions is None:
            return self._as_text(text.tensors)
        (tokens,) = text.tensors
        return self._model.encode_text(tokens).index(text.positions)

    def _distinct(self, items: Sequence[Hashable]) -> tuple[list, Tensor]:
        some, places = distinct(items)
        return some, to_device(torch.tensor(places), self._device)

    def _encode_images(self, rows: Sequence[int]) -> ImageFeatures:
        return self._model.encode_image(self._model.normalise(self._pixels_of(rows)))

    def _encode_texts(self, prompts: Sequence[str]) -> TextFeatures:
        return self._model.encode_text(self._tokens(prompts))

    def _pixels_of(self, rows: Sequence[int]) -> Tensor:
        return to_device(self._pixels.images(rows), self._device)

    def _tokens(self, prompts: Sequence[str]) -> Tensor:
        return to_device(self._model.tokenize(prompts), self._device)

    def _as_text(self, tensors: Sequence[Tensor]) -> TextFeatures:
        """The features whose `_tensors`, all as floats, these are."""
        last = 1 + len(self._model.text.taps)
        padding = tensors[last].bool() if len(tensors) > last else None
        return TextFeatures(tensors[0], tuple(tensors[1:last]), padding)

    @torch.no_grad()
    def _fill(self, tower: Tower, items: list, per_pass: int, data: str,
              encode: Encoder) -> Callable[[list[int]], tuple[Tensor, ...]] | None:
        """Encode all items in fixed batches; returns what reads the features of places, None without room."""
        if not items:
            return None
        shapes = [tensor.shape[1:] for tensor in encode(items[:1])]
        need = 4 * len(items) * sum(shape.numel() for shape in shapes)
        passes = [list(some) for some in parts(items, per_pass)]
        if self._device.type != "cpu":
            if need > torch.get_device_module(self._device).mem_get_info()[0] // 2:
                _tell_no_room(tower, need, "device memory")
                return None
            columns = zip(*map(encode, passes), strict=True)
            stored = tuple(torch.cat(column).float() for column in columns)
            return lambda places: _rows_of(stored, to_device(torch.tensor(places), self._device))
        precision = str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else None
        key = key_of(tower, _tower_hash(self._model, tower), data, items, per_pass, precision,
                     closure("tasks/segmentation/features.py") | code_of(type(self._model)), torch.__version__,
                     torch.get_num_threads())
        if not (cache_root() / "features" / key).is_dir() and need + _SPARE_DISK > _free_disk():
            _tell_no_room(tower, need, "disk space")
            return None
        folder = cached_folder("features", key,
                               lambda partial: _write(partial, tower, shapes, passes, encode))
        files = [RowFile(folder / f"{number}.npy") for number in range(len(shapes))]
        return lambda places: tuple(torch.from_numpy(file.read(places)) for file in files)


def _rows_of(stored: tuple[Tensor, ...], places: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor[places] for tensor in stored)


def by_length(prompts: Iterable[str]) -> list[str]:
    """The distinct prompts, shortest first, so that neighbours encoded together need little padding."""
    return sorted(set(prompts), key=lambda prompt: (len(prompt), prompt))


def distinct(items: Sequence[Hashable]) -> tuple[list, list[int]]:
    """The distinct items in order of first appearance, and for each item its place among them."""
    places: dict[Hashable, int] = {}
    numbers = [places.setdefault(item, len(places)) for item in items]
    return list(places), numbers


def _write(folder: Path, tower: Tower, shapes: list[torch.Size], passes: list[list],
           encode: Encoder) -> None:
    total = sum(map(len, passes))
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(RowWriter(folder / f"{number}.npy", total, shape, np.float32))
                   for number, shape in enumerate(shapes)]
        bar = stack.enter_context(progress(total, f"{tower} features", "item"))
        for batch in passes:
            for writer, tensor in zip(writers, encode(batch), strict=True):
                writer.append(tensor.float().numpy())
            bar.update(len(batch))


def _tensors(text: TextFeatures) -> tuple[Tensor, ...]:
    return (text.sentence, *text.taps, *([] if text.padding is None else [text.padding]))


def _tower_hash(model: SegmentationModel, tower: Tower) -> str:
    """SHA-256 over what decides a tower's features: its tensors, the architecture, the input and how it is made."""
    spec = model.vision if tower == "vision" else model.text
    made = (model.name, model.architecture(), model.resize.key, model.word_length, model.most_tokens,
            model.masks_padding, model.mean, model.std, spec, model.vocabulary)
    digest = hashlib.sha256(repr(made).encode())
    for name, tensor in model.state_dict().items():
        if within(name, spec.modules):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _free_disk() -> int:
    cache_root().mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(cache_root()).free


def _tell_no_room(tower: Tower, need: int, where: str) -> None:
    print(f"no {where} for {need / 2**30:.1f} GiB of {tower} features; they are computed anew in each epoch",
          file=sys.stderr)
