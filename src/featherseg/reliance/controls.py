"""Models whose reliance is known because they are made from the truth: what the instruments must find.

They are `Segment`s, need no training, and answer for any dataset, so that they stand beside a model as a scale. An
image is recognised by its bytes, so an image that was changed in any way shows them nothing.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from featherseg.data.prepared import PreparedDataset, Sample
from featherseg.tasks.segmentation.trials import own_prompt

IMAGE_ONLY, LANGUAGE_ONLY, BOTH, NEITHER = "image only", "language only", "image and language", "neither"
TEXT_BLIND, IMAGE_BLIND, ORACLE, RANDOM = "text-blind", "image-blind", "oracle", "random"
MUST_BE = {TEXT_BLIND: IMAGE_ONLY, IMAGE_BLIND: LANGUAGE_ONLY, ORACLE: BOTH, RANDOM: NEITHER}
MEANING = {
    TEXT_BLIND: "segments every structure of the image, whatever the prompt says",
    IMAGE_BLIND: "segments where structures with the most similar prompts lie, whatever the image shows",
    ORACLE: "segments the structure of the image that fits the prompt best, and all where none is preferred",
    RANDOM: "segments a disc at a random place",
}
_COARSE = 48  # pixels of a side of an average mask
_FEW = 5


class Controls:
    """The four controls of a dataset.

    Args:
        dataset: where the images and the true masks are.
        samples: those that the controls know.
        policy, seed: decide the own prompts, as in the trials.
    """

    def __init__(self, dataset: PreparedDataset, samples: Sequence[Sample], policy: str, seed: int = 0) -> None:
        self._of_image: dict[bytes, list[tuple[Sample, set]]] = {}
        self._known: list[tuple[Sample, set]] = []
        by_image: dict[str, list[tuple[Sample, set]]] = {}
        for sample in samples:
            by_image.setdefault(sample.image, []).append((sample, _features(own_prompt(sample, policy, seed))))
        for structures in by_image.values():
            self._of_image.setdefault(_digest(dataset.image(structures[0][0])), structures)
            self._known += structures
        of_path = {sample.mask: sample for sample, _ in self._known}
        self._mask = lru_cache(maxsize=16)(lambda path: dataset.mask(of_path[path]))
        self._coarse = lru_cache(maxsize=None)(lambda path: _reduced(dataset.mask(of_path[path])))

    def segments(self) -> dict:
        """The controls by name."""
        return {TEXT_BLIND: self.text_blind, IMAGE_BLIND: self.image_blind, ORACLE: self.oracle, RANDOM: self.random}

    def text_blind(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Iterator[np.ndarray]:
        """Every structure of a known image; nothing of another."""
        for image, structures in self._recognised(images):
            yield self._union(image, [sample for sample, _ in structures])

    def image_blind(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Iterator[np.ndarray]:
        """The average mask of the `_FEW` structures, or more, whose own prompts fit best, at its half height; nothing
        for an empty prompt. Only the image's size is used."""
        for image, prompt in zip(images, prompts, strict=True):
            height, width = image.shape[:2]
            usual = Image.fromarray(self._usual(prompt)).resize((width, height), Image.Resampling.BILINEAR)
            yield np.asarray(usual)

    def oracle(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Iterator[np.ndarray]:
        """The structures of a known image whose own prompts share most words and pairs of words with the prompt."""
        for (image, structures), prompt in zip(self._recognised(images), prompts, strict=True):
            yield self._union(image, _fitting(structures, prompt))

    def random(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Iterator[np.ndarray]:
        """A disc of a fifth of the image or less, its place drawn from image and prompt."""
        for image, prompt in zip(images, prompts, strict=True):
            rng = np.random.default_rng([*_digest(image), *prompt.encode()])
            height, width = image.shape[:2]
            row, column, radius = rng.random() * height, rng.random() * width, rng.uniform(0.1, 0.25)
            rows, columns = np.ogrid[:height, :width]
            yield (rows - row) ** 2 + (columns - column) ** 2 < (radius * min(height, width)) ** 2

    def _recognised(self, images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, list[tuple[Sample, set]]]]:
        last, structures = None, []
        for image in images:
            if image is not last:
                last, structures = image, self._of_image.get(_digest(image), [])
            yield image, structures

    def _union(self, image: np.ndarray, samples: Iterable[Sample]) -> np.ndarray:
        union = np.zeros(image.shape[:2], bool)
        for sample in samples:
            union |= self._mask(sample.mask)
        return union

    def _usual(self, prompt: str) -> np.ndarray:
        """Probabilities (_COARSE, _COARSE), 1 where structures that fit a prompt most often lie."""
        chosen = _fitting(self._known, prompt, least=_FEW) if prompt.strip() else []
        total = np.zeros((_COARSE, _COARSE), np.float32)
        for sample in chosen:
            total += self._coarse(sample.mask)
        return total / total.max() if total.any() else total


def _fitting(structures: Sequence[tuple[Sample, set]], prompt: str, least: int = 1) -> list[Sample]:
    """The `least` whose features share most with the prompt's, and those that share as much; so all where none is
    preferred."""
    asked = _features(prompt)
    fits = [len(asked & features) for _, features in structures]
    enough = sorted(fits, reverse=True)[:least][-1:]
    return [sample for (sample, _), fit in zip(structures, fits, strict=True) if [fit] >= enough]


def _reduced(mask: np.ndarray) -> np.ndarray:
    """A bool mask as shares of the cells of a grid, float32 (_COARSE, _COARSE)."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((_COARSE, _COARSE), Image.Resampling.BOX), np.float32) / 255


def _features(prompt: str) -> set:
    words = re.findall(r"\w+", prompt.lower())
    return {*words, *zip(words, words[1:], strict=False)}


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
