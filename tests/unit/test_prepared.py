import random
from collections import Counter

import numpy as np
import pytest
from data_files import box, colours, everything_below, full_disk, picture_bytes, save
from PIL import Image

from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.data import prepared
from featherseg.data.images import read_image, read_mask
from featherseg.data.prepared import PreparedDataset, PreparedWriter, prompt_of

PROMPTS = {"p1": "polyp", "p0": "", "p9": ["a", "b"], "p3": "red polyp"}


def write(folder, *, dataset="set", image=None, **sample):
    with PreparedWriter(folder, dataset=dataset) as writer:
        writer.add_image("one", colours() if image is None else image)
        writer.add_sample(**{"image_id": "one", "target": "left lung", "mask": box(), **sample})
    return PreparedDataset.read(folder)


def test_what_is_written_is_read(tmp_path):
    attributes = {"size": "small", "number": 2}
    dataset = write(tmp_path / "set", split="testA", group="patient 7", prompts=PROMPTS,
                    attributes=attributes)
    [sample] = dataset.samples
    assert dataset.status == {"status": "ok", "reason": None}
    assert (sample.dataset, sample.sample_id, sample.image_id) == ("set", "set/one/left lung", "one")
    assert (sample.group, sample.split, sample.target) == ("patient 7", "testA", "left lung")
    assert (sample.height, sample.width, sample.bbox) == (20, 30, (3, 5, 9, 10))
    assert sample.area_fraction == pytest.approx(30 / 600)
    assert sample.attributes == attributes
    assert sample.prompts == {"p0": [""], "p1": ["polyp"], "p3": ["red polyp"], "p9": ["a", "b"]}
    assert list(sample.prompts) == ["p0", "p1", "p3", "p9"]
    assert (dataset.image(sample) == colours()).all()
    assert dataset.mask(sample).dtype == bool and (dataset.mask(sample) == box()).all()
    assert set(np.unique(np.asarray(Image.open(tmp_path / "set" / sample.mask)))) == {0, 255}
    assert dataset.split("testA") == [sample] and dataset.split("val") == []


def test_what_is_not_said_follows_from_the_image(tmp_path):
    [sample] = write(tmp_path / "set").samples
    assert sample.group == "one" and sample.split == "train"
    assert sample.prompts == {"p0": [""], "p1": ["left lung"]}


def test_rows_without_a_split_get_that_of_their_group_once_all_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_ROWS_PER_GROUP", 4)
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        for number in range(15):
            writer.add_image(f"{number}", colours())
            split = "testA" if number == 14 else None
            writer.add_sample(image_id=f"{number}", target="a", mask=box(), group=f"patient {number % 5}", split=split)
    samples = PreparedDataset.read(tmp_path / "set").samples
    assert [sample.image_id for sample in samples] == [f"{number}" for number in range(15)]
    assert samples.pop().split == "testA"
    assert len({(sample.group, sample.split) for sample in samples}) == 5
    assert {sample.split for sample in samples} == {"train", "val", "test"}


def test_an_empty_mask_has_no_box(tmp_path):
    [sample] = write(tmp_path / "set", mask=np.zeros((20, 30), dtype=bool)).samples
    assert sample.bbox == (0, 0, 0, 0) and sample.area_fraction == 0


def test_a_full_mask_stays_full(tmp_path):
    dataset = write(tmp_path / "set", mask=np.ones((20, 30), dtype=bool))
    assert dataset.samples[0].bbox == (0, 0, 30, 20) and dataset.mask(dataset.samples[0]).all()


def test_one_image_with_three_targets_is_stored_once(tmp_path):
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        writer.add_image("one", colours())
        for target in ("left lung", "right lung", "heart"):
            writer.add_sample(image_id="one", target=target, mask=box())
    samples = PreparedDataset.read(tmp_path / "set").samples
    assert [sample.target for sample in samples] == ["left lung", "right lung", "heart"]
    assert len({sample.image for sample in samples}) == 1 and len({sample.mask for sample in samples}) == 3


