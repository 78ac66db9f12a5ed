"""From params and recipes to runs: who decides a value, which runs a change reaches, what is refused."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides
from PIL import Image

from featherseg.adapters import METHODS
from featherseg.check import check_project, studies
from featherseg.cli import main
from featherseg.config import Params, PretrainParams, parse, read_run, read_yaml, write_yaml
from featherseg.core.errors import UserError
from featherseg.data.prepared import PreparedWriter
from featherseg.models import MODELS
from featherseg.plan import (
    idle_knob_notes,
    missing,
    read_recipe,
    resolve_study,
    section_of,
    uncommitted_lock_notes,
    write_plan,
)
from featherseg.recipes import recipe_names, resolved
from featherseg.tasks.segmentation.config import LossConfig, SegmentationEvaluate, SegmentationTrain

ROOT = Path(__file__).parents[2]
STUDIES = ("study", *sorted(path.parent.name for path in ROOT.glob("pipelines/*/dvc.yaml")
                            if "featherseg plan" in path.read_text()))
ALL_NULL = {"positions": None, "dim": None, "cond_dim": None, "rank": None, "alpha": None, "targets": None}
PLANNING = """
import sys
from featherseg.cli import main

main(["plan"])
main(["check", "--params-only"])
print(*sys.modules)
"""
KNOBLESS = {"clipseg-zero_shot", "clipseg-decoder", "clipseg-decoder-published", "clipseg-full"}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project with the real recipes and a params file of its own, as the working directory."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plans_of_all(tmp_path_factory) -> dict[str, bytes]:
    """The plan files of every recipe on one dataset, where params set no knob."""
    root = tmp_path_factory.mktemp("all")
    shutil.copytree(ROOT / "recipes", root / "recipes")
    with contextlib.chdir(root):
        declare(recipe_names())
        return planned()


def declare(recipes=("clipseg-decoder", "clipseg-vlsm_dense-v"), datasets=("lesions",), seeds=(0,), *,
            data=None, model=None, **sections) -> None:
    write_yaml("params.yaml", {
        "study": {"recipes": list(recipes), "datasets": list(datasets), "seeds": list(seeds)},
        "model": model or {"weights": dict.fromkeys(MODELS, "random")},
        "data": data or {"synthetic": {name: {"images": 10, "size": 64} for name in ("lesions", "organs")},
                         "official": ["kvasir_seg", "isic2016"]},
        **sections})


def planned() -> dict[str, bytes]:
    """The runs' plan files by name, after planning anew."""
    write_plan("study")
    return {path.name: path.read_bytes() for path in Path("runs/study/plan").glob("*.yaml")}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def refusal(study: str = "study") -> str:
    with pytest.raises(UserError) as refused:
        write_plan(study)
    assert "\n" not in str(refused.value)
    assert not Path("runs").exists()
    return str(refused.value)


def test_params_override_the_recipe_and_the_recipe_the_default(project):
    write_yaml("recipes/mine.yaml", {
        "title": "mine", "model": "clipseg", "adapter": {"name": "vlsm_dense", "dim": 8, "positions": "V"},
        "train": {"lr": 0.5, "epochs": 7, "loss": {"lambda_ce": 0.25}}, "evaluate": {"threshold": 0.25}})
    declare(["mine"], adapter={"dim": 32}, train={"epochs": 3, "loss": {"lambda_dice": 2.0}},
            evaluate={"batch_size": 4})
    run, = resolve_study("study")
    assert run.adapter == {"name": "vlsm_dense", "dim": 32, "positions": "V"}
    assert (run.train.epochs, run.train.lr, run.train.weight_decay) == (3, 0.5, SegmentationTrain().weight_decay)
    assert run.train.loss == LossConfig(lambda_dice=2.0, lambda_ce=0.25)
    assert run.evaluate == SegmentationEvaluate(threshold=0.25, batch_size=4)


def test_null_in_params_keeps_the_recipe(project):
    recipes = [name for name in recipe_names() if not name.startswith("clipseg-zero_shot")]
    declare(recipes)
    before = planned()
    declare(recipes, adapter=ALL_NULL, train={**dict.fromkeys(SegmentationTrain.model_fields),
                                              "loss": dict.fromkeys(LossConfig.model_fields)},
            evaluate=dict.fromkeys(SegmentationEvaluate.model_fields))
    assert changed(before, planned()) == set()


def test_a_null_section_of_the_loss_keeps_the_recipe_too(project):
    declare(["clipseg-decoder-published"])
    before = planned()
    declare(["clipseg-decoder-published"], train={"loss": None})
    assert changed(before, planned()) == set()


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_resolves_and_holds_only_knobs_that_its_method_has(project, name):
    declare([name])
    write_plan("study")
    run = read_run(f"runs/study/plan/{name}-lesions-0.yaml")
    method = METHODS[run.adapter["name"]]
    assert set(run.adapter) <= set(method.Config.model_fields)
    assert (run.train is None) == (not method.trains)
    conditional = "C" in (run.adapter.get("positions") or "")
    assert ("cond_dim" in run.adapter) == conditional


def test_another_width_reaches_exactly_the_runs_that_have_it(project):
    declare(recipe_names(), datasets=["lesions", "organs"])
    before = planned()
    declare(recipe_names(), datasets=["lesions", "organs"], adapter={"dim": 48})
    wide = ("vlsm_", "bridger", "houlsby", "dense_aligner")
    with_dim = {f"{name}-{dataset}-0.yaml" for name in recipe_names() if any(method in name for method in wide)
                for dataset in ("lesions", "organs")}
    assert len(with_dim) == 2 * (8 + 17 + 8 + 2 + 4 + 7 + 1 + 8)
    assert changed(before, planned()) == with_dim


