"""`featherseg reliance`: a predictor of one's own, a run, a folder, and what is refused."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reliance_data import halves

from featherseg.cli import main
from featherseg.config import write_run, write_yaml
from featherseg.core.files import read_json, write_not_run

MODULE = """
import numpy as np

def right_or_left(image, prompt):
    mask = image[..., 0] > 200
    mask[:, : mask.shape[1] // 2] &= "right" not in prompt
    mask[:, mask.shape[1] // 2 :] &= "left" not in prompt
    image[:] = 0
    return mask

def flat(image, prompt): return np.zeros(5)
def nan(image, prompt): return np.full(image.shape[:2], np.nan)
def raising(image, prompt): raise RuntimeError("out of\\nmemory")
class Grave(BaseException): pass
def grave(image, prompt): raise Grave("no card")
def stopping(image, prompt): raise KeyboardInterrupt
class Tensor:
    def __array__(self, *arguments, **options): raise Grave("on a card")
def foreign(image, prompt): return Tensor()
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a module and a folder of eight images of a left and a right bright block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("mine.py").write_text(MODULE)
    (tmp_path / "data/images").mkdir(parents=True)
    (tmp_path / "data/masks").mkdir()
    for k in range(8):
        image = np.random.default_rng(k).integers(0, 150, (24, 32, 3), dtype=np.uint8)
        for side, place in (("left", 2 + k % 3), ("right", 20 - k % 4)):
            mask = np.zeros((24, 32), bool)
            mask[4 + k : 12 + k, place : place + 9] = True
            image[mask] = 250
            Image.fromarray(mask).save(tmp_path / f"data/masks/im{k}__{side}_block.png")
        Image.fromarray(image).save(tmp_path / f"data/images/im{k}.png")
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture
def without_page(monkeypatch):
    """Nothing is drawn, for tests that look at the record alone."""
    monkeypatch.setattr("featherseg.reliance.page.report", lambda *_: "")


def reliance(*arguments):
    main(["reliance", *map(str, arguments)])


def test_a_function_and_a_folder_give_a_table_a_record_and_a_page(here, capsys):
    reliance("--predictor", "mine:right_or_left", "--data", "data", "--split", "all", "--out", "out")
    record, trials = read_json("out/reliance.json"), pd.read_parquet("out/reliance.parquet")
    assert record["decides"] == "image and language" and record["own"]["value"] == 1.0
    assert (record["n_images"], record["n_samples"]) == (8, 16)
    assert record["following"]["accuracy"]["value"] == 1
    assert {name: control["decides"] for name, control in record["controls"].items()} == {
        "text-blind": "image only", "image-blind": "language only", "oracle": "image and language",
        "random": "neither"}
    assert {"dsc", "iou", "iou_with_own", "prompt", "text_condition", "image_condition"} <= set(trials)
    said = capsys.readouterr().out
    assert "another structure's prompt" in said and record["paragraph"] in said and "out/reliance.html" in said
    page = Path("out/reliance.html").read_text()
    assert record["paragraph"] in html.unescape(page)
    assert page.count("<table") == 2 and page.count("data:image/png") == 4 and page.count("data:image/jpeg") == 2
    assert "<script" not in page and "://" not in page and str(here) not in page


def strictly(path):
    """A JSON file as any other parser reads it: without NaN."""
    return json.loads(Path(path).read_text(), parse_constant=lambda word: pytest.fail(f"{path} holds {word}"))


def folder_of(root, images):
    """A folder of images by name, each with its masks by structure."""
    for name, (image, masks) in images.items():
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"images/{name}.png")
        for target, mask in masks.items():
            Image.fromarray(mask).save(root / f"masks/{name}__{target}.png")


def block(height=20, width=30, place=4, empty=False):
    mask = np.zeros((height, width), bool)
    mask[4:12, place : place + 8] = not empty
    return mask


def noise(height=20, width=30, kind=np.uint8, seed=0):
    shape = (height, width, 3) if kind == np.uint8 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(kind).max, shape, kind)


