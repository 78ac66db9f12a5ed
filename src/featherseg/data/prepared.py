"""The prepared dataset, the one form in which every later stage reads data.

    <folder>/status.json       ok, or not_run with the reason (then nothing else is there)
    <folder>/samples.parquet   one row per (image, target)
    <folder>/images/  masks/   at original resolution; masks are 0/255 PNG of the image's size
"""

import contextlib
import functools
import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict

import numpy as np
from PIL import Image

from featherseg.core.errors import UserError
from featherseg.core.files import LONGEST_NAME, atomic_path, not_run_reason, sha256_file, write_status
from featherseg.data import images
from featherseg.data.splits import split_groups

COLUMNS = ("dataset", "sample_id", "image_id", "group", "split", "target", "image", "mask", "height", "width",
           "x0", "y0", "x1", "y1", "area_fraction", "attributes", "prompts")
SENTENCES = "sentences"
LEVELS = (*(f"p{number}" for number in range(10)), SENTENCES)
UNIQUE = "unique"
SPACING = "pixel_spacing"
UNNAMED = "unnamed"
_SHARED = ("dataset", "image_id", "group", "split", "target", "image")
_INTEGERS = ("height", "width", "x0", "y0", "x1", "y1")
_ROWS_PER_GROUP = 200
_TABLE = "samples.parquet"