@pytest.mark.parametrize(("knob", "reached"), [
    ("cond_dim", ("-vlc",)), ("rank", ("-lora",)), ("alpha", ("-lora",)), ("heads", ("-bridger",)),
])
def test_a_knob_reaches_exactly_the_runs_that_have_it(project, plans_of_all, knob, reached):
    reached = [name for name in recipe_names() if any(part in name for part in reached)]
    assert len(reached) > 4
    declare(recipe_names(), adapter={knob: 3})
    assert changed(plans_of_all, planned()) == {f"{name}-lesions-0.yaml" for name in reached}


PARTS = ("hierarchical_alignment", "global_alignment", "projector")
WITH_ITS_HEAD = {path.stem for path in (ROOT / "recipes").glob("*etris_*.yaml")}
RECIPES = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
OF_CRIS = {path.stem for path in (ROOT / "recipes").glob("cris-*.yaml")}


@pytest.mark.parametrize(("knob", "value", "having", "has_it"), [
    ("head_parts", ["projector"], WITH_ITS_HEAD, "nobody"),
    ("head_parts", ["projector", "global_alignment"], WITH_ITS_HEAD, "-no_hierarchical$"),
    ("head_parts", list(PARTS), WITH_ITS_HEAD, "^((?!-no_).)*$"),
    ("upsampling", "published_bicubic", WITH_ITS_HEAD | OF_CRIS, "etris.*-published$|cris-full-referring-published"),
    ("upsampling", "bilinear", WITH_ITS_HEAD | OF_CRIS, "etris((?!-published).)*$"),
    ("upsampling", "bicubic", WITH_ITS_HEAD | OF_CRIS, "cris-((?!referring-published).)*$"),
    ("way_back", "published_cubic", RECIPES, "etris.*-published$|cris-full-referring-published"),
    ("way_back", "bilinear", RECIPES, "^((?!-published).)*$")])
def test_a_knob_reaches_the_runs_of_the_models_that_have_it(project, plans_of_all, knob, value, having, has_it):
    declare(recipe_names(), model={"weights": dict.fromkeys(MODELS, "random"), knob: value})
    reached = {name for name in having if not re.search(has_it, name)}
    assert changed(plans_of_all, planned()) == {f"{name}-lesions-0.yaml" for name in reached}


@pytest.mark.parametrize(("knob", "value"), [("resize", "squash"), ("word_length", 9), ("decoder_dropout", 0.3),
                                             ("text_dropout", 0.2)])
def test_a_knob_that_is_taken_where_it_is_named_reaches_no_other_recipe(project, plans_of_all, knob, value):
    naming = {name for name in recipe_names() if knob in resolved(name)}
    assert naming
    declare(recipe_names(), model={"weights": dict.fromkeys(MODELS, "random"), knob: value})
    assert changed(plans_of_all, planned()) == {f"{name}-lesions-0.yaml" for name in naming}


def test_parts_of_the_head_are_a_set(project):
    plans = []
    for parts in (["projector", "global_alignment"], ["global_alignment", "projector"]):
        declare(["etris_vit-bridger"], model={"weights": {"etris_vit": "random"}, "head_parts": parts})
        plans.append(planned())
    assert plans[0] == plans[1]
    knobs = read_run("runs/study/plan/etris_vit-bridger-lesions-0.yaml").model.knobs
    assert knobs["head_parts"] == list(PARTS[1:])


@pytest.mark.parametrize(("model", "words"), [
    ({"head_parts": []}, "key 'model.head_parts': .* at least 1 item"),
    ({"head_parts": ["projector", "projector"]}, "key 'model.head_parts': a part is named twice"),
    ({"head_parts": ["neck"]}, "key 'model.head_parts.0': input should be 'hierarchical_alignment'")])
def test_a_head_that_no_run_has_is_refused(project, model, words):
    declare(model={"weights": {"clipseg": "random"}} | model)
    assert re.search(words, refusal())


@pytest.mark.parametrize(("model", "knob", "value"), [
    ("clipseg", "upsampling", "published_bicubic"), ("clipseg", "word_length", 9),
    ("clipseg", "frozen_batchnorm", "fixed"), ("clipseg", "resize", "squash"), ("etris_r50", "decoder_dropout", 0.2),
    ("etris_vit", "tap_offset", 1), ("cris", "side_fusion", "fixed")])
def test_a_recipe_with_a_knob_that_its_model_lacks_is_refused(project, model, knob, value):
    write_yaml("recipes/mine.yaml", {"title": "mine", "model": model, "adapter": {"name": "decoder"}, knob: value})
    declare(["mine"])
    assert f"recipes/mine.yaml: '{knob}' is set, but model '{model}' has no such knob" in refusal()


def test_a_knob_without_effect_where_it_is_not_named_is_one_of_its_model():
    for name in MODELS:
        assert MODELS[name].knobs.where_named <= set(MODELS[name].knobs.model_fields), name


@pytest.mark.parametrize(("change", "words"), [
    ({"titel": "x"}, "recipes/mine.yaml: unknown key 'titel': did you mean 'title'?"),
    ({"image_sise": 64}, "recipes/mine.yaml: unknown key 'image_sise': did you mean 'image_size'?"),
    ({"way_back": "cubic"}, "recipes/mine.yaml: key 'way_back': input should be 'bilinear'"),
    ({"image_size": {"default": 64, "organs": "large"}}, "recipes/mine.yaml: key 'image_size': .* but it is 'large'"),
    ({"image_size": {"organs": 64}}, "image_size by dataset needs the key 'default'")])
def test_a_misspelt_key_or_value_of_a_recipe_is_named(project, change, words):
    write_yaml("recipes/mine.yaml", {"title": "mine", "model": "clipseg", "adapter": {"name": "decoder"}} | change)
    declare(["mine"])
    assert re.search(words, refusal())


def test_a_knob_may_have_one_value_by_dataset(project):
    write_yaml("recipes/mine.yaml", {"title": "mine", "model": "clipseg", "adapter": {"name": "decoder"},
                                     "image_size": {"default": 64, "organs": 96}})
    declare(["mine"], ["lesions", "organs"])
    assert [run.model.image_size for run in resolve_study("study")] == [64, 96]


