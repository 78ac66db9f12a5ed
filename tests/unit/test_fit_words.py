"""The fits behind the prompt engine's limits and colours find what was put in."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from data_files import shared

from featherseg.data.folder.lists import read_list
from featherseg.data.images import read_image, read_mask
from featherseg.data.prompts import prompt_engine
from featherseg.data.prompts.fields import FIELDS

_spec = importlib.util.spec_from_file_location("fit_words", Path(__file__).parents[2] / "scripts/fit_words.py")
fit_words = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fit_words)


def test_size_limits_are_found():
    areas = np.random.default_rng(0).uniform(0.001, 0.6, 2000)
    words = np.array(["small", "medium", "large"])[np.digitize(areas, (0.12, 0.27))]
    assert fit_words.size_limits(areas, words).startswith("0.12 and 0.27 (agreement 1.000")


def test_a_palette_is_found():
    rng, centres = np.random.default_rng(0), {"dark": (20, 5, 5), "bright": (70, 30, 30)}
    words = np.array(["dark", "bright", "bright"] * 200)
    lab = np.array([centres[word] for word in words]) + rng.normal(0, (4, 2, 1), (600, 3))
    palette = fit_words.fit_palette(lab, words, ["dark", "bright"], 1.0)
    assert np.allclose(palette.spread, (4, 2, 1), rtol=0.1)
    assert np.allclose(dict(palette.points)["dark"], centres["dark"], atol=1)
    assert palette.weights["dark"] == pytest.approx(np.log(1 / 3))
    assert [palette.word(colour) for colour in lab] == words.tolist()


def test_the_limits_are_those_that_the_training_split_gives():
    """On the real training split: the size limits that agree best, and the fitted point of a colour."""
    folder = shared("datapack") / "isic2016"
    entries = [entry for entry in read_list(folder / "anns/train.json", []) if entry.attributes]
    masks = [read_mask(folder / "masks" / entry.mask) for entry in entries]
    areas = [max(part.pixels for part in prompt_engine.parts_of(mask)) / mask.size for mask in masks]
    found = fit_words.size_limits(areas, [entry.attributes["size"] for entry in entries])
    assert found.startswith(" and ".join(str(limit) for limit in prompt_engine.SIZE_LIMITS[1:]))
    red = [prompt_engine.colour_of(read_image(folder / "images" / entry.image), mask)
           for entry, mask in zip(entries, masks, strict=True) if entry.attributes["colour"] == "red"]
    assert np.allclose(np.mean(red, axis=0), dict(FIELDS["skin"].palette_of("skin melanoma").points)["red"], atol=0.06)
