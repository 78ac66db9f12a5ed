"""Masks from a model: of pictures in memory, and of files for the command line."""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from featherseg import adapters, checkpoint, models
from featherseg.config import Run, plan_path, read_run
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, not_run_reason, refuse_own_source
from featherseg.core.registry import unknown
from featherseg.data.images import EXTENSIONS, open_picture, read_image
from featherseg.data.prepared import is_text
from featherseg.models.base import ImageFeatures, SegmentationModel, TextFeatures
from featherseg.models.readings import Readings, losses
from featherseg.tasks.segmentation.features import batches, by_length, distinct

IMAGES_AT_ONCE = 8
# numbers of the widest towers' states; more at once is slower on a CPU: states fall out of its cache, and short
# prompts are padded to long ones
STATES_ON_CPU, PROMPTS_ON_CPU = 1040 * 768, 4 * 512
COLOUR = (255, 220, 0)
_NAMED = 3  # of what is passed over


def load_model(run: Run, train_dir: Path | str) -> SegmentationModel:
    """A run's model as it was trained, in eval mode, on the accelerator where there is one.

    Args:
        run: the resolved run.
        train_dir: its folder with `checkpoint.safetensors`; not read where nothing is trained.

    Raises:
        UserError: weights or checkpoint are absent, unreadable or those of another run, or nothing was trained
            although the base weights lack a part of the model.
    """
    model = adapters.apply(models.build(run.model, run.seed), run.adapter, run.seed)
    if run.train is None and model.untrained:
        more = " and more" if len(model.untrained) > 1 else ""
        raise UserError(f"run '{run.name}' trains nothing, but {run.model.weights} does not hold {model.untrained[0]}"
                        f"{more}, which would stay random; train the run, or take weights of the whole model.")
    if run.train is not None:
        checkpoint.load(Path(train_dir) / "checkpoint.safetensors", model, run)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


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


@torch.inference_mode()
def iterate_probabilities(model: SegmentationModel, images: Sequence[np.ndarray], prompts: Sequence[str],
                          batch_size: int = 32) -> Iterator[np.ndarray]:
    """`predict_probabilities` one by one, for when the maps together would not fit into memory."""
    device = next(model.parameters()).device
    images = list(images)
    picture_of = _picture_of(images)
    pictures = dict(zip(picture_of, images, strict=True)).values()
    pixels = torch.stack([torch.from_numpy(model.resize.image(picture)) for picture in pictures]).to(device)
    if model.joint:
        for some in batches(range(len(images)), batch_size):
            tokens = model.tokenize([prompts[k] for k in some]).to(device)
            features = model.encode(model.normalise(pixels[[picture_of[k] for k in some]]), tokens)
            yield from model.original_resolution(model.decode(*features), [images[k].shape[:2] for k in some])
        return
    vision = ImageFeatures.concat(
        [model.encode_image(model.normalise(some)) for some in pixels.split(batch_size)])
    text, text_of = encode_prompts(
        prompts, lambda some: model.encode_text(model.tokenize(some).to(device)), device, batch_size, model.text.dim)
    queries = [Query(picture, text_of[prompt], image.shape[:2])
               for picture, prompt, image in zip(picture_of, prompts, images, strict=True)]
    yield from decode_queries(model, vision, text, queries, batch_size)


@dataclass(frozen=True)
class Query:
    """One map that is asked for: a row of image features, one of text features, and the map's (H, W)."""

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
    size = min(batch_size, max(1, PROMPTS_ON_CPU // max(width, 1))) if device.type == "cpu" else batch_size
    text = TextFeatures.concat([encode(some) for some in batches(ordered, size)])
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
    places = states.shape[1] if states.ndim == 3 else states.shape[2:].numel()
    on_cpu = min(batch_size, max(1, STATES_ON_CPU // (places * states.shape[-1 if states.ndim == 3 else 1])))
    for some in batches(queries, on_cpu if states.device.type == "cpu" else batch_size):
        rows = [query.image for query in some]
        shared = len(set(rows)) == 1  # what the decoder does to the image alone is then done once
        logits = model.decode(image.index(torch.tensor(rows[:1] if shared else rows)),
                              text.index(torch.tensor([query.text for query in some])))
        yield from model.original_resolution(logits, [query.size for query in some])


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
        threshold = resolved.evaluate.threshold
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
    model = load_model(resolved, train_dir)
    for sentence in losses(Readings(model.read, prompts).count(prompts)):
        print(sentence, file=sys.stderr)
    for first in range(0, len(queries), IMAGES_AT_ONCE):
        rows = slice(first, first + IMAGES_AT_ONCE)
        pictures = {query.image: read_image(query.image) for query in queries[rows]}
        given = [pictures[query.image] for query in queries[rows]]
        found = iterate_probabilities(model, given, [query.prompt for query in queries[rows]])
        for k, (picture, probability) in enumerate(zip(given, found, strict=True), start=first):
            mask = probability > threshold
            _write_png(masks[k], mask.astype(np.uint8) * 255)
            if overlays:
                _write_png(overlays[k], draw_mask(picture, mask))


def find_run(name: str) -> tuple[Run, Path]:
    """A run by `<run>` or `<study>/<run>`, and the folder of its training.

    A run is what a study's plan holds, and what was trained and is still on disk although the study no longer lists
    it; what its checkpoint names is then the run, with evaluation's defaults.

    Raises:
        UserError: no such run (the message lists those that exist), one of several studies, or one that was
            not run, with the reason.
    """
    plans = {path for path in Path("runs").glob("*/plan/*.yaml") if not path.stem.endswith(".evaluate")}
    planned = {(path.parent.parent.name, path.stem) for path in plans}
    trained = {(path.parent.parent.parent.name, path.parent.name)
               for path in Path("runs").glob("*/train/*/checkpoint.safetensors")}
    runs = sorted(planned | trained)
    matching = [(study, run) for study, run in runs if name in (run, f"{study}/{run}")]
    if not runs:
        raise UserError("the folder runs/ holds no run; go to the project's folder, or make runs: dvc repro.")
    if not matching:
        raise unknown("run", name, sorted({run for _, run in runs}))
    if len(matching) > 1:
        raise UserError(f"run '{name}' belongs to several studies; name one of {', '.join(map('/'.join, matching))}.")
    [(study, stem)] = matching
    train_dir = Path("runs") / study / "train" / stem
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
    digests = {key: (image.shape, hashlib.sha256(image.tobytes()).digest()) for key, image in objects.items()}
    return distinct([digests[id(image)] for image in images])[1]


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
        if others := [file.name for file in inside if file not in set(images)]:
            more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
            print(f"{path}: {len(images)} images are taken; passed over are folders and other files: "
                  f"{', '.join(others[:_NAMED])}{more}", file=sys.stderr)
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
    return [_Query(image, prompt, image.stem if images.count(image) == 1 else f"{image.stem}_{names[prompt]}")
            for image, prompt in zip(images, prompts, strict=True)]


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
