"""Masks of pictures in memory and of files, on tiny random models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import HEIGHT, WIDTH, make_run, write_training, write_weights

from featherseg.config import write_run
from featherseg.core.errors import UserError
from featherseg.core.files import write_status
from featherseg.data.images import read_image
from featherseg.models.clipseg.model import CLIPSeg
from featherseg.tasks.segmentation import predict
from featherseg.tasks.segmentation.predict import (
    draw_mask,
    encode_prompts,
    load_model,
    predict_files,
    predict_probabilities,
)

RUN = "clipseg-decoder-discs-3"


def picture(seed, height=HEIGHT, width=WIDTH):
    tiles = np.random.default_rng(seed).integers(0, 256, (4, 7, 3), dtype=np.uint8)
    return tiles.repeat(-(-height // 4), axis=0).repeat(-(-width // 7), axis=1)[:height, :width]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one trained run and three pictures."""
    monkeypatch.chdir(tmp_path)
    run = make_run(write_weights(tmp_path / "weights"), "decoder")
    (tmp_path / "runs/study/plan").mkdir(parents=True)
    write_run(tmp_path / "runs/study/plan", run)
    write_training(run, tmp_path / "runs/study/train" / run.name)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(0)).save("in/colour.png")
    Image.fromarray(picture(1)[..., 0]).save("in/grey.bmp")
    Image.fromarray(picture(2)[..., 0].astype(np.uint16) * 16).save("in/deep.tiff")
    return tmp_path


@pytest.fixture
def model(project):
    run = make_run(write_weights(project / "weights"), "decoder")
    return load_model(run, project / "runs/study/train" / RUN)


def read_png(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image)


def test_probabilities_have_each_images_own_resolution(model):
    images = [picture(0), picture(1, 33, 12), picture(2, 1, 1), picture(3, 10, 700)]
    maps = predict_probabilities(model, images, ["disc"] * 4)
    assert [p.shape for p in maps] == [image.shape[:2] for image in images]
    assert all(p.dtype == np.float32 and 0 <= p.min() <= p.max() <= 1 for p in maps)


def test_probabilities_are_those_of_the_model_called_directly(model):
    image = picture(0, 32, 32)
    with torch.no_grad():
        pixels = model.normalise(torch.from_numpy(image)[None])
        expected = model.to_input(model(pixels, model.tokenize(["a disc"]))).sigmoid()[0, 0].numpy()
    assert np.abs(predict_probabilities(model, [image], ["a disc"])[0] - expected).max() < 1e-5


def test_order_and_batches_do_not_change_a_map(model):
    images = [picture(k % 3) for k in range(7)]
    prompts = ["left disc", "right disc", "", "left disc", "a", "b", "c"]
    together = predict_probabilities(model, images, prompts, batch_size=3)
    for image, prompt, found in zip(images, prompts, together, strict=True):
        assert np.abs(predict_probabilities(model, [image], [prompt])[0] - found).max() < 1e-4
    assert np.abs(together[0] - together[1]).max() > 0.01, "image and prompt make no difference to this model"


def test_twelve_prompts_on_one_image_encode_it_once(model, monkeypatch):
    monkeypatch.setattr(predict, "PROMPTS_ON_CPU", 4 * model.text.dim)
    encoded = []
    encode_image, encode_text = CLIPSeg.encode_image, CLIPSeg.encode_text
    monkeypatch.setattr(CLIPSeg, "encode_image",
                        lambda self, x: encoded.append(("image", len(x))) or encode_image(self, x))
    monkeypatch.setattr(CLIPSeg, "encode_text",
                        lambda self, x: encoded.append(("text", len(x))) or encode_text(self, x))
    predict_probabilities(model, [picture(0) for _ in range(12)], [f"disc {k % 6}" for k in range(12)])
    assert sorted(encoded) == [("image", 1), ("text", 2), ("text", 4)]


def test_on_a_cpu_short_prompts_are_not_padded_to_long_ones(model, monkeypatch):
    monkeypatch.setattr(predict, "PROMPTS_ON_CPU", 4 * model.text.dim)
    shapes, encode_text = [], CLIPSeg.encode_text
    monkeypatch.setattr(CLIPSeg, "encode_text",
                        lambda self, x: shapes.append(tuple(x.shape)) or encode_text(self, x))
    prompts = [" ".join(["disc"] * words) for words in (30, 1, 20, 3, 2, 40, 4)]
    predict_probabilities(model, [picture(0)] * 7, prompts)
    assert shapes == [(4, 4 + 2), (3, 40 + 2)]