def test_rows_beyond_one_group_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_ROWS_PER_GROUP", 3)
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        for number in range(8):
            writer.add_image(f"{number}", colours(2, 2))
            writer.add_sample(image_id=f"{number}", target="t", mask=box(2, 2))
    assert [sample.image_id for sample in PreparedDataset.read(tmp_path / "set").samples] == list("01234567")


@pytest.mark.parametrize("prompt", ["поліп у лівій частині, 息肉, naïve", "word " * 500])
def test_any_text_is_a_prompt(tmp_path, prompt):
    assert write(tmp_path / "set", prompts={"p1": prompt}).samples[0].prompts == {"p1": [prompt]}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (50, 10_000)])
def test_any_size_is_an_image(tmp_path, height, width):
    dataset = write(tmp_path / "set", image=colours(height, width), mask=np.ones((height, width), dtype=bool))
    assert dataset.image(dataset.samples[0]).shape == (height, width, 3)


@pytest.mark.parametrize(("sample", "fault"), [
    ({"image_id": "two"}, "image 'two' was not added"),
    ({"mask": box(30, 20)}, "has 20 rows and 30 columns"),
    ({"mask": box().astype(np.uint8)}, "uint8"),
    ({"prompts": {}}, "there is no prompt"),
    ({"prompts": {"p1": []}}, "p1 is an empty list"),
    ({"prompts": {"p1": "a", "p10": "b"}}, "'p10' is unknown"),
    ({"prompts": {"p1": [3]}}, r"p1 is \[3\]"),
    ({"prompts": "polyp"}, "a map from level"),
    ({"target": " "}, "no name"),
])
def test_a_bad_sample_is_one_sentence_and_leaves_nothing(tmp_path, sample, fault):
    with pytest.raises(UserError, match=fault):
        write(tmp_path / "set", **sample)
    assert everything_below(tmp_path) == []


def test_a_sample_id_occurs_once(tmp_path):
    with (pytest.raises(UserError, match="'set/one/heart' occurs twice"),
          PreparedWriter(tmp_path / "set", dataset="set") as writer):
        writer.add_image("one", colours())
        for _ in range(2):
            writer.add_sample(image_id="one", target="heart", mask=box())


@pytest.mark.parametrize(("image_id", "fault"), [
    ("one", "occurs twice"), ("a/b", "no file name"), ("", "no file name"),
    ("caf\udce9", "no file name")])
def test_an_image_id_is_a_file_name_and_occurs_once(tmp_path, image_id, fault):
    with pytest.raises(UserError, match=fault), PreparedWriter(tmp_path / "set", dataset="set") as writer:
        writer.add_image("one", colours())
        writer.add_image(image_id, colours())
    assert everything_below(tmp_path) == []


def test_a_failure_leaves_what_was_there(tmp_path):
    write(tmp_path / "set")
    with pytest.raises(UserError):
        write(tmp_path / "set", prompts={})
    assert len(PreparedDataset.read(tmp_path / "set").samples) == 1


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="set could not be written"), full_disk(500):
        write(tmp_path / "set", image=colours(100, 100), mask=box(100, 100))
    assert everything_below(tmp_path) == []


def test_a_full_disk_at_the_last_step_leaves_nothing(tmp_path):
    prompts = {f"p{level}": [f"{random.Random(i).random()}" for i in range(100)] for level in range(1, 10)}
    with pytest.raises(UserError, match="set could not be written"), full_disk(1000):
        write(tmp_path / "set", image=colours(2, 2), mask=box(2, 2), prompts=prompts)
    assert everything_below(tmp_path) == []