@pytest.mark.parametrize(("model", "words"), [
    ({"image_sise": 64}, "unknown key in params.yaml 'model.image_sise': did you mean 'model.image_size'.*model.weig"),
    ({"image_size": "large"}, "params.yaml: key 'model.image_size': .*integer.*'large'"),
    ({"recognition": True}, "params.yaml: key 'model.recognition'")])
def test_a_misspelt_knob_or_value_of_the_params_is_named(project, model, words):
    declare(model={"weights": {"clipseg": "random"}} | model)
    assert re.search(words, refusal())


@pytest.mark.parametrize(("section", "said"), [
    ({"train": {"epochz": 3}}, "recipes/mine.yaml: train: unknown key 'epochz'"),
    ({"train": {"val_split": {"default": "val", "lesions": "test"}}}, None),
    ({"evaluate": {"splits": []}}, "recipes/mine.yaml: evaluate: key 'splits'")])
def test_a_recipe_of_no_study_is_read_to_its_last_key(project, section, said):
    write_yaml("recipes/mine.yaml", {"title": "mine", "model": "clipseg", "adapter": {"name": "decoder"}} | section)
    declare()
    found = [fault for fault in check_project(["study"]) if "mine" in fault]
    assert len(found) == (1 if said else 0) and all(said in fault for fault in found)


def test_evaluation_settings_change_no_training_plan(project):
    declare()
    before = planned()
    declare(evaluate={"threshold": 0.3, "prompts": "p2"})
    assert changed(before, planned()) == {"clipseg-decoder-lesions-0.evaluate.yaml",
                                          "clipseg-vlsm_dense-v-lesions-0.evaluate.yaml"}


def test_training_settings_leave_what_is_not_trained_alone(project):
    declare(["clipseg-zero_shot", "clipseg-decoder"])
    before = planned()
    declare(["clipseg-zero_shot", "clipseg-decoder"], train={"epochs": 3})
    assert changed(before, planned()) == {"clipseg-decoder-lesions-0.yaml"}


def test_a_setting_without_effect_changes_no_plan(project):
    declare(train={"schedule": "cosine"})
    before = planned()
    declare(train={"schedule": "cosine", "patience": 3, "share": 1})
    assert changed(before, planned()) == set()


def test_further_seeds_and_datasets_add_runs_and_change_none(project):
    declare()
    before = planned()
    declare(seeds=[0, 1])
    with_seed = planned()
    assert changed(before, with_seed) == set(with_seed) - set(before)
    declare(datasets=["lesions", "organs"])
    with_set = planned()
    assert changed(before, with_set) == set(with_set) - set(before)


def test_a_run_that_is_no_longer_declared_leaves_the_plan(project):
    declare(seeds=[0, 1])
    planned()
    declare(seeds=[1])
    assert all("-1." in name for name in planned())


def test_equal_params_in_another_order_give_byte_equal_plans(project):
    declare(train={"epochs": 3, "lr": 0.1})
    before = planned()
    text = read_yaml("params.yaml")
    write_yaml("params.yaml", dict(reversed(text.items())) | {"train": {"lr": 0.1, "epochs": 3}})
    assert planned() == before


def test_where_the_project_lies_is_not_part_of_a_plan(project, monkeypatch):
    declare()
    before = planned()
    shutil.copytree(project, project / "copy")
    monkeypatch.chdir(project / "copy")
    assert planned() == before


def test_other_weights_reach_every_run(project):
    folder = Path("weights")
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    declare(model={"weights": {"clipseg": "weights"}})
    before = planned()
    (folder / "model.safetensors").write_bytes(b"two")
    assert changed(before, planned()) == {name for name in before if ".evaluate." not in name}


def test_weights_that_are_not_to_be_had_are_handed_on_with_their_reason(project):
    Path("weights").mkdir()
    Path("weights/status.json").write_text('{"status": "not_run", "reason": "the hub is out of reach"}')
    declare(model={"weights": {"clipseg": "weights"}})
    assert {run.not_run for run in write_plan("study")} == {"the hub is out of reach"}
    assert read_run("runs/study/plan/clipseg-decoder-lesions-0.yaml").not_run == "the hub is out of reach"