def test_on_a_cpu_few_maps_are_decoded_at_once(model, monkeypatch):
    sizes, decode = [], CLIPSeg.decode
    monkeypatch.setattr(CLIPSeg, "decode",
                        lambda self, v, t: sizes.append(len(t.sentence)) or decode(self, v, t))
    states = (1 + (model.image_size // 8) ** 2) * model.vision.dim
    for limit, batch_size, expected in ((5 * states, 32, [5, 5, 1]), (5 * states, 3, [3, 3, 3, 2]), (1, 32, [1] * 11)):
        monkeypatch.setattr(predict, "STATES_ON_CPU", limit)
        predict_probabilities(model, [picture(0)] * 11, [f"disc {k}" for k in range(11)], batch_size)
        assert sizes == expected
        sizes.clear()


@pytest.mark.parametrize("adapter", ["decoder", "vlsm_shallow"])
def test_prompts_of_one_image_are_decoded_without_copies_of_it(project, monkeypatch, adapter):
    run = make_run(write_weights(project / "weights"), adapter)
    write_training(run, project / "train")
    model, sizes, decode = load_model(run, project / "train"), [], CLIPSeg.decode
    monkeypatch.setattr(CLIPSeg, "decode",
                        lambda self, v, t: sizes.append((len(v.taps[0]), len(t.sentence))) or decode(self, v, t))
    prompts = ["left disc", "", "a right disc"]
    one = predict_probabilities(model, [picture(0)] * 3, prompts)
    two = predict_probabilities(model, [picture(0)] * 3 + [picture(1)], [*prompts, ""])
    assert sizes == [(1, 3), (4, 4)]
    for alone, together in zip(one, two[:3], strict=True):
        assert np.abs(alone - together).max() < 1e-4


@pytest.mark.parametrize(("device", "batch_size", "expected"), [
    ("cpu", 32, [4, 4, 3]), ("cpu", 2, [2, 2, 2, 2, 2, 1]), ("cuda", 32, [11]), ("cuda", 8, [8, 3])])
def test_prompts_at_once_by_device(model, device, batch_size, expected):
    sizes = []

    def encode(prompts):
        sizes.append(len(prompts))
        return model.encode_text(model.tokenize(prompts))

    prompts = [f"disc {k}" * (20 - k) for k in range(11)]
    text, row_of = encode_prompts(prompts * 2, encode, torch.device(device), batch_size, width=512)
    assert sizes == expected and len(text.sentence) == len(row_of) == 11
    for prompt in prompts:
        alone = model.encode_text(model.tokenize([prompt])).sentence[0]
        torch.testing.assert_close(text.sentence[row_of[prompt]], alone, atol=1e-5, rtol=1e-5)


def test_one_mask_of_one_file(project, model):
    predict_files(RUN, [project / "in/colour.png"], ["left disc"], project / "new/mask.png")
    mask = read_png(project / "new/mask.png")
    expected = predict_probabilities(model, [picture(0)], ["left disc"])[0] > 0.5
    assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
    assert np.array_equal(mask > 0, expected)


def test_the_threshold_and_the_overlay(project):
    arguments = (RUN, [project / "in/colour.png"], ["left disc"])
    predict_files(*arguments, project / "low.png", overlay=project / "over.png", threshold=0.1)
    predict_files(*arguments, project / "high.png", threshold=0.999)
    low, high = read_png(project / "low.png") > 0, read_png(project / "high.png") > 0
    assert low.sum() > high.sum() and not (high & ~low).any()
    assert np.array_equal(read_png(project / "over.png"), draw_mask(picture(0), low))


def test_a_folder_of_pictures_of_every_depth(project, model):
    (project / "in/._colour.png").write_bytes(b"what macOS adds on foreign disks")
    predict_files(RUN, [project / "in"], ["left disc"], project / "masks", overlay=project / "overlays")
    for folder in ("masks", "overlays"):
        names = sorted(path.name for path in (project / folder).iterdir())
        assert names == ["colour.png", "deep.png", "grey.png"]
    for name in ("colour.png", "grey.bmp", "deep.tiff"):
        expected = predict_probabilities(model, [read_image(project / "in" / name)], ["left disc"])[0] > 0.5
        mask = read_png(project / "masks" / f"{name.split('.')[0]}.png") > 0
        assert (mask != expected).mean() < 0.002


def test_more_pictures_than_are_held_at_once(project, model):
    for k in range(19):
        Image.fromarray(picture(k)).save(project / f"in/many{k:02}.png")
    files = sorted((project / "in").glob("many*.png"))
    predict_files(RUN, files, [f"disc {k}" for k in range(19)], project / "masks")
    for k in (0, 7, 8, 18):
        expected = predict_probabilities(model, [picture(k)], [f"disc {k}"])[0] > 0.5
        assert ((read_png(project / f"masks/many{k:02}.png") > 0) != expected).mean() < 0.002


def test_several_prompts_on_one_picture_are_told_apart_by_name(project):
    prompts = ["left disc", "größter Kreis!", ""]
    predict_files(RUN, [project / "in/colour.png"], prompts, project / "masks")
    assert sorted(path.name for path in (project / "masks").iterdir()) == [
        "colour_empty.png", "colour_größter-Kreis.png", "colour_left-disc.png"]


def test_a_prompt_that_is_cut_and_prompts_that_are_alike_are_said(project, capsys):
    predict_files(RUN, [project / "in/colour.png"], ["left disc", "Left  disc", "disc " * 100], project / "masks")
    said = capsys.readouterr().err
    assert "1 of 3 different prompts are cut after 77 tokens" in said
    assert "2 of 3 different prompts are the same to the model as another one" in said
    predict_files(RUN, [project / "in/colour.png"], ["left disc", ""], project / "masks")
    assert capsys.readouterr().err == ""


def test_what_is_passed_over_in_a_folder_is_counted(project, capsys):
    (project / "in/deeper").mkdir()
    (project / "in/named.png").mkdir()
    (project / "in/notes.txt").write_text("notes")
    predict_files(RUN, [project / "in"], ["left disc"], project / "masks")
    assert "3 images are taken; folders and other files are skipped: deeper, named.png, notes.txt" in (
        capsys.readouterr().err)
    assert len(list((project / "masks").iterdir())) == 3


def test_a_turned_picture_gets_a_mask_of_its_upright_size(project):
    turned = Image.fromarray(picture(0))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(project / "in/turned.jpg", exif=exif)
    predict_files(RUN, [project / "in/turned.jpg"], ["left disc"], project / "mask.png", overlay=project / "o.png")
    assert read_png(project / "mask.png").shape == (WIDTH, HEIGHT) == read_png(project / "o.png").shape[:2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_whose_maps_are_no_numbers_is_refused_and_writes_nothing(project, monkeypatch, value):
    def damaged(run, train_dir):
        model = load_model(run, train_dir)
        for parameter in model.net.decoder.parameters():
            parameter.data.fill_(value)
        return model

    monkeypatch.setattr(predict, "load_model", damaged)
    with pytest.raises(UserError, match="clipseg gives values that are no numbers .* its training diverged; train"):
        predict_files(RUN, [project / "in/colour.png"], ["left disc"], project / "mask.png")
    assert not (project / "mask.png").exists()


def test_a_run_may_be_named_with_its_study(project):
    predict_files(f"study/{RUN}", [project / "in/colour.png"], ["disc"], project / "mask.png")
    assert (project / "mask.png").is_file()


@pytest.mark.parametrize(("images", "prompts", "out", "sentence"), [
    (["in/colour.png"], ["a"], "mask.jpg", "written as PNG"),
    (["in"], ["a"], "mask.png", "one file, but there are 3"),
    (["in"], ["a", "b"], "masks", "3 images and 2 prompts"),
    (["in/none.png"], ["a"], "mask.png", "none.png does not exist; name an image"),
    (["many", "in/broken.png"], ["a"], "masks", "broken.png cannot be read"),
    (["empty"], ["a"], "masks", "empty holds no images"),
    (["in"], ["a"], "in", "in/colour.png would be written over an image"),
    (["in"], ["a"], "in/masks", "in/masks/colour.png would be written where .*in is read; name a place outside it"),
    (["in/colour.png", "copy/colour.png"], ["a"], "masks", "masks/colour.png would be written over"),
    (["in"], ["a"], "taken", "taken is a file"),
])
def test_bad_input_is_one_sentence_and_writes_nothing(project, images, prompts, out, sentence):
    whole = (project / "in/colour.png").read_bytes()
    for folder in ("empty", "copy", "many"):
        (project / folder).mkdir()
    (project / "copy/colour.png").write_bytes(whole)
    for k in range(10):
        (project / f"many/{k}.png").write_bytes(whole)
    if "in/broken.png" in images:
        (project / "in/broken.png").write_bytes(whole[:80])
    (project / "taken").write_text("kept")
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=sentence) as caught:
        predict_files(RUN, [project / path for path in images], prompts, project / out)
    assert "\n" not in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3, float("nan")])