@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "grey.png", "grey.jpg"])
def test_an_8_bit_file_is_copied_byte_for_byte(tmp_path, name):
    pixels = colours()[..., 0] if "grey" in name else colours()
    path = save(tmp_path / name, pixels)
    dataset = write(tmp_path / "set", image=path)
    stored = tmp_path / "set" / dataset.samples[0].image
    assert stored.suffix == path.suffix and stored.read_bytes() == path.read_bytes()
    assert dataset.image(dataset.samples[0]).shape == (20, 30, 3)


@pytest.mark.parametrize("name", ["x.tif", "x.bmp", "x.webp", "x.gif", "rgba.png", "palette.png"])
def test_any_other_file_becomes_png(tmp_path, name):
    pixels = np.full((20, 30, 3), (200, 100, 50), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = {"rgba.png": image.convert("RGBA"), "palette.png": image.quantize(4)}.get(name, image)
    image.save(tmp_path / name, **({"lossless": True} if name == "x.webp" else {}))
    dataset = write(tmp_path / "set", image=tmp_path / name)
    assert dataset.samples[0].image == "images/one.png"
    assert np.abs(dataset.image(dataset.samples[0]).astype(int) - pixels).max() <= 1


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_grey_of_16_bits_is_scaled_from_its_percentiles(tmp_path, name):
    ramp = np.linspace(1000, 5000, 600).astype(np.uint16).reshape(20, 30)
    ramp[0, 0], ramp[-1, -1] = 0, 65535
    image = read_image(save(tmp_path / name, ramp)).astype(int)
    low, high = np.percentile(ramp, (0.5, 99.5))
    expected = np.clip((ramp - low) / (high - low), 0, 1) * 255
    assert image.shape == (20, 30, 3) and np.abs(image - expected[..., None]).max() <= 0.5


def test_a_constant_16_bit_image_is_read(tmp_path):
    assert read_image(save(tmp_path / "x.png", np.full((4, 4), 3000, dtype=np.uint16))).max() == 0


def test_pixels_of_added_images_are_those_that_are_stored(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    sources = {"array": colours(), "jpeg": save(tmp_path / "a.jpg", colours(seed=1)),
               "turned": save(tmp_path / "b.jpg", colours(seed=2), exif=turned),
               "grey": save(tmp_path / "c.png", colours(seed=3)[..., 0])}
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        seen = {}
        for image_id, source in sources.items():
            writer.add_image(image_id, source)
            seen[image_id] = writer.pixels(image_id)
            mask = np.zeros(seen[image_id].shape[:2], bool)
            writer.add_sample(image_id=image_id, target="x", mask=mask)
        assert (writer.pixels("array") == colours()).all()
    dataset = PreparedDataset.read(tmp_path / "set")
    assert all((dataset.image(sample) == seen[sample.image_id]).all() for sample in dataset.samples)


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "x.png", colours(), exif=exif)
    dataset = write(tmp_path / "set", image=tmp_path / "x.png", mask=box(30, 20))
    assert (dataset.image(dataset.samples[0]) == np.rot90(colours(), -1)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_names_the_file(tmp_path, kind):
    data = picture_bytes(colours(200, 200), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(UserError, match=rf"{path.name} cannot be read as a picture"):
        write(tmp_path / "set", image=path)
    assert everything_below(tmp_path) == [path.name]


def test_text_is_no_picture(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(UserError, match="x.png cannot be read as a picture .its format is unknown"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.tif", "x.gif", "x.png", "x.webp"])
def test_a_stack_of_pages_is_no_picture(tmp_path, name):
    pages = [Image.fromarray(colours(seed=seed)) for seed in (0, 1)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match="holds 2 pages"):
        read_image(tmp_path / name)


def test_a_photograph_with_its_preview_is_a_picture(tmp_path):
    pages = [Image.fromarray(colours(seed=seed)) for seed in (0, 1)]
    pages[0].save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=pages[1:])
    assert read_image(tmp_path / "x.jpg").shape == colours().shape


@pytest.mark.parametrize(("levels", "expected"), [
    ((0, 255), (False, True)), ((0, 1), (False, True)), ((3, 7), (False, True)),
    ((0, 0), (False, False)), ((1, 1), (True, True)), ((0, 60000), (False, True)),
])
def test_a_mask_has_two_levels(tmp_path, levels, expected):
    kind = np.uint16 if max(levels) > 255 else np.uint8
    mask = read_mask(save(tmp_path / "m.png", np.array([levels], dtype=kind)))
    assert mask.tolist() == [list(expected)]


def test_a_mask_of_grey_levels_needs_a_threshold(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 100, 128, 200]], dtype=np.uint8))
    with pytest.raises(UserError, match=r"m.png has 4 grey levels \(0, 100, 128, 200\).*threshold"):
        read_mask(path)
    assert read_mask(path, threshold=128).tolist() == [[False, False, True, True]]


def test_a_jpeg_mask_is_thresholded(tmp_path):
    path = save(tmp_path / "m.jpg", box(), quality=60)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert (read_mask(path) == box()).mean() > 0.98


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA"])
def test_a_mask_may_be_of_any_mode(tmp_path, mode):
    Image.fromarray(box().astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == box()).all()


def test_a_coloured_mask_counts_its_strongest_channel(tmp_path):
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[box()] = (0, 255, 0)
    assert (read_mask(save(tmp_path / "m.png", pixels)) == box()).all()


def test_prompts_by_level(tmp_path):
    [sample] = write(tmp_path / "set", prompts={**PROMPTS, "unique": "the red one"}).samples
    expected = {"p0": "", "p1": "polyp", "p2": "polyp", "p5": "red polyp", "p9": "a", "sentences": "a",
                "fullest": "a"}
    assert {level: prompt_of(sample, level) for level in expected} == expected
    assert prompt_of(sample, "unique") == "the red one"
    with pytest.raises(UserError, match="'p11' is unknown"):
        prompt_of(sample, "p11")


def test_random_prompts_are_uniform_over_levels_without_p0(tmp_path):
    [sample] = write(tmp_path / "set", prompts={**PROMPTS, "unique": "the red one"}).samples
    rng = random.Random(0)
    drawn = Counter(prompt_of(sample, "random", rng) for _ in range(6000))
    assert set(drawn) == {"polyp", "red polyp", "a", "b"}
    assert [drawn[text] / 6000 for text in ("polyp", "red polyp", "a", "b")] == pytest.approx(
        [1 / 3, 1 / 3, 1 / 6, 1 / 6], abs=0.02)
    assert [prompt_of(sample, "random", random.Random(5)) for _ in range(3)] == [
        prompt_of(sample, "random", random.Random(5))] * 3


def test_of_sentences_random_draws_any_and_fullest_takes_the_first(tmp_path):
    [sample] = write(tmp_path / "set", prompts={**PROMPTS, "sentences": ["x", "y", "z"], "unique": "u"}).samples
    rng = random.Random(0)
    drawn = Counter(prompt_of(sample, "random", rng) for _ in range(3000))
    assert [drawn[text] / 3000 for text in "xyz"] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert {prompt_of(sample, "fullest", rng) for _ in range(20)} == {"x"} == {prompt_of(sample, "fullest")}
    assert {prompt_of(sample, "sentences", rng) for _ in range(40)} == {"x", "y", "z"}
    assert prompt_of(sample, "p9") == "a" and prompt_of(sample, "unique") == "u"


def test_prompts_of_a_sample_that_has_few(tmp_path):
    [only_empty] = write(tmp_path / "a", prompts={"p0": ""}).samples
    [only_sentences] = write(tmp_path / "b", prompts={"sentences": ["x", "y"]}).samples
    assert prompt_of(only_empty, "random", random.Random(0)) == prompt_of(only_empty, "unique") == ""
    assert [prompt_of(only_sentences, level) for level in ("p3", "fullest", "unique")] == ["", "x", "x"]


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    first, same = write(tmp_path / "a"), write(tmp_path / "b")
    other_mask = write(tmp_path / "c", mask=box(rows=slice(6, 11)))
    other_image = write(tmp_path / "d", image=colours(seed=1))
    assert first.fingerprint() == same.fingerprint()
    assert len({first.fingerprint(), other_mask.fingerprint(), other_image.fingerprint()}) == 3
    before = same.fingerprint()
    save(tmp_path / "b" / same.samples[0].image, colours(seed=2))
    assert same.fingerprint() != before


def test_data_that_was_not_to_be_had(tmp_path):
    write_status(tmp_path / "set", "by request")
    dataset = PreparedDataset.read(tmp_path / "set")
    assert dataset.status["reason"] == "by request" and dataset.samples == []


def test_a_damaged_dataset_names_its_file(tmp_path):
    with pytest.raises(UserError, match="status.json does not exist"):
        PreparedDataset.read(tmp_path / "set")
    dataset = write(tmp_path / "set")
    (tmp_path / "set" / dataset.samples[0].mask).unlink()
    with pytest.raises(UserError, match="masks/one__left_lung.png does not exist"):
        dataset.mask(dataset.samples[0])
    with pytest.raises(UserError, match="masks/one__left_lung.png does not exist"):
        dataset.fingerprint()
    Image.new("L", (3, 2)).save(tmp_path / "set" / dataset.samples[0].mask)
    with pytest.raises(UserError, match="masks/one__left_lung.png is 3x2 pixels instead of"):
        dataset.mask(dataset.samples[0])
    (tmp_path / "set" / "samples.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="samples.parquet cannot be read"):
        PreparedDataset.read(tmp_path / "set")


def test_texts_that_samples_share_are_one_object(tmp_path):
    with PreparedWriter(tmp_path / "set", dataset="set") as writer:
        for number in range(2):
            writer.add_image(f"image {number}", colours())
            writer.add_sample(image_id=f"image {number}", target="left lung", mask=box(), group="patient 7",
                              attributes={"side": "the left"}, prompts={"p1": f"lung {number}", "p2": "a left lung"})
    first, second = PreparedDataset.read(tmp_path / "set").samples
    for name in ("dataset", "group", "target"):
        assert getattr(first, name) is getattr(second, name)
    assert first.prompts["p2"][0] is second.prompts["p2"][0] and first.prompts["p1"] != second.prompts["p1"]
    assert first.attributes is second.attributes and first.attributes == {"side": "the left"}
    assert not hasattr(first, "__dict__")


def test_a_table_without_a_column_is_named(tmp_path):
    import pyarrow.parquet

    path = write(tmp_path / "set").path / "samples.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["group"]), path)
    with pytest.raises(UserError, match="lacks the column 'group'"):
        PreparedDataset.read(tmp_path / "set")


def test_a_repeated_sample_id_names_its_row(tmp_path):
    import pyarrow.parquet

    write(tmp_path / "set")
    path = tmp_path / "set" / "samples.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(pyarrow.concat_tables([table, table]), path)
    with pytest.raises(UserError, match="row 1: sample id 'set/one/left lung' occurs twice"):
        PreparedDataset.read(tmp_path / "set")


@pytest.mark.parametrize("change", [
    {"prompts": "{"}, {"prompts": "[1]"}, {"prompts": "{}"}, {"prompts": None}, {"split": None}, {"image": 5},
    {"height": "x"}, {"attributes": "5"}], ids=str)
def test_a_row_of_another_form_is_one_sentence(tmp_path, change):
    import pandas as pd

    path = write(tmp_path / "set").path / "samples.parquet"
    table = pd.read_parquet(path)
    for name, value in change.items():
        table[name] = [value] * len(table)
    table.to_parquet(path)
    with pytest.raises(UserError, match=r"samples\.parquet, row 0 .* is not what a prepare stage writes") as error:
        PreparedDataset.read(tmp_path / "set")
    assert "\n" not in str(error.value)
