"""Running the trials: what is asked for, what is compared, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from reliance_data import control_trials, halves

from featherseg.core.errors import UserError
from featherseg.reliance import suite
from featherseg.reliance.controls import Controls
from featherseg.reliance.suite import Mask
from featherseg.reliance.trials import plan
from featherseg.tasks.segmentation import metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return halves(tmp_path_factory.mktemp("reliance") / "halves", images=4, empty=(1,))


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (33, 41)])
def test_masks_of_bits_overlap_as_the_metrics_say(size):
    rng = np.random.default_rng(0)
    for fill in (0.0, 0.3, 1.0):
        for other in (0.0, 0.5):
            a, b = rng.random(size) < fill, rng.random(size) < other
            assert Mask.of(a).overlap(Mask.of(b)) == (metrics.dice(a, b), metrics.iou(a, b))
    assert np.array_equal(suite.unpack(Mask.of(a).stored(), *size), a)


class Recorder:
    """A segment that remembers what it was asked and answers with the image's red half."""

    def __init__(self):
        self.pairs = []

    def __call__(self, images, prompts):
        for image, prompt in zip(images, prompts, strict=True):
            self.pairs.append((image.tobytes(), prompt))
            yield (image[..., 0] > 127) * 0.9


def test_each_pair_of_image_and_prompt_is_asked_for_once(data):
    recorder = Recorder()
    table = suite.run(recorder, data, plan(data.samples, "fullest", 0), seed=0)
    distinct = table.drop_duplicates(["image_id", "image_condition", "prompt"])
    assert len(recorder.pairs) == len(distinct) < len(table)


def test_each_image_is_decoded_about_once(data, monkeypatch):
    read, original = [], type(data).image
    monkeypatch.setattr(type(data), "image", lambda self, sample: read.append(sample.image) or original(self, sample))
    suite.run(Recorder(), data, plan(data.samples, "fullest", 0), seed=0)
    assert len(read) <= 4 + 1  # the first one stands in for the last


def test_the_table_is_the_same_for_the_same_seed(data):
    tables = [suite.run(Recorder(), data, plan(data.samples, "fullest", seed), seed=seed) for seed in (0, 0, 1)]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])


def test_rows_hold_scores_of_the_mask_against_the_samples_truth(data):
    table = suite.run(Recorder(), data, plan(data.samples, "fullest", 0), seed=0, threshold=0.5)
    for sample in data.samples:
        prediction, truth = data.image(sample)[..., 0] > 127, data.mask(sample)
        rows = table[(table.sample_id == sample.sample_id) & (table.image_condition == "own")]
        assert set(rows.dsc) == {metrics.dice(prediction, truth)} and set(rows.iou_with_own) == {1.0}
        assert set(rows.empty_truth) == {not truth.any()}
    grey = table[table.image_condition == "mean_colour"]
    assert grey.empty_prediction.any() or (grey.iou_with_own < 1).all()


def test_the_threshold_is_exceeded_not_reached(data):
    table = suite.run(Recorder(), data, plan(data.samples, "fullest", 0), seed=0, threshold=0.9)
    assert table.empty_prediction.all()


def test_masks_of_the_shown_images_are_kept(data):
    segment = Controls(data, data.samples, "fullest").oracle
    table = suite.run(segment, data, plan(data.samples, "fullest", 0), seed=0, shown=1)
    kept = table[table["mask"].notna()]
    assert kept.image_id.nunique() == 1 and kept.groupby("sample_id").size().gt(5).all()
    own = kept[(kept.text_condition == "own") & (kept.image_condition == "own")].iloc[0]
    sample = next(one for one in data.samples if one.sample_id == own.sample_id)
    assert np.array_equal(suite.unpack(own["mask"], own.height, own.width), data.mask(sample))


def test_swapped_prompts_are_scored_against_every_truth_of_the_image(data):
    table = control_trials(data, "oracle")
    swapped = table[table.text_condition == "other_structure"].set_index("sample_id")
    for sample in data.samples:
        row = swapped.loc[sample.sample_id]
        assert row.prompt_of != sample.target and row.prompt_of in ("left block", "right block")
        assert row.iou == 0 or sample.image_id == "im1"


def answering(value):
    def segment(images, prompts):
        for image, _ in zip(images, prompts, strict=True):
            yield value(image) if callable(value) else value
    return segment


class Unreadable:
    def __array__(self, *arguments, **options):
        raise TypeError("on a GPU;\nmove it")


@pytest.mark.parametrize(("value", "said"), [
    (lambda image: np.zeros((3, 4)), r"shape \(3, 4\) for an image of 20 rows and 30 columns"),
    (lambda image: np.zeros((1, 20, 30)), r"shape \(1, 20, 30\)"),
    (lambda image: np.full((20, 30), np.nan), "no numbers"),
    (lambda image: np.full((20, 30), np.inf), "no numbers"),
    (lambda image: np.full((20, 30), 255, np.uint8), "values from 255 to 255 instead of 0 to 1"),
    (lambda image: np.full((20, 30), -0.1), "values from -0.1"),
    (lambda image: np.full((20, 30), "a"), "of type <U1"),
    (lambda image: np.full((20, 30), 1.01), "values from 1.01 to 1.01"),
    (lambda image: Unreadable(), "Unreadable, which is no array \\(on a GPU; move it\\)"),
    (lambda image: [[0.0], [0.0, 1.0]], "list, which is no array"),
    (None, "no mask"),
])
def test_what_is_no_map_is_refused_with_image_and_prompt(data, value, said):
    with pytest.raises(UserError, match=f"my.module:f gives.*{said}.*image 'im[0-3]'.*prompt '") as raised:
        suite.run(answering(value), data, plan(data.samples, "fullest", 0), seed=0, name="my.module:f")
    assert "\n" not in str(raised.value)


def test_an_image_of_another_size_than_it_was_prepared_with_is_refused(tmp_path):
    data = halves(tmp_path / "halves", images=2)
    path = data.path / data.samples[0].image
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)  # as many pixels
    with pytest.raises(UserError, match="im0.png is 20x30 pixels instead of 30x20; run the prepare stage again"):
        suite.run(Recorder(), data, plan(data.samples, "fullest", 0), seed=0)


def test_probabilities_may_miss_0_to_1_by_rounding(data):
    table = suite.run(answering(lambda image: np.full(image.shape[:2], np.float32(1 + 1e-6))), data,
                      plan(data.samples, "fullest", 0), seed=0)
    assert not table.empty_prediction.any()


def test_bool_and_integer_masks_are_taken(data):
    for kind in (bool, np.uint8, np.float64):
        table = suite.run(answering(lambda image, kind=kind: np.ones(image.shape[:2], kind)), data,
                          plan(data.samples, "fullest", 0), seed=0)
        assert not table.empty_prediction.any()


def test_too_few_maps_are_noticed(data):
    with pytest.raises(UserError, match="gives no mask"):
        suite.run(lambda images, prompts: [], data, plan(data.samples, "fullest", 0), seed=0)