ODD = {
    "one image": {"a": (noise(), {"left": block(), "right": block(place=16)})},
    "one structure of one image": {"a": (noise(), {"left": block()})},
    "nothing to find anywhere": {
        f"im{k}": (noise(seed=k), {"left": block(empty=True), "right": block(empty=True)}) for k in range(8)},
    "sizes, depths and structures that differ": {
        f"im{k}": (noise(20 + k, 30 + 2 * k, (np.uint8, np.uint16)[k % 2], k),
                   {name: block(20 + k, 30 + 2 * k, place, empty=k == 5) for name, place in
                    (("left", 3), ("right", 18))[: 1 + k % 3]}) for k in range(9)},
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_sets_give_a_report_without_a_number_that_is_none(here, capsys, kind):
    folder_of(here / "odd", ODD[kind])
    reliance("--predictor", "mine:right_or_left", "--data", "odd", "--split", "all", "--limit", 99, "--out", "out")
    record, trials = strictly("out/reliance.json"), pd.read_parquet("out/reliance.parquet")
    assert record["n_images"] == len(ODD[kind]) and len(trials) > 10 * record["n_samples"]
    assert np.isfinite(trials[["dsc", "iou", "iou_with_own"]]).all(axis=None)
    if len(ODD[kind]) == 1:
        assert record["decides"] == "too few to tell" and record["own"]["low"] is None
    if kind == "nothing to find anywhere":
        assert record["n_empty_truth"] == 16 and record["following"] is None
    page = re.sub('"data:image[^"]*"', "", Path("out/reliance.html").read_text())
    for said in (capsys.readouterr().out, page):
        assert not re.search(r"\bnan\b|\bNone\b|-0\.0\b", said), re.search(r".*(nan|None|-0\.0).*", said)[0]


@pytest.mark.usefixtures("without_page")
def test_structures_of_one_image_with_equal_prompts_are_not_told_apart(here):
    folder_of(here / "odd", {f"im{k}": (noise(seed=k), {"a": block(), "b": block(place=16)}) for k in range(7)})
    (here / "odd/list.csv").write_text("image,p1\n" + "".join(f"im{k}.png,block\n" for k in range(7)))
    reliance("--predictor", "mine:right_or_left", "--data", "odd", "--split", "all", "--out", "out")
    record = strictly("out/reliance.json")
    assert (record["n_samples"], record["following"], record["fit_no_sample"][0]) == (14, None, "other_sample")
    assert "All have the same prompt" in record["paragraph"]


def test_two_runs_write_the_same_bytes(here):
    for out in ("one", "two"):
        reliance("--predictor", "mine:right_or_left", "--data", "data", "--split", "all", "--out", out)
    for name in ("reliance.json", "reliance.parquet", "reliance.html"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


@pytest.mark.usefixtures("without_page")
def test_a_limit_and_a_split_choose_what_is_examined(here, capsys):
    reliance("--predictor", "mine:right_or_left", "--data", "data", "--split", "all", "--limit", 3, "--out", "out")
    record = read_json("out/reliance.json")
    assert (record["n_images"], record["decides"]) == (3, "too few to tell")
    said = capsys.readouterr().out
    assert "nan" not in said and "None" not in said
    assert record["controls"]["oracle"]["n_images"] == 3
    reliance("--predictor", "mine:right_or_left", "--data", "data", "--split", "train", "--limit", 1, "--out", "out")
    assert re.search("split train has [1-7] of the 8 images of data; --split all takes", capsys.readouterr().err)
    with pytest.raises(SystemExit, match="no samples in split 'valid'; its splits are .*--split all"):
        reliance("--predictor", "mine:right_or_left", "--data", "data", "--split", "valid", "--out", "out")


def test_a_prepared_dataset_is_taken_as_it_is(here, capsys):
    halves(here / "halves")
    reliance("--predictor", "mine:right_or_left", "--data", "halves", "--out", "out")
    record = read_json("out/reliance.json")
    assert record["data"] == "halves, split test"
    unmade = [f"level_p{level}" for level in range(3, 10)] + ["flip_size", "flip_shape"]
    assert record["fit_no_sample"] == unmade  # its prompts name neither, and have no more levels
    said = "Could not be made on any sample of these data: level P3, "
    assert said in capsys.readouterr().out and said in Path("out/reliance.html").read_text()


@pytest.mark.usefixtures("without_page")
def test_the_current_folder_is_named_as_data(here, monkeypatch):
    monkeypatch.chdir(here / "data")
    (here / "data/mine.py").write_text(MODULE)
    reliance("--predictor", "mine:right_or_left", "--data", ".", "--split", "all", "--limit", 2)
    assert read_json("reports/reliance/reliance.json")["data"] == "data"


@pytest.mark.parametrize(("name", "said"), [
    ("mine", "write it as module:function"), ("mine:", "write it as module:function"),
    ("absent:f", "no module 'absent' in "), ("mine:right_or_lef", "did you mean 'right_or_left'"),
    ("mine:number", "unknown function in mine 'number': .*valid values are .*right_or_left"),
    ("broken:f", "importing broken fails with ModuleNotFoundError: No module named 'absent'"),
    ("failing:f", "importing failing fails with ZeroDivisionError"),
    ("script:f", "importing script fails with SystemExit: 2"),
    ("mine:flat", r"mine:flat gives shape \(5,\) .*image 'im\d', prompt '"),
    ("mine:nan", r"mine:nan gives values that are no numbers .*image 'im\d', prompt '"),
    ("grave:f", "importing grave fails with Grave: at once"),
    ("mine:grave", r"mine:grave fails with Grave: no card .*image 'im\d', prompt '"),
    ("mine:foreign", r"mine:foreign gives Tensor, which is no array \(on a card\) .*image 'im\d', prompt '"),
    ("mine:stopping", "featherseg: interrupted"),
    ("mine:raising", r"mine:raising fails with RuntimeError: out of memory .*image 'im\d', prompt '"),
])
def test_a_predictor_that_cannot_be_used_is_one_sentence_and_nothing_is_written(here, name, said):
    Path("broken.py").write_text("import absent\n")
    Path("failing.py").write_text("1 / 0\n")
    Path("script.py").write_text("raise SystemExit(2)\n")
    Path("grave.py").write_text("class Grave(BaseException): pass\nraise Grave('at once')\n")
    with pytest.raises(SystemExit, match=said) as ended:
        reliance("--predictor", name, "--data", "data", "--split", "all", "--out", "out")
    assert "\n" not in str(ended.value.code) and not Path("out").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    ([], "either a predictor .* or a run"),
    (["--predictor", "mine:f", "--run", "x"], "either a predictor .* or a run"),
    (["--predictor", "mine:right_or_left"], "name the data"),
    (["--predictor", "mine:right_or_left", "--data", "data", "--limit", "0"], "the limit is 0"),
    (["--predictor", "mine:right_or_left", "--data", "nowhere"], "nowhere does not exist"),
    (["--predictor", "mine:right_or_left", "--data", "absent"], "not prepared: asked for"),
    (["--predictor", "mine:right_or_left", "--data", "data", "--out", "mine.py"], "is a file"),
    (["--run", "x"], "holds no run"),
])
def test_what_is_missing_is_said(here, arguments, said):
    write_not_run(Path("absent"), "asked for")
    with pytest.raises(SystemExit, match=said):
        reliance(*arguments)


