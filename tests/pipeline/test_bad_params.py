"""What cannot be run is refused in one sentence before anything trains."""

import pytest

from conftest import CHECK, ran


@pytest.mark.parametrize(("section", "values", "said"), [
    ("study", {"recipes": ["clipseg-decodr"]}, ["'clipseg-decodr'", "did you mean 'clipseg-decoder'?"]),
    ("study", {"datasets": ["lesion"]}, ["'lesion'", "did you mean 'lesions'?"]),
    ("adapter", {"dmi": 64}, ["'adapter.dmi'", "did you mean 'adapter.dim'?"]),
], ids=["recipe", "dataset", "key"])
def test_repro_on_a_fresh_clone_stops_before_anything_is_drawn(clone, tmp_path, section, values, said):
    workspace = clone.copy(tmp_path / "featherseg")
    workspace.edit("params.yaml", lambda params: params[section].update(values))
    output = workspace.dvc("repro", fails=True)
    assert ran(output) <= {"plan", CHECK, "code"}  # DVC orders what does not depend on each other at will
    assert len([line for line in output.splitlines() if all(part in line for part in said)]) == 1
    assert "Traceback" not in output
    assert not (workspace.path / "runs/study").exists() and not (workspace.path / "data/processed").exists()


def test_set_refuses_a_key_that_the_params_lack(workspace):
    output = workspace.dvc("exp", "run", "-S", "adapter.dmi=64", fails=True)
    assert "adapter.dmi" in output and ran(output) == set()
    assert workspace.run("git", "status", "--porcelain") == ""


def test_check_says_it_without_dvc(clone, tmp_path):
    workspace = clone.copy(tmp_path / "featherseg")
    assert workspace.featherseg("check", "--params-only") == "nothing wrong found\n"
    workspace.edit("params.yaml", lambda params: params["train"]["loss"].update(lamda_dice=1.0))
    fault = workspace.featherseg("check", "--params-only", fails=True)
    assert "did you mean 'train.loss.lambda_dice'?" in fault and fault.count("\n") == 1