def test_a_threshold_out_of_range(project, threshold):
    with pytest.raises(UserError, match="between 0 and 1"):
        predict_files(RUN, [project / "in/colour.png"], ["a"], project / "mask.png", threshold=threshold)


def test_a_prompt_that_is_not_text(project):
    with pytest.raises(UserError, match="the prompt 'caf.udce9' is not in UTF-8"):
        predict_files(RUN, [project / "in/colour.png"], ["caf\udce9"], project / "mask.png")


def test_an_unknown_run_lists_those_that_exist(project):
    with pytest.raises(UserError, match=f"unknown run 'clipseg-decodr-discs-3': did you mean '{RUN}'"):
        predict_files("clipseg-decodr-discs-3", [project / "in/colour.png"], ["a"], project / "mask.png")


def test_outside_of_a_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="runs/ holds no run"):
        predict_files(RUN, [tmp_path / "x.png"], ["a"], tmp_path / "mask.png")


def test_a_run_of_two_studies_must_be_named_with_its_study(project):
    (project / "runs/other/plan").mkdir(parents=True)
    for name in (f"{RUN}.yaml", f"{RUN}.evaluate.yaml"):
        (project / "runs/other/plan" / name).write_bytes((project / "runs/study/plan" / name).read_bytes())
    with pytest.raises(UserError, match=f"name one of other/{RUN}, study/{RUN}"):
        predict_files(RUN, [project / "in/colour.png"], ["a"], project / "mask.png")