@pytest.mark.usefixtures("without_page")
def test_a_run_is_examined_on_its_own_data_by_its_own_settings(here):
    from tiny_run import make_run, write_dataset, write_training, write_weights

    write_dataset(here / "data/processed/discs", images=3)
    run = make_run(write_weights(here / "weights"), prompts="p1", threshold=0.4)
    write_training(run, here / "runs/study/train" / run.name)
    write_run(here / "runs/study/plan", run)
    reliance("--run", run.name, "--out", "out")
    record = read_json("out/reliance.json")
    assert (record["model"], record["data"], record["prompts"], record["threshold"], record["seed"]) == (
        run.name, "discs, split test", "p1", 0.4, 3)
    assert record["n_images"] == 3 and record["n_empty_truth"] == 1


@pytest.mark.parametrize(("modules", "heavy"), [
    ("featherseg.reliance.measure, featherseg.reliance.examine", {"torch", "transformers", "matplotlib"}),
    ("featherseg.reliance.page, featherseg.reporting.overlays", {"torch", "transformers"})])
def test_neither_the_suite_nor_its_page_imports_torch(modules, heavy):
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}\nprint(*{heavy} & set(sys.modules))"],
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


DECLARED = {
    "path": "soft", "class_name": "polyp", "threshold": 100, "field": "endoscopy",
    "descriptions": {"polyp": ["often a pinkish bump"]},
}


@pytest.fixture
def declared(here):
    """A folder of grey masks that only its declaration makes usable, and a way to declare it under some names."""
    for k in range(8):
        (here / "soft/images").mkdir(parents=True, exist_ok=True)
        (here / "soft/masks").mkdir(exist_ok=True)
        Image.fromarray(noise(seed=k)).save(here / f"soft/images/im{k}.png")
        Image.fromarray(block().astype(np.uint8) * 130 + 7 * k).save(here / f"soft/masks/im{k}.png")

    def declare(**folders):
        study = {"recipes": [], "datasets": [], "seeds": [0]}
        write_yaml("params.yaml", {"study": study, "data": {"folders": folders}})

    return declare


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize("data", ["soft", "./soft/", "{here}/soft", "images/../soft", "linked", "mine_soft"])
def test_a_declared_folder_is_prepared_as_it_is_declared(here, declared, capsys, data):
    declared(mine_soft=DECLARED)
    (here / "images").mkdir()
    (here / "linked").symlink_to(here / "soft")
    reliance("--predictor", "mine:right_or_left", "--data", data.format(here=here), "--split", "all", "--limit", 2,
             "--out", "out")
    own = pd.read_parquet("out/reliance.parquet").query("text_condition == 'own'")
    assert set(own.target) == {"polyp"} and own.prompt.str.contains("which is often a pinkish bump").all()
    assert "threshold 100" in capsys.readouterr().err
    assert read_json("out/reliance.json")["data"] == "mine_soft"


@pytest.mark.usefixtures("without_page")
def test_a_folder_that_is_not_declared_keeps_the_default_settings(here, declared):
    declared(mine_soft=DECLARED, data=DECLARED)  # the name of another folder that is there
    reliance("--predictor", "mine:right_or_left", "--data", "data", "--split", "all", "--limit", 2, "--out", "out")
    assert set(pd.read_parquet("out/reliance.parquet").target) == {"left block", "right block"}


@pytest.mark.usefixtures("without_page")
def test_of_a_folder_declared_twice_the_name_is_asked_for(here, declared):
    declared(first=DECLARED, second=DECLARED | {"class_name": "lump", "descriptions": {}, "field": "general"})
    with pytest.raises(SystemExit, match="declares soft as first and as second; name one of these"):
        reliance("--predictor", "mine:right_or_left", "--data", "soft", "--out", "out")
    reliance("--predictor", "mine:right_or_left", "--data", "second", "--split", "all", "--limit", 2, "--out", "out")
    assert set(pd.read_parquet("out/reliance.parquet").target) == {"lump"}