@dataclass(frozen=True, slots=True)
class Sample:
    """One target in one image.

    Attributes:
        sample_id: `<dataset>/<image_id>/<target>`, unique across datasets.
        group: what a split must not cut through: the patient where known, else the image.
        split: train, val, test or a further name; `unnamed` is never trained on.
        image, mask: paths relative to the dataset's folder.
        height, width: of image and mask, pixels.
        bbox: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; four zeros for an empty mask.
        area_fraction: target pixels / all pixels.
        attributes: what is known of the target (number, size, location, shape, colour), and of its image
            (`pixel_spacing`: height and width of a pixel in millimetres).
        prompts: level (p0 to p9, or `sentences`) -> one or more prompts, levels in ascending order; `unique`
            where known: the shortest prompt that no other target of the image fits.
    """

    dataset: str
    sample_id: str
    image_id: str
    group: str
    split: str
    target: str
    image: str
    mask: str
    height: int
    width: int
    bbox: tuple[int, int, int, int]
    area_fraction: float
    attributes: dict[str, Any]
    prompts: dict[str, list[str]]

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Height and width of a pixel in millimetres, None where that is not known."""
        known = self.attributes.get(SPACING)
        return tuple(known) if known else None


class PreparedWriter:
    """Writes a prepared dataset beside its place and renames it on success; on an error nothing is left.

    Memory does not grow with the images: rows go to disk in groups, pixels at once. `finish` gets the
    complete folder before it is renamed, for instance to add a card.

    Example:
        with PreparedWriter("data/processed/lesions", dataset="lesions") as writer:
            writer.add_image("0001", "photo.jpg")
            writer.add_sample(image_id="0001", target="lesion", mask=mask)
    """

    def __init__(self, out_dir: Path | str, dataset: str,
                 finish: Callable[[Path], None] | None = None) -> None:
        self.dataset = dataset
        self._finish = finish
        self._place = atomic_path(out_dir)
        self._images: dict[str, tuple[str, int, int]] = {}
        self._latest: tuple[str, Image.Image | None] = ("", None)
        self._masks: set[str] = set()
        self._linked: dict[str, Path] = {}
        self._rows: list[dict[str, Any]] = []
        self._unsplit: Counter[str] = Counter()

    def __enter__(self) -> Self:
        import pyarrow.parquet

        self._folder = self._place.__enter__()
        (self._folder / "images").mkdir(parents=True)
        (self._folder / "masks").mkdir()
        self._table = pyarrow.parquet.ParquetWriter(self._folder / _TABLE, _schema())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool | None:
        try:
            if error is None:
                self._flush()
            self._table.close()
            if error is None:
                if self._unsplit:
                    self._assign_splits()
                write_status(self._folder)
                if self._finish:
                    self._finish(self._folder)
        except Exception as late:
            self._place.__exit__(type(late), late, late.__traceback__)
            raise
        return self._place.__exit__(kind, error, trace)

    def add_image(self, image_id: str, image: np.ndarray | images.PictureFile) -> str:
        """Store one image; return its path relative to the dataset's folder.

        Args:
            image_id: file stem, unique in the dataset.
            image: uint8 (H, W, 3), or a file. An upright 8-bit JPEG or PNG, RGB or grey, is copied as it is,
                any other file converted to RGB PNG as `images.read_image` says.

        Raises:
            UserError: an id that is taken or no file name, an unreadable file, an array of another form.
        """
        if not _is_file_stem(image_id):
            raise UserError(f"dataset {self.dataset}: image id {image_id!r} is no file name; rename it.")
        if image_id in self._images:
            raise UserError(f"dataset {self.dataset}: image id {image_id!r} occurs twice; "
                            "rename one of the images.")
        if isinstance(image, np.ndarray):
            opened, path = self._store_pixels(image_id, image)
        else:
            opened, path = self._store_file(image_id, image)
        width, height = opened.size
        self._images[image_id] = (path, height, width)
        self._latest = image_id, opened
        return path

    def _store_pixels(self, image_id: str, pixels: np.ndarray) -> tuple[Image.Image, str]:
        """Write pixels as an image file; return the image and its path within the folder."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise UserError(f"dataset {self.dataset}: image {image_id!r} is {pixels.dtype} of shape "
                            f"{pixels.shape}; give uint8 of shape (height, width, 3).")
        return Image.fromarray(pixels), self._save(pixels, f"images/{image_id}.png")

    def _store_file(self, image_id: str, file: images.PictureFile) -> tuple[Image.Image, str]:
        """Copy or convert an image file; return the image and its path within the folder."""
        picture = images.open_picture(file)
        if not picture.plain:
            return picture.image, self._save(images.to_rgb(picture.image), f"images/{image_id}.png")
        ending = "jpg" if picture.format == "JPEG" else "png"
        path = f"images/{image_id}.{ending}"
        source = Path(file) if isinstance(file, str) else file
        (self._folder / path).write_bytes(source.read_bytes())
        return picture.image, path

    def pixels(self, image_id: str) -> np.ndarray:
        """An image that was added: uint8 (H, W, 3); the latest one is at hand, any other is read again."""
        latest, opened = self._latest
        if opened is None or latest != image_id:
            return images.read_image(self._folder / self._images[image_id][0])
        return images.to_rgb(opened)

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(height, width) of an image that was added, pixels, upright."""
        return self._images[image_id][1:]

    def add_sample(self, *, image_id: str, target: str, mask: np.ndarray, split: str | None = None,
                   group: str | None = None, prompts: Mapping[str, str | list[str]] | None = None,
                   attributes: dict[str, Any] | None = None) -> str:
        """Store one target of an image that was added before; return its sample id.

        Args:
            mask: bool (H, W) of the image's size; may be empty.
            split: None where `splits.split_groups` decides once every group is known.
            group: None for the image itself.
            prompts: level -> prompt or prompts; None for p0 "" and p1 the target's name.

        Raises:
            UserError: unknown image, taken sample id, mask of another size or type, no or malformed prompts, text
                that UTF-8 has no letters for.
        """
        sample_id = f"{self.dataset}/{image_id}/{target}"
        if image_id not in self._images:
            raise UserError(f"sample {sample_id!r}: image {image_id!r} was not added; add the image first.")
        image, height, width = self._images[image_id]
        if mask.dtype != bool or mask.shape != (height, width):
            raise UserError(f"sample {sample_id!r}: the mask is {mask.dtype} of shape {mask.shape} but its "
                            f"image has {height} rows and {width} columns; give a bool mask of that size.")
        if not target.strip():
            raise UserError(f"sample {sample_id!r}: the target has no name; name it.")
        path = f"masks/{mask_name(image_id, target)}"
        if path in self._masks:
            raise UserError(f"sample id {sample_id!r} occurs twice, or another target of the image differs from it by "
                            "punctuation alone; give each target of an image a name of its own.")
        self._masks.add(path)
        self._save(mask.astype(np.uint8) * 255, path)
        group = image_id if group is None else group
        cleaned = clean_prompts(prompts, target, f"sample {sample_id!r}")
        x0, y0, x1, y1 = _bounding_box(mask)
        if split is None:
            self._unsplit[group] += 1
        self._add_row({
            "dataset": self.dataset, "sample_id": sample_id, "image_id": image_id, "group": group,
            "split": split, "target": target,
            "image": image, "mask": path, "height": height, "width": width,
            "x0": x0, "y0": y0, "x1": x1, "y1": y1, "area_fraction": float(mask.mean()),
            "attributes": attributes or {}, "prompts": cleaned,
        })
        return sample_id

    def take(self, sample: Sample, folder: Path) -> None:
        """Store a sample of another prepared dataset under its own id; its files are linked, or copied where no link
        can be made. Its group gets the name of its dataset, since two datasets may number their patients alike.

        Args:
            folder: the prepared dataset that the sample's files lie in.

        Raises:
            UserError: it is there already, its image's name is another image's, or a file is absent.
        """
        image = f"images/{sample.dataset}/{Path(sample.image).name}"
        mask = f"masks/{sample.dataset}/{Path(sample.mask).name}"
        linked = self._linked.setdefault(image, folder / sample.image)
        if mask in self._masks or linked != folder / sample.image:
            raise UserError(f"dataset {self.dataset}: sample {sample.sample_id!r} of {folder} has the files of another "
                            "sample; prepare one of the sets under a name of its own.")
        self._masks.add(mask)
        for path, source in ((image, folder / sample.image), (mask, folder / sample.mask)):
            if not (self._folder / path).exists():
                _link(source, self._folder / path)
        row = {name: getattr(sample, name) for name in COLUMNS if hasattr(sample, name)}
        row |= dict(zip(("x0", "y0", "x1", "y1"), sample.bbox, strict=True))
        group = f"{sample.dataset}/{sample.group}"
        self._add_row(row | {"image": image, "mask": mask, "group": group})

    def _add_row(self, row: dict[str, Any]) -> None:
        row = row | {"attributes": json.dumps(row["attributes"], ensure_ascii=False, sort_keys=True),
                     "prompts": json.dumps(row["prompts"], ensure_ascii=False)}
        for name, value in row.items():
            if isinstance(value, str) and not is_text(value):
                raise UserError(f"sample {row['sample_id']!r}: its {name} cannot be written as UTF-8; "
                                "correct the text.")
        self._rows.append(row)
        if len(self._rows) >= _ROWS_PER_GROUP:
            self._flush()

    def _save(self, pixels: np.ndarray, path: str) -> str:
        Image.fromarray(pixels).save(self._folder / path, compress_level=3)
        return path

    def _flush(self) -> None:
        import pyarrow

        self._table.write_table(pyarrow.Table.from_pylist(self._rows, schema=_schema()))
        self._rows.clear()

    def _assign_splits(self) -> None:
        """Give the rows without a split that of their group, a group of rows in memory at a time."""
        import pyarrow.parquet

        splits = split_groups(self._unsplit)
        with contextlib.ExitStack() as files:
            partial = files.enter_context(atomic_path(self._folder / _TABLE))
            written = files.enter_context(pyarrow.parquet.ParquetFile(self._folder / _TABLE, pre_buffer=False))
            table = files.enter_context(pyarrow.parquet.ParquetWriter(partial, _schema()))
            for batch in written.iter_batches(_ROWS_PER_GROUP, use_threads=False):
                rows = batch.to_pylist()
                for row in rows:
                    if row["split"] is None:
                        row["split"] = splits[row["group"]]
                table.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()))


class Status(TypedDict):
    """What `status.json` says: whether a stage made its output, and if not, why."""

    status: Literal["ok", "not_run"]
    reason: str | None


class PreparedDataset:
    """A prepared dataset on disk.

    Attributes:
        path: its folder.
        status: whether it could be made.
        samples: every sample in stored order; empty where the status is not_run.
    """

    def __init__(self, path: Path, status: Status, samples: list[Sample]) -> None:
        self.path = path
        self.status = status
        self.samples = samples

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read the rows of a prepared dataset; pixels are read on demand.

        Raises:
            UserError: the folder, its status or its samples are absent, unreadable or malformed, or a sample
                id occurs twice.
        """
        path = Path(path)
        reason = not_run_reason(path)
        status: Status = {"status": "not_run" if reason else "ok", "reason": reason}
        return cls(path, status, [] if reason else list(read_samples(path)))

    def split(self, name: str) -> list[Sample]:
        """The samples of one split in stored order; an empty list where the dataset has no such split."""
        return [sample for sample in self.samples if sample.split == name]

    def image(self, sample: Sample) -> np.ndarray:
        """The sample's image: uint8 (height, width, 3).

        Raises:
            UserError: the file is absent or damaged.
        """
        return images.read_image(self.path / sample.image)

    def mask(self, sample: Sample) -> np.ndarray:
        """The sample's mask: bool (height, width).

        Raises:
            UserError: the file is absent or damaged, or is not of the size that it was prepared with.
        """
        mask = images.read_mask(self.path / sample.mask, threshold=128, unite=True)
        if mask.shape != (sample.height, sample.width):
            raise UserError(f"{self.path / sample.mask} is {mask.shape[1]}x{mask.shape[0]} pixels instead of "
                            f"{sample.width}x{sample.height}; run the prepare stage again.")
        return mask

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of the samples' table, images and masks: a key for caches.

        Raises:
            UserError: a file is absent.
        """
        digest = hashlib.sha256()
        files = {path for sample in self.samples for path in (sample.image, sample.mask)}
        for name in (_TABLE, *sorted(files)):
            digest.update(name.encode())
            digest.update(bytes.fromhex(sha256_file(self.path / name)))
        return digest.hexdigest()


def is_text(text: str) -> bool:
    """Whether a text can be stored as UTF-8: half of a surrogate pair, or a file name in another encoding, cannot."""
    return not re.search("[\ud800-\udfff]", text)


def _is_file_stem(text: str) -> bool:
    """Whether a text can be the name of a file without its ending."""
    return bool(text) and text == text.strip() and is_text(text) and not any(mark in text for mark in "/\\\0")


def prompt_of(sample: Sample, level: str, rng: random.Random | None = None) -> str:
    """One prompt of a sample.

    Args:
        level: p0 to p9 or `sentences`; `fullest` for the highest of them that the sample has, and of its sentences
            always the first; `random` for any of its sentences, or, where it has none, for one of the levels drawn
            uniformly, p0 excluded; `unique`. A level that the sample lacks falls to the highest one below it (below
            everything lies the empty prompt), a lacking `unique` to the fullest.
        rng: draws among several prompts of the level; without it the first one. Needed for `random`.

    Raises:
        UserError: an unknown level.
    """
    ranked = [name for name in sample.prompts if name != UNIQUE]
    if level == "random":
        if rng is None:
            raise ValueError("prompt_of(level='random') needs an rng.")
        levels = [name for name in ranked if name != "p0"] or ranked
        level = SENTENCES if SENTENCES in ranked else rng.choice(levels)
    elif level == "fullest" or (level == UNIQUE and UNIQUE not in sample.prompts):
        level = ranked[-1]
        rng = None if level == SENTENCES else rng
    if level in sample.prompts:
        prompts = sample.prompts[level]
    elif level in LEVELS:
        below = [name for name in ranked if LEVELS.index(name) < LEVELS.index(level)]
        prompts = sample.prompts[below[-1]] if below else [""]
    else:
        raise UserError(f"prompt level {level!r} is unknown; "
                        f"use {', '.join(LEVELS)}, {UNIQUE}, fullest or random.")
    return rng.choice(prompts) if rng else prompts[0]


def clean_prompts(prompts: Mapping[str, str | list[str]] | None, target: str,
                  where: str) -> dict[str, list[str]]:
    """Prompts in the stored form: levels ascending, each a list of at least one string.

    Args:
        prompts: level -> prompt or prompts; None for p0 "" and p1 the target's name.
        where: names the sample in messages, e.g. "anns/test.json, row 3".

    Raises:
        UserError: no level, an unknown level, an empty list, or a prompt that is no string.
    """
    if prompts is None:
        return {"p0": [""], "p1": [target]}
    if not isinstance(prompts, dict):
        raise UserError(f"{where}: `prompts` is {prompts!r}; give a map from level (p0 to p9) to prompts.")
    order = (*LEVELS, UNIQUE)
    for level, texts in prompts.items():
        if level not in order:
            raise UserError(f"{where}: prompt level {level!r} is unknown; use {', '.join(order)}.")
        if texts == []:
            raise UserError(f"{where}: prompt {level} is an empty list; give a prompt or leave {level} out.")
        listed = texts if isinstance(texts, list) else [texts]
        if not all(isinstance(text, str) for text in listed):
            raise UserError(f"{where}: prompt {level} is {texts!r}; give a string or a list of strings.")
    if not set(prompts) & set(LEVELS):
        raise UserError(f"{where}: there is no prompt; give at least p0, or leave `prompts` out.")
    cleaned: dict[str, list[str]] = {}
    for level in order:
        if level in prompts:
            texts = prompts[level]
            cleaned[level] = [texts] if isinstance(texts, str) else texts
    return cleaned


def read_samples(path: Path | str) -> Iterator[Sample]:
    """The samples of a prepared dataset one by one, in stored order, with a group of rows in memory at a time.

    Raises:
        UserError: the table of samples is absent, unreadable or malformed, or a sample id occurs twice.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path) / _TABLE
    seen: set[str] = set()
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise UserError(f"{path} lacks the column {missing[0]!r}; run the prepare stage again.")
            for batch in file.iter_batches(_ROWS_PER_GROUP, columns=list(COLUMNS), use_threads=False):
                for row in batch.to_pylist():
                    yield _checked(row, path, seen)
                    seen.add(row["sample_id"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run the prepare stage again.") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the prepare stage again.") from None


def _checked(row: dict[str, Any], path: Path, seen: set[str]) -> Sample:
    """The sample of a row of the table at `path`, unless one of the same id was `seen` or the row is malformed."""
    sample_id = row["sample_id"]
    if sample_id in seen:
        raise UserError(f"{path}, row {len(seen)}: sample id {sample_id!r} occurs twice; run the prepare stage again.")
    try:
        return _sample(row)
    except (TypeError, ValueError, AttributeError):
        raise UserError(f"{path}, row {len(seen)} (sample id {sample_id!r}) is not what a prepare stage writes; run it "
                        "again.") from None


def read_splits(path: Path | str) -> Counter[str]:
    """How many samples each split of a prepared dataset has.

    Raises:
        UserError: the table of samples is missing or unreadable.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(path) / _TABLE
    try:
        return Counter(pyarrow.parquet.read_table(path, columns=["split"])["split"].to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the prepare stage again.") from None


def _sample(row: dict[str, Any]) -> Sample:
    """A sample of a stored row; texts that many samples share are one object."""
    shared = {name: sys.intern(row[name]) for name in _SHARED}
    are_numbers = all(isinstance(row[name], int) for name in _INTEGERS)
    if not are_numbers or not _parsed(row["prompts"]):
        raise ValueError("a size is no number, or there is no prompt")
    return Sample(**shared, sample_id=row["sample_id"], mask=row["mask"], height=row["height"], width=row["width"],
                  bbox=(row["x0"], row["y0"], row["x1"], row["y1"]), area_fraction=row["area_fraction"],
                  attributes=_parsed(row["attributes"]), prompts=_parsed(row["prompts"]))


@functools.lru_cache(maxsize=64)  # for one prompt map on every row, or one a target
def _parsed(text: str) -> dict[str, Any]:
    """A stored map; its texts are one object with their equals."""
    return {sys.intern(name): _interned(value) for name, value in json.loads(text).items()}


def _interned(value: Any) -> Any:
    if isinstance(value, list):
        return [_interned(item) for item in value]
    return sys.intern(value) if isinstance(value, str) else value


def _schema() -> Any:
    import pyarrow

    kinds = {name: pyarrow.int32() for name in _INTEGERS} | {"area_fraction": pyarrow.float64()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; run the prepare stage again.") from None
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def mask_name(image_id: str, target: str) -> str:
    """Name of a target's mask file: letters and digits of any script stay, the rest of the target becomes `_`.

    Raises:
        UserError: it is longer than a file's name may be.
    """
    letters = (mark if mark.isalnum() or mark in "-." else "_" for mark in target)
    name = f"{image_id}__{''.join(letters)}.png"
    if len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UserError(f"image {_shortened(image_id)} and its target {_shortened(target)} together have a name longer "
                        f"than the {LONGEST_NAME} bytes that a file's name may have; name them shorter.")
    return name


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
