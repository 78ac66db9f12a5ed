"""Masks from a model: of pictures in memory, and of files for the command line."""

import hashlib
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image

from featherseg import checkpoint
from featherseg.checkpoint import load_model
from featherseg.config import Run, plan_path, read_run
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, not_run_reason, refuse_own_source
from featherseg.core.paths import RUNS
from featherseg.core.paths import trained as trained_folder
from featherseg.core.registry import unknown
from featherseg.core.terminal import first_names
from featherseg.data.images import EXTENSIONS, open_picture, read_image
from featherseg.data.prepared import is_text
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures
from featherseg.models.readings import Readings, losses
from featherseg.tasks.objective import parts
from featherseg.tasks.segmentation.config import scoring_of
from featherseg.tasks.segmentation.features import by_length, distinct

IMAGES_AT_ONCE = 8
# numbers of the widest towers' states; more at once is slower on a CPU: states fall out of its cache, and short
# prompts are padded to long ones
STATES_ON_CPU, PROMPTS_ON_CPU = 1040 * 768, 4 * 512
COLOUR = (255, 220, 0)


def predict_probabilities(model: SegmentationModel, images: Sequence[np.ndarray], prompts: Sequence[str],
                          batch_size: int = 32) -> list[np.ndarray]:
    """Probability maps of images, each with its prompt, at the images' own resolution.

    Equal images are encoded once, and so are equal prompts: twelve prompts on one image cost one pass of the
    vision tower, unless the towers exchange on their way.

    Args:
        model: in eval mode.
        images: uint8 (H, W, 3) of any sizes.
        prompts: one for each image.
        batch_size: how many are encoded or decoded at once, on a CPU at most.

    Returns:
        float32 (H, W) in [0, 1] for each image.

    Example:
        left, right = predict_probabilities(model, [image, image], ["left lung", "right lung"])
    """
    return list(iterate_probabilities(model, images, prompts, batch_size))


def iterate_probabilities(model: SegmentationModel, images: Sequence[np.ndarray], prompts: Sequence[str],
                          batch_size: int = 32) -> Iterator[np.ndarray]:
    """`predict_probabilities` one by one, for when the maps together would not fit into memory."""
    images = list(images)
    keys = _picture_of(images)
    asked = [Asked(key, prompt, image.shape[:2]) for key, prompt, image in zip(keys, prompts, images, strict=True)]
    pictures = list(dict(zip(keys, images, strict=True)).values())
    return segment(model, Pictures(model, pictures, batch_size), asked, batch_size)


@dataclass(frozen=True)
class Asked:
    """One map that is asked for: the key of its image, its prompt, and the map's (H, W)."""

    key: int
    prompt: str
    size: tuple[int, int]


