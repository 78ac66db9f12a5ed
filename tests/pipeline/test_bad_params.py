"""What cannot be run is refused in one sentence before anything trains."""

import functools

import pytest

from conftest import CHECK, ran
from featherseg.cli import main
from featherseg.config import read_yaml, write_yaml


def test_repro_on_a_fresh_clone_stops_before_anything_is_drawn(clone, tmp_path):
    workspace = clone.copy(tmp_path / "featherseg")
    workspace.edit("params.yaml", lambda params: params["adapter"].update(dmi=64))
    output = workspace.dvc("repro", fails=True)
    assert ran(output) <= {"plan", CHECK, "code"}  # DVC orders what does not depend on each other at will
    said = "'adapter.dmi'", "did you mean 'adapter.dim'?"
    assert len([line for line in output.splitlines() if all(part in line for part in said)]) == 1
    assert "Traceback" not in output
    assert not (workspace.path / "runs/study").exists() and not (workspace.path / "data/processed").exists()


def test_set_refuses_a_key_that_the_params_lack(workspace):
    output = workspace.dvc("exp", "run", "-S", "adapter.dmi=64", fails=True)
    assert "adapter.dmi" in output and ran(output) == set()
    assert workspace.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(("section", "values", "said"), [
    (("study",), {"recipes": ["clipseg-decodr"]}, ["'clipseg-decodr'", "did you mean 'clipseg-decoder'?"]),
    (("study",), {"datasets": ["lesion"]}, ["'lesion'", "did you mean 'lesions'?"]),
    (("adapter",), {"dmi": 64}, ["'adapter.dmi'", "did you mean 'adapter.dim'?"]),
    (("train", "loss"), {"lamda_dice": 1.0}, ["did you mean 'train.loss.lambda_dice'?"]),
], ids=["recipe", "dataset", "key", "nested key"])
def test_check_says_it_without_dvc(clone, tmp_path, monkeypatch, capsys, section, values, said):
    monkeypatch.chdir(clone.copy(tmp_path / "featherseg").path)
    params = read_yaml("params.yaml")
    functools.reduce(dict.get, section, params).update(values)
    write_yaml("params.yaml", params)
    with pytest.raises(SystemExit) as ended:
        main(["check", "--params-only", "--study", "study"])
    fault = capsys.readouterr().out
    assert ended.value.code == 1 and all(part in fault for part in said) and fault.count("\n") == 1


def test_check_of_a_fresh_clone_finds_nothing(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone.path)
    main(["check", "--params-only"])
    assert capsys.readouterr().out == "nothing wrong found\n"
