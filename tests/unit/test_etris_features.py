"""Pairs of image and prompt through what trains, scores and predicts, where the towers exchange and where not."""

import numpy as np
import pytest
import torch
from tiny import tiny_data

from featherseg import adapters
from featherseg.data.prepared import PreparedDataset
from featherseg.data.transforms import Letterbox
from featherseg.models.etris.config import small_config
from featherseg.models.etris.model import build_etris
from featherseg.tasks.segmentation import evaluate
from featherseg.tasks.segmentation.config import SegmentationEvaluate
from featherseg.tasks.segmentation.features import FeatureBank
from featherseg.tasks.segmentation.pixels import PixelDataset
from featherseg.tasks.segmentation.predict import predict_probabilities
from featherseg.tasks.segmentation.trials import plan_trials

PROMPTS = ["square", "", "a square, the 1th"]
ADAPTERS = [{"name": "decoder"}, {"name": "bridger", "dim": 8, "heads": 2}]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    return PreparedDataset.read(tiny_data(tmp_path / "data", train=6, val=4))


def tiny(adapter, words: int = 9):
    torch.manual_seed(3)
    architecture = small_config(width=32, text_width=32, stages=(1, 2, 3), patch=16, image_size=32)
    return adapters.apply(build_etris("etris_vit", architecture, word_length=words), adapter, seed=1).eval()


def one_by_one(model, images, prompts) -> list[np.ndarray]:
    """Probability maps without any sharing."""
    maps = []
    with torch.no_grad():
        for image, prompt in zip(images, prompts, strict=True):
            pixels = model.normalise(torch.from_numpy(model.resize.image(image))[None])
            logits = model.to_input(model(pixels, model.tokenize([prompt])))
            maps.append(model.resize.inverse(logits, *image.shape[:2])[0, 0].sigmoid().numpy())
    return maps


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter["name"])
def test_pairs_are_those_encoded_one_by_one_and_equal_pairs_are_encoded_once(adapter, dataset, monkeypatch):
    model, pixels = tiny(adapter), PixelDataset(dataset, tiny(adapter).resize)
    rows, prompts = [2, 0, 2, 2], [PROMPTS[k] for k in (0, 1, 0, 2)]
    bank, sizes, encode = FeatureBank(model, pixels, range(5), PROMPTS), [], model.encode
    monkeypatch.setattr(model, "encode", lambda images, tokens: sizes.append(len(images)) or encode(images, tokens))
    with torch.no_grad():
        image, text = bank.pairs(rows, prompts)
        assert sizes == ([3] if model.joint else [])
        for k, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            wanted = encode(model.normalise(pixels.images([row])), model.tokenize([prompt]))
            for ours, theirs in ((image, wanted[0]), (text, wanted[1])):
                torch.testing.assert_close([tap[k] for tap in ours.taps], [tap[0] for tap in theirs.taps],
                                           atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(text.sentence[k], wanted[1].sentence[0], atol=1e-5, rtol=1e-4)
            assert torch.equal(text.padding[k], wanted[1].padding[0])


def test_cached_words_depend_on_the_word_length(dataset):
    for words in (9, 12):
        model = tiny(ADAPTERS[0], words)
        bank = FeatureBank(model, PixelDataset(dataset, model.resize), range(5), PROMPTS)
        assert bank.texts(PROMPTS).taps[0].shape == (3, words, 32)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter["name"])
def test_predictions_are_those_made_one_by_one(adapter):
    model, rng = tiny(adapter), np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((40, 70), (50, 30)))
    images, prompts = [first, second, first, first], [PROMPTS[k] for k in (0, 0, 1, 0)]
    found = predict_probabilities(model, images, prompts, batch_size=3)
    for ours, theirs in zip(found, one_by_one(model, images, prompts), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter["name"])
def test_scores_come_from_maps_made_one_by_one(adapter, dataset):
    model, samples = tiny(adapter), dataset.split("val")
    trials = plan_trials(samples, SegmentationEvaluate(prompts="p2").prompts, 1)
    assert isinstance(model.resize, Letterbox) and model.resize.fill == (123, 117, 104)
    pixels = PixelDataset(dataset, model.resize)
    found = list(evaluate.probability_maps(model, pixels, trials, batch_size=3))
    wanted = one_by_one(model, [dataset.image(trial.sample) for trial in trials], [trial.prompt for trial in trials])
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
