"""Strict configuration: one sentence for every fault, plain YAML in and out."""

import pytest

from featherseg.config import ModelConfig, Params, Run, parse, read_run, read_yaml, write_run, write_yaml
from featherseg.core.errors import UserError
from featherseg.tasks.segmentation.config import LossConfig, SegmentationEvaluate, SegmentationTrain

STUDY = {"datasets": ["lesions"], "recipes": ["clipseg-decoder"], "seeds": [0]}


def params(**sections) -> dict:
    return {"study": STUDY, **sections}


def run(**changes) -> Run:
    values = {"study": "study", "recipe": "clipseg-vlsm_dense-v", "dataset": "lesions",
              "model": ModelConfig(name="clipseg"), "adapter": {"name": "vlsm_dense", "dim": 16},
              "train": SegmentationTrain()}
    return Run(**values | changes)


def refusal(kind, value) -> str:
    with pytest.raises(UserError) as refused:
        parse(kind, value, "params.yaml")
    message = str(refused.value)
    assert message.startswith("params.yaml") and "\n" not in message
    return message


@pytest.mark.parametrize(("value", "said"), [
    (params(studdy=1), ["'studdy'", "did you mean 'study'?"]),
    (params(data={"synthetic": {"lesions": {"images": 4, "size": 64, "sed": 1}}}),
     ["'data.synthetic.lesions.sed'", "did you mean 'data.synthetic.lesions.seed'?"]),
    ({}, ["'study'", "required"]),
    (params(study={**STUDY, "seeds": [-1]}), ["'study.seeds.0'", "greater than or equal to 0", "-1"]),
    (params(study={**STUDY, "recipes": "clipseg-decoder"}), ["'study.recipes'", "list", "'clipseg-decoder'"]),
    (params(adapter=None), ["'adapter'", "dictionary", "None"]),
    ([], ["list"]),
])
def test_a_fault_in_params_names_the_key_and_what_is_valid(value, said):
    message = refusal(Params, value)
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize("loss", [
    {"lambda_dice": 0, "lambda_ce": 0}, {"lambda_dice": 0.0, "lambda_ce": 1.0, "form": "published_dice_only"}])
def test_a_loss_that_minimises_nothing_is_refused(loss):
    message = refusal(SegmentationTrain, {"loss": loss})
    assert "'loss'" in message and "lambda_dice" in message and "lambda_ce" in message


@pytest.mark.parametrize(("value", "said"), [
    ({"epochs": 0}, ["'epochs'", "greater than 0", "0"]),
    ({"epochs": True}, ["'epochs'", "integer", "True"]),
    ({"epochs": "10"}, ["'epochs'", "integer", "'10'"]),
    ({"lr": "fast"}, ["'lr'", "number", "'fast'"]),
    ({"factor": 1.0}, ["'factor'", "less than 1", "1.0"]),
    ({"optimizer": "sgd"}, ["'optimizer'", "'adamw' or 'adam'", "'sgd'"]),
    ({"prompts": "p10"}, ["'prompts'", "'fullest'", "'p9'", "'p10'"]),
    ({"loss": {"lambda_dise": 1}}, ["'loss.lambda_dise'", "'loss.lambda_dice'"]),
    ({"schedule": "multistep"}, ["milestones"]),
    ({"milestones": [3]}, ["milestones"]),
])
def test_a_fault_in_training_settings_names_the_key_and_the_range(value, said):
    message = refusal(SegmentationTrain, value)
    assert [part for part in said if part not in message] == []


def test_a_misspelt_key_of_a_planned_run_is_named():
    values = run().model_dump(mode="json")
    values["train"]["lr_rate"] = 1
    assert "did you mean 'train.lr'?" in refusal(Run, values)


def test_of_several_faults_the_first_is_told_and_the_others_are_counted():
    assert "(and 2 more faults)" in refusal(SegmentationTrain, {"epochs": 0, "lr": 0, "optimizer": "sgd"})


@pytest.mark.parametrize("value", [{"threshold": 0}, {"threshold": 1}, {"threshold": "half"}])
def test_a_threshold_is_a_probability(value):
    assert "'threshold'" in refusal(SegmentationEvaluate, value)


def test_whole_numbers_serve_where_a_fraction_may_stand():
    assert parse(SegmentationTrain, {"lr": 1, "milestones": [2, 4], "schedule": "multistep"}, "x").milestones == (2, 4)


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("lr: 1e-3\nswitch: no\noctal: 010\n")
    assert read_yaml(path) == {"lr": 0.001, "switch": "no", "octal": 10}


@pytest.mark.parametrize(("text", "said"), [
    (b"a: [1, 2", "not valid YAML"), (b"a: 1\na: 2\n", "not valid YAML"),
    (b"\xff\xfe\x00", "not text in UTF-8"), (b"a: &a [*a]", "nested too deep"),
    (b"a: !!python/name:os.system x", "not valid"),
    (b"a: !!timestamp x", "not valid YAML"), (b"a: " + b"[" * 900 + b"]" * 900, "nested too deep"),
    (b"a: " + b"[" * 70 + b"]" * 70, "nested too deep"),
    (b"# " + b"]" * 900 + b"\na: " + b"[" * 900, "nested too deep"), (b"a: " + b"9" * 5000, "not valid YAML"),
    (b"a: " + b" " * (1 << 20), "more than the 1 MB"), (b"a: \x1b", "not valid YAML"),
    (b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d, *a%d]\n" % (k, k, k - 1, k - 1, k - 1)
                                    for k in range(1, 40)), "more than 1,000,000 values")])