@pytest.mark.parametrize(("change", "said"), [
    ({"recipes": ["clipseg-decodr"]}, ["recipe", "'clipseg-decodr'", "'clipseg-decoder'", "clipseg-lora"]),
    ({"datasets": ["lesion"]}, ["dataset", "'lesion'", "did you mean 'lesions'?", "kvasir_seg"]),
    ({"adapter": {"dmi": 8}}, ["'adapter.dmi'", "did you mean 'adapter.dim'?", "adapter.rank"]),
    ({"train": {"epoch": 8}}, ["'train.epoch'", "did you mean 'train.epochs'?", "train.lr"]),
    ({"train": {"epoch": None}}, ["'train.epoch'", "did you mean 'train.epochs'?"]),
    ({"train": {"loss": {"lamda_dice": 1}}}, ["'train.loss.lamda_dice'", "did you mean 'train.loss.lambda_dice'?"]),
    ({"train": {"loss": "dice"}}, ["train.loss", "'dice'"]),
    ({"train": {"loss": 3}}, ["train.loss", "3"]),
    ({"evaluate": {"treshold": 0.4}}, ["'evaluate.treshold'", "did you mean 'evaluate.threshold'?"]),
    ({"model": {"weights": {"clipsegg": "random"}}}, ["'clipsegg'", "did you mean 'clipseg'?"]),
    ({"model": {"weights": {}}}, ["model.weights", "clipseg: random"]),
    ({"adapter": {"dim": 0}}, ["dim", "greater than 0", "0"]),
    ({"adapter": {"dim": "wide"}}, ["dim", "integer", "'wide'"]),
    ({"adapter": {"dim": [8, 16]}}, ["dim", "integer"]),
    ({"adapter": {"positions": "LV"}}, ["positions", "'V', 'VL' or 'VLC'", "'LV'"]),
    ({"train": {"lr": -1}}, ["lr", "greater than 0"]),
    ({"train": {"lr": {"decoder": 0.1}}}, ["lr", "number", "decoder"]),
    ({"train": {"share": 0}}, ["share", "greater than 0"]),
    ({"train": {"share": 1.5}}, ["share", "less than or equal to 1"]),
    ({"train": {"schedule": "cosin"}}, ["schedule", "'cosine'", "'cosin'"]),
    ({"train": {"loss": {"form": "sigmoid"}}}, ["loss.form", "'logits'", "'sigmoid'"]),
    ({"evaluate": {"threshold": 1.5}}, ["threshold", "less than 1"]),
    ({"evaluate": {"prompts": "longest"}}, ["prompts", "'fullest'"]),
    ({"adapter": {"targets": []}, "recipes": ["clipseg-lora"]}, ["targets", "at least 1 item"]),
    ({"evaluate": {"splits": []}}, ["splits", "at least 1 item"]),
    ({"evaluate": {"splits": ["val", "val"]}}, ["splits", "a split is named twice"]),
    ({"model": {"weights": {"clipseg": "random"}, "image_size": 8192}}, ["image_size", "2048"]),
    ({"data": {"synthetic": {"lesions": {"images": 10, "size": 10**9}}}}, ["lesions.size", "8192"]),
    ({"recipes": []}, ["study.recipes", "empty"]),
    ({"seeds": [0, 0]}, ["study.seeds", "twice"]),
    ({"seeds": [2**64]}, ["study.seeds.0", "4294967295"]),
    ({"data": {"synthetic": {}}}, ["dataset", "'lesions'"]),
    ({"data": {"synthetic": {"leisons": {"images": 10, "size": 64}}}}, ["data.synthetic", "did you mean 'lesions'?"]),
    ({"data": {"official": ["kvasir"]}}, ["data.official", "did you mean 'kvasir_seg'?"]),
    ({"data": {"folders": {"a/b": {"path": "x"}}}}, ["a/b", "a name consists of letters"]),
    ({"data": {"folders": {"-v": {"path": "x"}}}}, ["-v", "a name consists of letters"]),
    ({"data": {"folders": {"NA": {"path": "x"}}}}, ["NA", "missing value"]),
    ({"data": {"pooled": {"null": {"train": ["lesions"], "test": ["lesions"]}}}}, ["null", "missing value"]),
    ({"datasets": ["nan"]}, ["nan", "missing value"]),
    ({"datasets": ["$(touch x)"]}, ["a name consists of letters"]),
    ({"recipes": ["x;touch PWNED;"]}, ["x;touch PWNED;", "a name consists of letters"]),
    ({"data": {"synthetic": {"lesions": {"images": 10, "size": 64}}, "folders": {"lesions": {"path": "x"}}}},
     ["two datasets of the name 'lesions'"]),
    ({"data": {"folders": {"busi": {"path": "x"}}, "official": ["busi"]}}, ["two datasets of the name 'busi'"]),
])
def test_what_cannot_be_run_is_refused_in_one_sentence_and_nothing_is_written(project, change, said):
    declare(**change)
    message = refusal()
    assert [part for part in said if part not in message] == []
    assert "params.yaml" in message


@pytest.mark.parametrize(("recipe", "said"), [
    ({"adapter": {"name": "vlsm_dens"}}, ["'vlsm_dens'", "'vlsm_dense'", "decoder", "lora"]),
    ({"adapter": {}}, ["adapter.name", "missing", "lora"]),
    ({"adapter": {"name": "decoder", "dim": 8}}, ["'dim'"]),
    ({"model": "clipsegg"}, ["'clipsegg'", "'clipseg'"]),
    ({"task": "segmentatoin"}, ["'segmentatoin'", "'segmentation'"]),
    ({"train": None}, ["'decoder' needs a section train"]),
    ({"adapter": {"name": "zero_shot"}}, ["'zero_shot'", "nothing to train"]),
    ({"titel": "x"}, ["'titel'", "did you mean 'title'?"]),
    ({"train": {"lrate": 1}}, ["lrate"]),
])
def test_a_recipe_that_cannot_be_run_is_refused_with_its_file(project, recipe, said):
    write_yaml("recipes/mine.yaml", {"title": "mine", "model": "clipseg", "adapter": {"name": "decoder"}, **recipe})
    declare(["mine"])
    message = refusal()
    assert [part for part in ["recipes/mine.yaml", *said] if part not in message] == []


def test_an_unknown_study_is_refused(project):
    declare()
    assert "pipelines/paper/params.yaml" in refusal("paper")


def test_a_refused_plan_leaves_the_earlier_one(project):
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path("runs/study/plan").iterdir()}

    declare()
    write_plan("study")
    before = files()
    declare(adapter={"dmi": 8})
    with pytest.raises(UserError):
        write_plan("study")
    assert files() == before


def test_every_knob_stands_in_the_root_params_since_set_refuses_others():
    params = read_yaml(ROOT / "params.yaml")
    parse(Params, params, "params.yaml")
    adapters = {knob for name in METHODS for knob in METHODS[name].Config.model_fields} - {"name"}
    models = {knob for name in MODELS for knob in MODELS[name].knobs.model_fields}
    assert set(params["adapter"]) == adapters
    assert set(params["model"]) == models | {"weights"}
    assert set(params["train"]) == set(SegmentationTrain.model_fields)
    assert set(params["train"]["loss"]) == set(LossConfig.model_fields)
    assert set(params["evaluate"]) == set(SegmentationEvaluate.model_fields)