def test_a_trained_run_that_the_study_no_longer_lists_is_still_one(project, capfd):
    predict_files(RUN, [project / "in/colour.png"], ["a"], project / "planned.png")
    for name in (f"{RUN}.yaml", f"{RUN}.evaluate.yaml"):
        (project / "runs/study/plan" / name).unlink()
    for name in (RUN, f"study/{RUN}"):
        predict_files(name, [project / "in/colour.png"], ["a"], project / "mask.png")
        assert (project / "mask.png").read_bytes() == (project / "planned.png").read_bytes()
    assert "no longer in the study 'study'" in capfd.readouterr().err


def test_an_unlisted_run_without_a_readable_checkpoint_says_so(project):
    (project / f"runs/study/plan/{RUN}.yaml").unlink()
    (project / "runs/study/train" / RUN / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        predict_files(RUN, [project / "in/colour.png"], ["a"], project / "mask.png")


def test_a_run_that_was_not_made_says_why(project):
    write_status(project / "runs/study/train" / RUN, "the archive is absent")
    with pytest.raises(UserError, match="was not made here: the archive is absent"):
        predict_files(RUN, [project / "in/colour.png"], ["a"], project / "mask.png")


def test_a_run_that_was_not_trained_yet(project):
    (project / "runs/study/train" / RUN / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match="train the run first"):
        predict_files(RUN, [project / "in/colour.png"], ["a"], project / "mask.png")


def test_a_mask_is_drawn_inside_tinted_and_around_outlined():
    image = np.full((60, 60, 3), 100, np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    drawn = draw_mask(image, mask)
    changed = (drawn != image).any(axis=2)
    assert changed[mask].all() and changed.sum() == mask.sum() + 4 * 20
    assert (image == 100).all(), "the image itself was drawn on"
    assert np.array_equal(draw_mask(image, np.zeros((60, 60), bool)), image)


def test_prompts_that_begin_alike_have_masks_of_their_own():
    prompts = [f"{'one small round polyp ' * 4}on the {side}" for side in ("left", "right", "left")] + ["!", "?"]
    stems = [query.stem for query in predict._queries([Path("a.png")], prompts)]
    assert len(set(stems)) == 4 and stems[0] == stems[2] and stems[3:] == ["a_empty", "a_empty-2"]
    assert all(len(stem) < 70 for stem in stems)