def test_a_broken_yaml_file_is_named(tmp_path, text, said):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=said) as refused:
        read_yaml(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", [
    "# {0}\na: x", "a: x # {0}", "'{0}': 1\na: x", 'a: x\nb: "\\"{0}"', "a: x\nb: |\n  {0}"])
def test_brackets_in_comments_and_texts_are_not_nested(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text.format("[{" * 100))
    assert read_yaml(tmp_path / "a.yaml")["a"] == "x"


def test_an_absent_yaml_file_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.yaml does not exist"):
        read_yaml(tmp_path / "absent.yaml")


def test_written_yaml_reads_back_and_equal_values_give_equal_bytes(tmp_path):
    value = {"b": [1, 2.5, 1e-3], "a": {"text": "no", "none": None, "umlaut": "ö"}}
    write_yaml(tmp_path / "one.yaml", value)
    write_yaml(tmp_path / "two.yaml", dict(reversed(value.items())))
    assert read_yaml(tmp_path / "one.yaml") == value
    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


@pytest.mark.parametrize("planned", [
    run(),
    run(train=None, adapter={"name": "zero_shot"}),
    run(train=SegmentationTrain(schedule="multistep", milestones=(3, 5), loss=LossConfig(lambda_ce=0.2)), seed=3),
    run(not_run="the weights are absent", evaluate=SegmentationEvaluate(threshold=0.3)),
], ids=["default", "untrained", "multistep", "not-run"])
def test_a_planned_run_reads_back_as_it_was(tmp_path, planned):
    write_run(tmp_path, planned)
    assert read_run(tmp_path / f"{planned.name}.yaml") == planned


def test_a_runs_name_is_recipe_dataset_seed():
    assert run(seed=2).name == "clipseg-vlsm_dense-v-lesions-2"


def test_an_unplanned_run_is_refused_with_the_closest_planned_one(tmp_path):
    write_run(tmp_path, run())
    with pytest.raises(UserError, match="did you mean 'clipseg-vlsm_dense-v-lesions-0'"):
        read_run(tmp_path / "clipseg-vlsm_dense-v-lesion-0.yaml")


@pytest.mark.parametrize(("settings", "absent"), [
    ({"schedule": "plateau"}, {"milestones"}),
    ({"schedule": "cosine"}, {"milestones", "factor", "patience", "plateau_on"}),
    ({"schedule": "constant"}, {"milestones", "factor", "patience", "plateau_on"}),
    ({"schedule": "multistep", "milestones": (2,)}, {"patience", "plateau_on"}),
    ({"early_stop_patience": None}, {"milestones", "min_epochs", "early_stop_min_delta"}),
    ({"tower_lr_factor": 1.0, "tower_lr_from": 2}, {"milestones"}),
])
def test_settings_without_effect_stay_out_of_the_plan(settings, absent):
    train = SegmentationTrain(**settings)
    as_all_are = {"tower_lr_factor", "tower_lr_from", "tower_positions", "share", "compile"}
    assert set(SegmentationTrain.model_fields) - set(train.knobs()) == absent | as_all_are


def test_the_towers_own_rate_is_in_the_plan_where_there_is_one():
    knobs = SegmentationTrain(tower_lr_factor=0.1).knobs()
    assert (knobs["tower_lr_factor"], knobs["tower_lr_from"]) == (0.1, 1)


@pytest.mark.parametrize(("one", "other"), [
    ({"schedule": "cosine", "patience": 5}, {"schedule": "cosine", "patience": 6}),
    ({"early_stop_patience": None, "min_epochs": 1}, {"early_stop_patience": None, "min_epochs": 2}),
])
def test_a_setting_without_effect_leaves_the_plan_file_byte_equal(tmp_path, one, other):
    for folder, settings in (("one", one), ("other", other)):
        write_run(tmp_path / folder, run(train=SegmentationTrain(**settings)))
    name = f"{run().name}.yaml"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(("text", "fault"), [
    ("[1]", "should hold keys and values, but holds list"), ("", "holds NoneType"),
    ("[" * 20_000, "nested too deep"), ("seed: -1", r"key 'study': field required\. \(and")])
def test_a_plan_file_of_another_form_is_one_sentence(tmp_path, text, fault):
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "mine.evaluate.yaml").write_text("{}")
    with pytest.raises(UserError, match=rf"mine\.yaml.*{fault}") as error:
        read_run(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_a_fault_of_several_keys_does_not_print_them_all(tmp_path):
    given = {"epochs": 3, "schedule": "multistep"}
    with pytest.raises(UserError, match="^mine: milestones are given exactly where schedule is multistep[.]$"):
        parse(SegmentationTrain, given, "mine")