@pytest.mark.parametrize("study", [study for study in STUDIES if study != "study"])
def test_a_papers_params_state_differences_only(study):
    text = (ROOT / "pipelines" / study / "params.yaml").read_text()
    assert "null" not in text
    assert f"dvc exp run -S 'pipelines/{study}/params.yaml:+adapter.dim=8'" in text


def test_a_knob_that_a_papers_params_lack_is_appended_and_reaches_its_runs(project):
    shutil.copytree(ROOT / "pipelines", "pipelines", ignore=shutil.ignore_patterns("weights"))
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    path = Path("pipelines/etris/params.yaml")
    before = {run.name: run.adapter for run in resolve_study("etris")}
    with pytest.raises(InvalidArgumentError) as refused:
        apply_overrides(path, ["adapter.dim=16"])
    assert "use +adapter.dim=16" in str(refused.value.__cause__)
    apply_overrides(path, ["+adapter.dim=16"])
    for run in resolve_study("etris"):
        assert run.adapter == before[run.name] | ({"dim": 16} if "dim" in run.adapter else {})


@pytest.mark.parametrize("path", ["dvc.yaml", *(f"pipelines/{study}/dvc.yaml" for study in (
    "vlsm_adapter", "etris", "medvlsm", "prompt_levels", "real_images", "real_levels", "real_shares", "referring"))])
def test_runs_depend_on_the_digests_of_their_code_and_on_no_source(path):
    stages = read_yaml(ROOT / path)["stages"]
    for stage, code in (("plan", "plan.json"), ("train", "train/${item.recipe}.json"),
                        ("evaluate", "evaluate/${item.recipe}.json"), ("collect", "collect.json"),
                        ("notebook", "notebook/${item.name}.json")):
        assert [dep for dep in stages[stage]["deps"] if dep.startswith(("src", "runs/code"))] == [f"runs/code/{code}"]
    assert read_yaml(ROOT / "dvc.yaml")["stages"]["code"]["outs"] == ["runs/code"]


def test_the_papers_pipelines_are_one_text_but_for_names_weights_notebooks_and_pools():
    own = r"^ *- (name: |data/weights/|pipelines/pretrain/weights)|^ *name: \[|^#"
    texts = set()
    for study in STUDIES[1:]:
        text = (ROOT / "pipelines" / study / "dvc.yaml").read_text()
        text = re.sub(r"^  pool_.*?(?=^  plan:)", "", text, flags=re.M | re.S)
        texts.add("\n".join(line for line in text.splitlines() if not re.search(own, line)))
    assert len(texts) == 1