class Source(Protocol):
    """Where the features of images, by their keys, and of prompts come from, on the model's device."""

    def images(self, keys: Sequence[int]) -> ImageFeatures:
        """Features of images: a batch of len(keys)."""

    def texts(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts: a batch of len(prompts)."""

    def pairs(self, keys: Sequence[int], prompts: Sequence[str]) -> tuple[ImageFeatures, TextFeatures]:
        """Features of images, each with its prompt: two batches of len(keys)."""


class Pictures:
    """Pictures in memory as a `Source`; the key of each is its place.

    Args:
        model: in eval mode, on the device where it is used.
        pictures: uint8 (H, W, 3) of any sizes.
        batch_size: how many are encoded at once.
    """

    def __init__(self, model: SegmentationModel, pictures: Iterable[np.ndarray], batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size
        self._device = next(model.parameters()).device
        resized = [torch.tensor(model.resize.image(picture)) for picture in pictures]
        self._pixels = torch.stack(resized).to(self._device)

    def images(self, keys: Sequence[int]) -> ImageFeatures:
        """Features of the pictures of these keys."""
        batches = map(self._model.normalise, self._pixels[list(keys)].split(self._batch_size))
        return ImageFeatures.concat(list(map(self._model.encode_image, batches)))

    def texts(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts."""
        return self._model.encode_text(self._model.tokenize(prompts).to(self._device))

    def pairs(self, keys: Sequence[int], prompts: Sequence[str]) -> tuple[ImageFeatures, TextFeatures]:
        """Features of pictures, each with its prompt, of towers that exchange on their way."""
        tokens = self._model.tokenize(prompts).to(self._device)
        return self._model.encode(self._model.normalise(self._pixels[list(keys)]), tokens)


@torch.inference_mode()
def segment(model: SegmentationModel, source: Source, asked: Sequence[Asked], batch_size: int,
            images_at_once: int | None = None) -> Iterator[np.ndarray]:
    """Probability maps, float32 (H, W) at the images' own resolution, in the order in which they are asked for.

    Each prompt and each image is encoded once, however many maps share it, or each pair of them where the towers
    exchange on their way; what is encoded or decoded together depends on what is asked for alone.

    Args:
        model: in eval mode.
        source: of the features.
        asked: where `images_at_once` is given, those of one image stand together.
        batch_size: how many are encoded or decoded at once, on a CPU at most.
        images_at_once: of how many images features are in memory; None for all.
    """
    if model.joint:
        for batch in parts(asked, batch_size):
            keys = [one.key for one in batch]
            features = source.pairs(keys, [one.prompt for one in batch])
            logits = model.decode(*features)
            yield from model.original_resolution(logits, [one.size for one in batch])
        return
    device = next(model.parameters()).device
    prompts = [one.prompt for one in asked]
    text, row_of = encode_prompts(prompts, source.texts, device, batch_size, model.text.dim)
    for group in _by_images(asked, images_at_once):
        keys, places = distinct([one.key for one in group])
        queries = [Query(place, row_of[one.prompt], one.size) for place, one in zip(places, group, strict=True)]
        yield from decode_queries(model, source.images(keys), text, queries, batch_size)


def _by_images(asked: Sequence[Asked], images_at_once: int | None) -> Iterator[list[Asked]]:
    """What is asked of at most so many images, image by image; None: of all of them, in any order."""
    if images_at_once is None:
        yield list(asked)
        return
    by_image = [list(of_image) for _, of_image in itertools.groupby(asked, lambda one: one.key)]
    for group in parts(by_image, images_at_once):
        yield list(itertools.chain(*group))


@dataclass(frozen=True)
class Query:
    """One map that is decoded: a row of image features, one of text features, and the map's (H, W)."""

    image: int
    text: int
    size: tuple[int, int]


def encode_prompts(prompts: Iterable[str], encode: Callable[[list[str]], TextFeatures],
                   device: torch.device, batch_size: int, width: int) -> tuple[TextFeatures, dict[str, int]]:
    """Features of the distinct prompts, and for each prompt its row of them.

    Args:
        prompts: at least one; which are encoded together depends on these alone.
        encode: turns some prompts into features, on `device`.
        batch_size: how many are encoded at once, on a CPU at most.
        width: of the text tower's states.
    """
    ordered = by_length(prompts)
    size = batch_size
    if device.type == "cpu":
        size = min(batch_size, max(1, PROMPTS_ON_CPU // max(width, 1)))
    text = TextFeatures.concat([encode(list(batch)) for batch in parts(ordered, size)])
    return text, {prompt: row for row, prompt in enumerate(ordered)}


def decode_queries(model: SegmentationModel, image: ImageFeatures, text: TextFeatures,
                   queries: Sequence[Query], batch_size: int) -> Iterator[np.ndarray]:
    """Probability maps, float32 (H, W), of queries, in their order.

    Args:
        model: what the features come from.
        image, text: features that the queries name rows of.
        queries: which of them are decoded together depends on them alone.
        batch_size: how many are decoded at once, on a CPU at most.
    """
    states = image.taps[0]
    size = batch_size
    if states.device.type == "cpu":
        size = min(batch_size, max(1, STATES_ON_CPU // states.shape[1:].numel()))
    for batch in parts(queries, size):
        rows = [query.image for query in batch]
        if len(set(rows)) == 1:  # what the decoder does to the image alone is then done once
            rows = rows[:1]
        seen = image.index(torch.tensor(rows))
        told = text.index(torch.tensor([query.text for query in batch]))
        yield from model.original_resolution(model.decode(seen, told), [query.size for query in batch])


def predict_files(run: str, images: Sequence[Path], prompts: Sequence[str], out: Path,
                  overlay: Path | None = None, threshold: float | None = None) -> None:
    """Segment picture files with a trained run and write 0/255 PNG masks of the pictures' size.

    Args:
        run: a planned run, as `<run>` or `<study>/<run>`, in the working directory's `runs/`.
        images: files, or folders of files.
        prompts: one for all images, one for each, or several for one image.
        out: a file for one mask; a folder for several, named `<image>.png`, or `<image>_<prompt>.png` where
            an image has several prompts.
        overlay: where the pictures with the masks drawn in are written, named like `out`.
        threshold: probability above which a pixel belongs to the mask; None for the run's own.

    Raises:
        UserError: an unknown run or one that was not trained, images that are absent or unreadable, results
            that would overwrite each other or an image; all of it before the first mask is written. Or a map that is
            no map (`SegmentationModel.original_resolution`).
    """
    resolved, train_dir = find_run(run)
    if threshold is None:
        threshold = scoring_of(resolved).threshold
    if not 0 < threshold < 1:
        raise UserError(f"the threshold is {threshold}; give a probability between 0 and 1.")
    queries = _queries(_image_files(images), prompts)
    masks = _output_files(queries, out)
    overlays = _output_files(queries, overlay) if overlay else []
    _refuse_overwriting([*masks, *overlays], queries)
    for path in [*masks, *overlays]:
        refuse_own_source(path, *(image for image in images if image.is_dir()))
    for path in {query.image for query in queries}:
        open_picture(path)
    model = cast(SegmentationModel, load_model(resolved, train_dir))
    for sentence in losses(Readings(model.read, prompts).count(prompts)):
        print(sentence, file=sys.stderr)
    for places in parts(range(len(queries)), IMAGES_AT_ONCE):
        batch = [queries[place] for place in places]
        pictures = {query.image: read_image(query.image) for query in batch}
        given = [pictures[query.image] for query in batch]
        probabilities = iterate_probabilities(model, given, [query.prompt for query in batch])
        for place, picture, probability in zip(places, given, probabilities, strict=True):
            mask = probability > threshold
            _write_png(masks[place], mask.astype(np.uint8) * 255)
            if overlays:
                _write_png(overlays[place], draw_mask(picture, mask))


def find_run(name: str) -> tuple[Run, Path]:
    """A run by `<run>` or `<study>/<run>`, and the folder of its training.

    A run is what a study's plan holds, and what was trained and is still on disk although the study no longer lists
    it; what its checkpoint names is then the run, with evaluation's defaults.

    Raises:
        UserError: no such run (the message lists those that exist), one of several studies, or one that was
            not run, with the reason.
    """
    planned = {(path.parents[1].name, path.stem) for path in RUNS.glob("*/plan/*.yaml")
               if not path.stem.endswith(".evaluate")}
    checkpoints = RUNS.glob("*/train/*/checkpoint.safetensors")
    trained = {(path.parents[2].name, path.parent.name) for path in checkpoints}
    runs = sorted(planned | trained)
    matching = [(study, run) for study, run in runs if name in (run, f"{study}/{run}")]
    if not runs:
        raise UserError("the folder runs/ holds no run; go to the project's folder, or make runs: dvc repro.")
    if not matching:
        raise unknown("run", name, sorted({run for _, run in runs}))
    if len(matching) > 1:
        raise UserError(f"run '{name}' belongs to several studies; name one of {', '.join(map('/'.join, matching))}.")
    [(study, stem)] = matching
    train_dir = trained_folder(study, stem)
    if (study, stem) not in planned:
        print(f"run '{name}' is no longer in the study '{study}'; it is read as its checkpoint describes it",
              file=sys.stderr)
        return checkpoint.trained_run(train_dir / "checkpoint.safetensors"), train_dir
    run = read_run(plan_path(study, stem))
    reason = run.not_run or ((train_dir / "status.json").is_file() and not_run_reason(train_dir))
    if reason:
        raise UserError(f"run '{name}' was not made here: {reason}")
    return run, train_dir


def draw_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, 3) with a mask, bool (H, W), tinted and outlined."""
    from scipy.ndimage import binary_dilation

    drawn = image.copy()
    drawn[mask] = (0.75 * image[mask] + 0.25 * np.array(COLOUR)).astype(np.uint8)
    drawn[binary_dilation(mask, iterations=max(1, min(mask.shape) // 150)) & ~mask] = COLOUR
    return drawn


@dataclass(frozen=True)
class _Query:
    """One mask that is asked for, and the stem of its file."""

    image: Path
    prompt: str
    stem: str


def _picture_of(images: list[np.ndarray]) -> list[int]:
    """For each image its place among those that differ, in order of appearance."""
    objects = {id(image): image for image in images}
    digests = {key: _digest(image) for key, image in objects.items()}
    return distinct([digests[id(image)] for image in images])[1]


def _digest(image: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    """What tells an image from others: its shape, and a digest of its pixels."""
    return image.shape, hashlib.sha256(image.tobytes()).digest()


def _image_files(paths: Sequence[Path]) -> list[Path]:
    files = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; name an image or a folder of images.")
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        images = [file for file in inside if file.suffix.lower() in EXTENSIONS and file.is_file()]
        if not images:
            raise UserError(f"the folder {path} holds no images; known endings are {', '.join(EXTENSIONS)}, and "
                            "folders in it are not searched.")
        taken = set(images)
        if others := [file.name for file in inside if file not in taken]:
            print(f"{path}: {len(images)} images are taken; folders and other files are skipped: "
                  f"{first_names(others)}", file=sys.stderr)
        files += images
    return files


def _queries(images: list[Path], prompts: Sequence[str]) -> list[_Query]:
    for prompt in prompts:
        if not is_text(prompt):
            raise UserError(f"the prompt {prompt!r} is not in UTF-8; write it in a terminal that is.")
    if len(images) == 1:
        images = images * len(prompts)
    elif len(prompts) == 1:
        prompts = list(prompts) * len(images)
    if len(images) != len(prompts):
        raise UserError(f"there are {len(images)} images and {len(prompts)} prompts; "
                        "give one prompt for all images, one for each, or one image.")
    names = _prompt_names(prompts)
    queries = []
    for image, prompt in zip(images, prompts, strict=True):
        stem = image.stem if images.count(image) == 1 else f"{image.stem}_{names[prompt]}"
        queries.append(_Query(image, prompt, stem))
    return queries


def _prompt_names(prompts: Sequence[str]) -> dict[str, str]:
    """Each prompt as part of a file name; those whose letters are alike that far are numbered."""
    names: dict[str, str] = {}
    for prompt in dict.fromkeys(prompts):
        slug = _slug(prompt)
        alike = sum(_slug(other) == slug for other in names)
        names[prompt] = f"{slug}-{alike + 1}" if alike else slug
    return names


def _slug(prompt: str) -> str:
    """A prompt as part of a file name: letters and digits of any script, at most 60."""
    return re.sub(r"\W+", "-", prompt).strip("-")[:60] or "empty"


def _output_files(queries: list[_Query], out: Path) -> list[Path]:
    if not out.is_dir() and out.suffix.lower() in EXTENSIONS:
        if out.suffix.lower() != ".png":
            raise UserError(f"{out}: results are written as PNG; name a .png file or a folder.")
        if len(queries) > 1:
            raise UserError(f"{out} is one file, but there are {len(queries)} results; name a folder.")
        return [out]
    if out.is_file():
        raise UserError(f"{out} is a file, not a folder; name a .png file or a folder.")
    return [out / f"{query.stem}.png" for query in queries]


def _refuse_overwriting(outputs: list[Path], queries: list[_Query]) -> None:
    taken = {query.image.resolve() for query in queries}
    for path in outputs:
        if path.resolve() in taken:
            raise UserError(f"{path} would be written over an image or another result; "
                            "choose another folder, or rename one of the images.")
        taken.add(path.resolve())


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")
