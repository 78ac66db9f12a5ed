"""Cached features are those that would be computed anew, and are computed once."""

import numpy as np
import pytest
import torch
from tiny import SIZE, tiny_data, tiny_model

from featherseg import adapters
from featherseg.core.errors import UserError
from featherseg.data.prepared import PreparedDataset
from featherseg.data.transforms import Squash
from featherseg.tasks.segmentation import features
from featherseg.tasks.segmentation.features import FeatureBank
from featherseg.tasks.segmentation.pixels import PixelDataset

PROMPTS = ["square", "", "a square, the 1th", "square number 0"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pixels(tmp_path) -> PixelDataset:
    return PixelDataset(PreparedDataset.read(tiny_data(tmp_path / "data", train=40, val=4)), Squash(SIZE))


class Counted:
    """Counts the images and prompts that a model's towers are given."""

    def __init__(self, model, monkeypatch) -> None:
        self.images = self.prompts = 0
        encode_image, encode_text = model.encode_image, model.encode_text

        def image(pixels):
            self.images += len(pixels)
            return encode_image(pixels)

        def text(tokens):
            self.prompts += len(tokens)
            return encode_text(tokens)

        monkeypatch.setattr(model, "encode_image", image)
        monkeypatch.setattr(model, "encode_text", text)


def frozen(name: str = "decoder", **knobs):
    return adapters.apply(tiny_model(), {"name": name, **knobs})


def test_images_and_masks_at_input_size(pixels):
    assert len(pixels.samples) == 44 and max(pixels.image_rows) == 21
    assert pixels.images([0, 21]).shape == (2, SIZE, SIZE, 3)
    masks = pixels.masks([3, 0])
    assert masks.shape == (2, 1, SIZE, SIZE) and masks.dtype == torch.bool
    wanted = [pixels.samples[i].area_fraction for i in (3, 0)]
    assert masks.float().mean(dim=(1, 2, 3)).tolist() == pytest.approx(wanted, abs=0.02)


def test_an_image_with_several_samples_is_decoded_once(tmp_path, monkeypatch):
    dataset, decoded = PreparedDataset.read(tiny_data(tmp_path / "data")), []
    read = PreparedDataset.image
    monkeypatch.setattr(PreparedDataset, "image",
                        lambda self, sample: decoded.append(sample.image) or read(self, sample))
    first = PixelDataset(dataset, Squash(SIZE))
    assert sorted(decoded) == sorted(set(decoded)) and len(decoded) == 8
    again = PixelDataset(dataset, Squash(SIZE))
    assert len(decoded) == 8
    assert torch.equal(first.images(range(8)), again.images(range(8)))


@pytest.mark.parametrize("rows", [[4, 1, 4, 0], [20]])
def test_cached_is_uncached(pixels, rows):
    model = frozen()
    cached = FeatureBank(model, pixels, range(22), PROMPTS)
    anew = FeatureBank(model, pixels, range(22), PROMPTS, cache=False)
    with torch.no_grad():
        for ours, theirs in zip(cached.images(rows).taps, anew.images(rows).taps, strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        asked = ["", "square number 0", "", "a square, the 1th"]
        ours, theirs = cached.texts(asked), anew.texts(asked)
        torch.testing.assert_close(ours.sentence, theirs.sentence, atol=1e-5, rtol=1e-5)
        for a, b in zip(ours.taps, theirs.taps, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_everything_is_encoded_once(pixels, monkeypatch):
    model = frozen()
    counted = Counted(model, monkeypatch)
    bank = FeatureBank(model, pixels, [5, 1, 1, 3, 5], [*PROMPTS, "square"])
    probe = 1
    assert (counted.images, counted.prompts) == (3 + probe, 4 + probe)
    for _ in range(3):
        bank.images([1, 3, 5, 1])
        bank.texts(["square", ""])
    assert (counted.images, counted.prompts) == (3 + probe, 4 + probe)
    FeatureBank(model, pixels, [1, 3, 5], PROMPTS)
    assert (counted.images, counted.prompts) == (3 + 2 * probe, 4 + 2 * probe)


def test_what_was_not_announced_is_encoded_when_asked_for(pixels):
    bank = FeatureBank(frozen(), pixels, [0, 1], ["square"])
    assert len(bank.images([0, 9]).taps[0]) == 2
    assert len(bank.texts(["square", "something else"]).sentence) == 2


def test_equal_images_and_prompts_of_a_batch_are_encoded_once(pixels, monkeypatch):
    model = frozen("full")
    counted = Counted(model, monkeypatch)
    bank = FeatureBank(model, pixels, range(22), PROMPTS)
    assert (counted.images, counted.prompts) == (0, 0)
    tap = bank.images([7, 2, 7, 7]).taps[0]
    sentence = bank.texts(["", "square", "square", ""]).sentence
    assert (counted.images, counted.prompts) == (2, 2)
    assert torch.equal(tap[0], tap[3]) and not torch.equal(tap[0], tap[1])
    assert torch.equal(sentence[0], sentence[3]) and not torch.equal(sentence[0], sentence[1])
    assert tap.requires_grad and sentence.requires_grad


@pytest.mark.parametrize(("adapter", "vision", "text"), [
    ({"name": "zero_shot"}, True, True), ({"name": "decoder"}, True, True), ({"name": "full"}, False, False),
    ({"name": "vlsm_shallow", "dim": 4}, True, True),
    ({"name": "vlsm_dense", "dim": 4, "positions": "V"}, False, True),
    ({"name": "vlsm_dense", "dim": 4, "positions": "VL"}, False, False),
    ({"name": "lora", "rank": 2, "positions": "V"}, False, True)])
def test_a_tower_with_nothing_trained_before_its_taps_is_cached(pixels, monkeypatch, adapter, vision, text):
    model = adapters.apply(tiny_model(), adapter)
    bank = FeatureBank(model, pixels, range(22), PROMPTS)
    counted = Counted(model, monkeypatch)
    bank.images([0])
    bank.texts([""])
    assert (counted.images == 0, counted.prompts == 0) == (vision, text)


def test_another_precision_finds_no_cache(pixels):
    model = frozen()
    with torch.autocast("cpu", torch.bfloat16):
        rough = FeatureBank(model, pixels, [0, 1], PROMPTS).images([0]).taps[0]
    exact = FeatureBank(model, pixels, [0, 1], PROMPTS).images([0]).taps[0]
    anew = FeatureBank(model, pixels, [0, 1], PROMPTS, cache=False).images([0]).taps[0]
    assert torch.allclose(exact, anew, atol=1e-5) and not torch.allclose(rough, anew, atol=1e-5)


def test_another_number_of_threads_finds_no_cache(pixels, monkeypatch):
    model = frozen()
    counted = Counted(model, monkeypatch)
    FeatureBank(model, pixels, [1, 3], PROMPTS)
    once = counted.images, counted.prompts
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    FeatureBank(model, pixels, [1, 3], PROMPTS)
    assert (counted.images, counted.prompts) == (2 * once[0], 2 * once[1])


def test_other_weights_find_no_cache(pixels):
    first = FeatureBank(frozen(), pixels, [0], PROMPTS).images([0]).taps[0]
    model = frozen()
    with torch.no_grad():
        model.get_submodule(model.vision.blocks[1]).mlp.fc1.weight.add_(0.1)
    assert not torch.allclose(FeatureBank(model, pixels, [0], PROMPTS).images([0]).taps[-1], first)
    assert len(list((features.cache_root() / "features").glob("*/0.npy"))) == 3


def test_without_room_on_the_disk_features_are_computed_anew(pixels, monkeypatch, capfd):
    model = frozen()
    wanted = FeatureBank(model, pixels, [0, 1], PROMPTS).images([1]).taps[0]
    monkeypatch.setattr(features, "_free_disk", lambda: 0)
    counted = Counted(model, monkeypatch)
    bank = FeatureBank(model, pixels, [0, 1, 2], [*PROMPTS, "more"])
    before = counted.images
    torch.testing.assert_close(bank.images([1]).taps[0], wanted)
    assert counted.images == before + 1
    said = capfd.readouterr().err
    assert said.count("no disk space for") == 2 and "vision features" in said and "text features" in said


def test_a_damaged_cache_says_what_to_delete(pixels):
    model = frozen()
    FeatureBank(model, pixels, [0, 1], PROMPTS)
    for file in (features.cache_root() / "features").glob("*/0.npy"):
        file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="damaged.*delete the folder"):
        FeatureBank(model, pixels, [0, 1], PROMPTS)


def test_a_flipped_byte_of_the_cache_is_found(pixels):
    model = frozen()
    FeatureBank(model, pixels, [0, 1], PROMPTS)
    for file in (features.cache_root() / "features").glob("*/0.npy"):
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
    with pytest.raises(UserError, match="has changed.*delete the folder"):
        FeatureBank(model, pixels, [0, 1], PROMPTS).images([0, 1])


def test_cache_rows_are_plain_numpy_files(pixels):
    bank = FeatureBank(frozen(), pixels, [2, 0], PROMPTS)
    stored = [np.load(file) for file in (features.cache_root() / "features").glob("*/0.npy")]
    assert any(len(rows) == 2 and np.array_equal(rows[1], bank.images([2]).taps[0][0]) for rows in stored)