def test_whatever_is_drawn_taken_over_or_fetched_waits_for_the_check_of_every_study(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = read_yaml(ROOT / "pipelines/data/dvc.yaml")["stages"]
    assert {name for entry in stages["check"]["params"] for name in entry} == {
        "params.yaml", *(f"pipelines/{study}/params.yaml" for study in studies() if study != "study")}
    for name, stage in stages.items():
        deps = stage.get("do", stage)["deps"]
        assert name == "check" or any(dep.startswith(("runs/check.json", "data/raw", "data/processed", "data/weights"))
                                      for dep in deps), name


def test_the_pretraining_params_are_valid():
    path = "pipelines/pretrain/params.yaml"
    for name, given in read_yaml(ROOT / path).items():
        assert parse(PretrainParams, given, path).model in MODELS, name


def test_the_papers_study_declares_its_sets_rows_and_seeds_and_says_what_is_missing(project, capsys):
    shutil.copytree(ROOT / "pipelines", "pipelines", ignore=shutil.ignore_patterns("weights"))
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    main(["plan", "--study", "vlsm_adapter", "--list"])
    lines = capsys.readouterr().out.splitlines()
    study = read_yaml("pipelines/vlsm_adapter/params.yaml")["study"]
    assert len(study["datasets"]) == 8 and len(study["seeds"]) == 3
    assert len(lines) == 8 * 3 * len(study["recipes"])
    line = next(line for line in lines if line.startswith("clipseg-decoder-kvasir_seg-41 "))
    assert "not run: " in line and "data/weights/clipseg-rd64-refined" in line and "kvasir_seg" in line
    assert not Path("runs").exists()


def test_the_list_says_what_each_run_lacks(project):
    declare(["clipseg-decoder"], datasets=["lesions", "kvasir_seg", "isic2016"])
    prepared = Path("data/processed/isic2016")
    prepared.mkdir(parents=True)
    (prepared / "status.json").write_text('{"status": "not_run", "reason": "no archive"}')
    lacks = {run.dataset: missing(run, {}) for run in resolve_study("study")}
    assert lacks["lesions"] is None
    assert "kvasir_seg" in lacks["kvasir_seg"]
    assert lacks["isic2016"] == "no archive"


@pytest.mark.parametrize(("given", "words"), [
    ({"mine": "kvasir"}, "data.as_published.mine 'kvasir': did you mean 'kvasir_seg'"),
    ({"mine": "camvid"}, "data.as_published.mine 'camvid'"), ({"lesions": "kvasir_seg"}, "two datasets of the name"),
    ({"mine": "kvasir_seg"}, None)])
def test_a_set_as_published_is_one_of_the_official_sets_with_lists(project, given, words):
    declare(datasets=["mine" if words is None else "lesions"],
            data={"synthetic": {"lesions": {"images": 9, "size": 32}}, "official": ["kvasir_seg", "camvid"],
                  "as_published": given})
    if words:
        assert words in refusal()
    else:
        run, _ = resolve_study("study")
        assert missing(run, {}) == "data/processed/mine is not prepared yet"


def test_a_papers_params_cannot_declare_datasets(project):
    declare()
    Path("pipelines/paper").mkdir(parents=True)
    shutil.copy("params.yaml", "pipelines/paper/params.yaml")
    message = refusal("paper")
    assert "pipelines/paper/params.yaml" in message and "'data'" in message


def test_the_word_length_is_the_recipes_the_data_sets_or_the_params(project):
    recipe = resolved("etris_vit-decoder")
    write_yaml("recipes/words.yaml", recipe | {"word_length": {"default": 17, "organs": 22}})
    declare(recipes=["words", "clipseg-decoder"], datasets=["lesions", "organs"])
    lengths = {run.name: run.model.knobs.get("word_length") for run in resolve_study("study")}
    assert lengths == {"words-lesions-0": 17, "words-organs-0": 22,
                       "clipseg-decoder-lesions-0": None, "clipseg-decoder-organs-0": None}
    given = {"weights": {"clipseg": "random", "etris_vit": "random"}, "word_length": 30}
    declare(recipes=["words", "clipseg-decoder"], model=given)
    assert [run.model.knobs.get("word_length") for run in resolve_study("study")] == [30, None]
    declare(recipes=["clipseg-decoder"], model=given)
    assert "'model.word_length' is 30, which changes nothing" in idle_knob_notes("study")[0]


def test_the_validation_split_may_be_one_by_data_set(project):
    recipe = read_yaml("recipes/clipseg-decoder.yaml")
    recipe["train"] = recipe["train"] | {"val_split": {"default": "val", "organs": "testB"}}
    write_yaml("recipes/chosen.yaml", recipe)
    declare(recipes=["chosen"], datasets=["lesions", "organs"])
    assert [run.train.val_split for run in resolve_study("study")] == ["val", "testB"]
    write_yaml("recipes/chosen.yaml", recipe | {"train": recipe["train"] | {"val_split": {"organs": "testB"}}})
    assert "needs the key 'default'" in refusal()


def test_any_value_of_train_and_evaluate_may_be_one_by_data_set(project):
    own = {"epochs": {"default": 65, "organs": 50}, "schedule": "multistep",
           "milestones": {"default": [35, 55], "organs": [35]}, "prompts": {"default": "p6", "organs": "random"}}
    recipe = read_yaml("recipes/clipseg-decoder.yaml") | {
        "train": own, "evaluate": {"prompts": {"default": "p6", "organs": "random"}}}
    write_yaml("recipes/chosen.yaml", recipe)
    declare(recipes=["chosen"], datasets=["lesions", "organs"])
    resolved = [(run.train.epochs, run.train.milestones, run.train.prompts, run.evaluate.prompts)
                for run in resolve_study("study")]
    assert resolved == [(65, (35, 55), "p6", "p6"), (50, (35,), "random", "random")]
    declare(recipes=["chosen"], datasets=["lesions", "organs"], train={"prompts": "p1"}, evaluate={"prompts": "p2"})
    assert [(run.train.prompts, run.evaluate.prompts) for run in resolve_study("study")] == [("p1", "p2")] * 2
    declare(recipes=["chosen"])
    for section, key, value, words in (("train", "epochs", {"default": 65, "organs": 0}, "key 'epochs'"),
                                       ("evaluate", "prompts", {"default": "p6", "organs": "p99"}, "key 'prompts."),
                                       ("evaluate", "prompts", {"organs": "p6"}, "needs the key 'default'")):
        write_yaml("recipes/chosen.yaml", recipe | {section: recipe[section] | {key: value}})
        assert words in refusal(), (section, key)


@pytest.mark.parametrize(("recipe", "dataset", "epochs", "milestones"), [
    ("detris_b-dense_aligner", "refcoco", 65, (35, 55)),
    ("detris_b-dense_aligner-published", "refcocog_umd", 65, (35, 55)),
    ("detris_b-dense_aligner-published", "refcocog_google", 50, (35,)),
    ("detris_b-decoder", "refcocog_google", 50, (35,)),
    ("detris_l-dense_aligner-published", "refcocog_google", 50, (35,))])
def test_detris_trains_as_long_as_its_released_settings_of_a_data_set_say(project, recipe, dataset, epochs, milestones):
    train = parse(SegmentationTrain, section_of(read_recipe(recipe), "train", dataset), recipe)
    assert (train.epochs, train.milestones) == (epochs, milestones)


@pytest.mark.parametrize("recipe", ["clipseg-decoder-medvlsm-published", "cris-full-medvlsm-published",
                                    "biomedclipseg-decoder-published", "biomedclipseg_d-decoder-published"])
def test_medvlsms_recipes_ask_one_level_and_any_for_all_sets_pooled(project, recipe):
    for dataset, policy in (("kvasir_seg", "p6"), ("endoscopy", "p6"), ("all", "random")):
        train, evaluate = (section_of(read_recipe(recipe), section, dataset) for section in ("train", "evaluate"))
        assert {train["prompts"], train["val_prompts"], evaluate["prompts"]} == {policy}


def test_the_medical_recipes_wait_for_the_loss_and_the_referring_ones_choose_by_iou(project):
    published = {name: read_recipe(name) for name in RECIPES if name.endswith("-published")}
    referring = {name for name in published if re.search("etris|referring", name)}
    for name, recipe in published.items():
        train = parse(SegmentationTrain, section_of(recipe, "train"), name)
        if name in referring:
            assert (train.selection, train.last_batch, train.loss.shrink, train.val_threshold) == (
                "published_iou", "published_dropped", "published_nearest", 0.35), name
            assert (recipe.resize, recipe.upsampling, recipe.way_back) == (
                "published_warp", "published_bicubic", "published_cubic"), name
        else:
            assert (train.plateau_on, train.selection, recipe.way_back) == (
                "published_loss", "dsc", "published_nearest"), name
            assert train.val_threshold == (0.35 if name == "cris-full-medvlsm-published" else 0.5)
        assert (train.tower_positions == "published_full_rate") == (name == "cris-full-referring-published")
    assert (len(referring), len(published)) == (6, 15)


def test_another_schedule_leaves_the_recipes_milestones_behind(project):
    recipe = read_yaml("recipes/clipseg-decoder.yaml")
    recipe["train"] = recipe["train"] | {"schedule": "multistep", "milestones": [3]}
    write_yaml("recipes/steps.yaml", recipe)
    declare(recipes=["steps"])
    assert [run.train.milestones for run in resolve_study("study")] == [(3,)]
    declare(recipes=["steps"], train={"schedule": "cosine"})
    assert [run.train.milestones for run in resolve_study("study")] == [()]


# ---------------------------------------------------------------- splits that the data lack


def own_folder(name: str, listed: str | None = None, images: int = 10) -> dict:
    """Declares a folder of drawn pictures, with a list of one column beside the images' names."""
    for number in range(images):
        mask = np.zeros((16, 16), np.uint8)
        mask[2:9, 3:11] = 255
        for part, pixels in (("images", np.full((16, 16, 3), number, np.uint8)), ("masks", mask)):
            Path(name, part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(Path(name, part, f"{number:03}.png"))
    if listed is not None:
        rows = [f"{number:03}.png,{listed.format(number % 5)}\n" for number in range(images)]
        Path(name, "list.csv").write_text("image,split\n" + "".join(rows))
    return {"folders": {name: {"path": name, "class_name": "polyp"}}}


def test_plan_check_and_prepare_report_a_split_that_a_list_lacks_before_anything_is_trained(project, capsys):
    declare(["clipseg-decoder"], ["mine"], data=own_folder("mine", "fold{}"))
    said = refusal()
    assert "dataset 'mine' has no samples in split 'train'" in said and "fold0, fold1, fold2, fold3, fold4" in said
    assert "split column" in said
    assert any("no samples in split 'train'" in fault for fault in check_project(["study"]))
    main(["prepare", "mine"])
    assert "note: params.yaml: dataset 'mine' has no samples in split 'train'" in capsys.readouterr().out


def test_a_folder_of_no_study_is_a_note(project, capsys):
    declare(data=own_folder("mine", "fold{}") | {"synthetic": {"lesions": {"images": 40, "size": 64}}})
    for command in (["check", "--study", "study"], ["prepare", "mine"]):
        main(command)
        printed = capsys.readouterr().out
        assert "note: dataset 'mine' has no samples in split 'train', 'val', 'test'; its splits are fold0" in printed


@pytest.mark.parametrize(("sections", "knob"), [
    ({"train": {"val_split": "fold1"}}, None),
    ({"train": {"val_split": "fold2"}, "evaluate": {"splits": ["fold7"]}}, "evaluate.splits"),
    ({}, "train.val_split"), ({"train": {"val_split": "fold7"}}, "train.val_split")])
def test_the_way_out_names_the_knob(project, sections, knob):
    data = own_folder("mine", "fold{}")
    text = Path("mine/list.csv").read_text().replace("fold0", "train").replace("fold3", "test")
    Path("mine/list.csv").write_text(text)
    declare(["clipseg-decoder"], ["mine"], data=data, **sections)
    if knob is None:
        write_plan("study")
    else:
        assert f"or set {knob} to what it has" in refusal()


def test_a_method_that_trains_nothing_needs_no_split_to_train_on(project):
    declare(["clipseg-zero_shot"], ["mine"], data=own_folder("mine", "test"))
    assert len(write_plan("study")) == 1


@pytest.mark.parametrize("images", range(3, 12))
def test_a_small_folder_without_a_list_can_be_trained_on(project, images):
    declare(["clipseg-decoder"], ["mine"], data=own_folder("mine", images=images))
    assert len(write_plan("study")) == 1


def test_fewer_than_three_groups_are_refused_with_the_reason(project):
    declare(["clipseg-decoder"], ["mine"], data=own_folder("mine", images=2))
    assert "fewer than three groups" in refusal()


def test_a_synthetic_set_that_is_too_small_for_its_splits_is_refused(project):
    declare(["clipseg-decoder"], data={"synthetic": {"lesions": {"images": 2, "size": 64}}})
    assert "raise data.synthetic.lesions.images" in refusal()


def test_a_pool_needs_a_member_with_each_split(project):
    data = own_folder("mine", "train") | {"pooled": {"both": {"train": ["mine"], "test": ["lesions"]}},
                                          "synthetic": {"lesions": {"images": 40, "size": 64}}}
    declare(["clipseg-decoder"], ["both"], data=data)
    assert "'both' has no samples in split 'val'" in refusal() and "data.pooled.both" in refusal()


def test_an_official_set_is_judged_once_it_is_prepared(project):
    declare(["clipseg-decoder"], ["kvasir_seg"], evaluate={"splits": ["fold7"]})
    assert len(write_plan("study")) == 1
    with PreparedWriter("data/processed/kvasir_seg", dataset="kvasir_seg") as writer:
        for split in ("train", "val", "test"):
            writer.add_image(split, np.zeros((16, 16, 3), np.uint8))
            writer.add_sample(image_id=split, target="polyp", mask=np.ones((16, 16), bool), split=split)
    with pytest.raises(UserError, match="'kvasir_seg' has no samples in split 'fold7'"):
        write_plan("study")


@pytest.mark.parametrize("sections", [{"evaluate": {"splits": [""]}}, {"evaluate": {"splits": [" "]}},
                                      {"train": {"val_split": ""}}])
def test_a_split_without_a_name_is_refused(project, sections):
    declare(**sections)
    assert "should match pattern" in refusal()


# ---------------------------------------------------------------- names and knobs


@pytest.mark.parametrize("name", ["x;touch PWNED;", "-rf", "a b", "$(id)", "null"])
def test_a_recipe_of_another_name_is_refused_wherever_it_is_read(project, name):
    shutil.copy("recipes/clipseg-decoder.yaml", f"recipes/{name}.yaml")
    declare()
    assert any(f"recipe {name!r}" in fault for fault in check_project(["study"]))
    declare([name])
    assert name in refusal()


@pytest.mark.parametrize(("sections", "note"), [
    ({"adapter": {"rank": 4, "alpha": 8}}, "'adapter.alpha' is 8, 'adapter.rank' is 4, which changes nothing"),
    ({"model": {"weights": {"clipseg": "random"}, "upsampling": "published_bicubic"}}, "'model.upsampling' is"),
    ({"model": {"weights": {"clipseg": "random"}, "head_parts": ["projector"]}}, "'model.head_parts' is")])
def test_a_knob_that_only_recipes_outside_the_study_have_is_a_note(project, capsys, sections, note):
    declare(["clipseg-decoder"], **sections)
    main(["plan"])
    printed = capsys.readouterr().out
    assert "1 runs planned" in printed and f"note: params.yaml: {note}" in printed
    assert check_project(["study"]) == []


def test_a_knob_that_no_recipe_has_is_an_error(project):
    for path in Path("recipes").glob("*lora*"):
        path.unlink()
    declare(["clipseg-decoder"], adapter={"rank": 4})
    assert "'adapter.rank' is 4, but no recipe has that knob" in refusal()


def test_the_projects_own_list_may_be_shortened(project):
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    shortened = read_yaml("params.yaml")
    shortened["study"] |= {"recipes": ["clipseg-zero_shot"], "datasets": ["lesions", "organs"]}
    shortened["model"] |= {"weights": {"clipseg": "random"}, "image_size": 64}
    shortened["adapter"]["rank"] = 4
    write_yaml("params.yaml", shortened)
    assert len(write_plan("study")) == 2
    assert "'adapter.rank' is 4" in idle_knob_notes("study")[0]


@pytest.fixture
def long_prompts(project) -> str:
    """What the long prompts of a prepared set begin with, in a project whose models read them or a part of them."""
    long = "one large red round thing, located somewhere in the middle of the picture near the "
    rows = [("left edge", "Polyp", "train"), ("right edge", "polyp ", "val"), ("left edge", "POLYP", "test")]
    with PreparedWriter("data/processed/lesions", dataset="lesions") as writer:
        for k, (place, name, split) in enumerate(rows):
            writer.add_image(f"im{k}", np.zeros((8, 8, 3), np.uint8))
            writer.add_sample(image_id=f"im{k}", target="polyp", mask=np.ones((8, 8), bool), split=split,
                              prompts={"p1": name, "p6": long + place})
    weights = dict.fromkeys(MODELS, "random-small")
    declare(["clipseg-zero_shot", "etris_vit-bridger", "etris_vit-decoder"], ["lesions", "organs"],
            model={"weights": weights, "image_size": 64})
    return long


def test_the_plan_counts_prompts_that_a_model_cuts_or_cannot_tell_apart(long_prompts, capsys):
    """ETRIS reads 17 tokens, CLIPSeg 77; of a set that is not prepared nothing is known."""
    for arguments in (["plan"], ["plan", "--list"]):
        main(arguments)
        said = capsys.readouterr().err.splitlines()
        both, first = "etris_vit-bridger-lesions-0, etris_vit-decoder-lesions-0: ", f"{long_prompts}left edge"
        assert f"{both}2 of 5 different prompts are cut after 17 tokens, such as {first!r}." in said
        assert any(line.startswith(f"{both}5 of 5 different prompts are the same to the model") for line in said)
        assert [line for line in said if line.startswith("clipseg")] == []


def test_planning_and_checking_import_no_model(long_prompts):
    """Their libraries take seconds; prompts are read and sizes are checked without them."""
    done = subprocess.run([sys.executable, "-c", PLANNING], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    *_, checked, imported = done.stdout.splitlines()
    assert "are cut after 17 tokens" in done.stderr and checked == "nothing wrong found"
    libraries = {"open_clip", "timm", "segmentation_models_pytorch", "transformers"}
    assert libraries & set(imported.split()) == set()
    assert re.findall(r"featherseg\.models\.\w+\.model\b", imported) == []


def test_trained_runs_that_a_study_drops_are_named(project, capsys):
    declare()
    write_plan("study")
    for name in ("clipseg-decoder-lesions-0", "clipseg-vlsm_dense-v-lesions-0"):
        folder = project / "runs/study/train" / name
        folder.mkdir(parents=True)
        (folder / "checkpoint.safetensors").touch()
    main(["plan"])
    assert "does not list" not in capsys.readouterr().out
    declare(recipes=["clipseg-decoder"])
    main(["plan"])
    printed = capsys.readouterr().out
    assert "does not list: 1 (clipseg-vlsm_dense-v-lesions-0); commit dvc.lock" in printed


@pytest.mark.parametrize(("datasets", "public", "named"), [
    (["lesions"], False, False), (["lesions", "mine"], False, True), (["both"], False, True),
    (["mine"], True, False), (["both"], True, False)])
def test_a_study_on_own_pictures_says_where_they_stay(project, capsys, datasets, public, named):
    own = own_folder("mine")
    own["folders"]["mine"]["public"] = public
    declare(recipes=["clipseg-decoder"], datasets=datasets, data={
        "synthetic": {"lesions": {"images": 10, "size": 64}}, **own,
        "pooled": {"both": {"train": ["lesions"], "test": ["mine"]}}})
    main(["plan"])
    assert ("stay in reports/study/pictures" in capsys.readouterr().out) == named


def test_a_lock_file_that_is_not_committed_is_named_before_an_experiment(project, monkeypatch):
    def run_git(*arguments):
        subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments], check=True)

    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    run_git("init", "--quiet")
    Path("dvc.lock").write_text("schema: '2.0'\n")
    assert "commit it before dvc exp run" in uncommitted_lock_notes("study")[0]
    run_git("add", "dvc.lock")
    run_git("commit", "--quiet", "--message", "Lock")
    assert uncommitted_lock_notes("study") == []
    Path("dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    assert len(uncommitted_lock_notes("study")) == 1
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "HEAD")
    assert uncommitted_lock_notes("study") == []
