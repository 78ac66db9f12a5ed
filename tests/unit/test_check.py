"""`featherseg check` reads everything and runs nothing."""

import shutil
from pathlib import Path

import pytest

from featherseg.check import check_project, studies
from featherseg.cli import main
from featherseg.config import read_yaml, write_yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The project's own declarations, without data and weights, as the working directory."""
    for folder in ("recipes", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("weights"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for path in ("params.yaml", "pipelines/prompt_levels/params.yaml", "pipelines/referring/params.yaml"):
        edit(path, lambda params: params["model"].update(weights=dict.fromkeys(
            ("clipseg", "etris_vit", "unet"), "random")))
    return tmp_path


def edit(path: str, change) -> None:
    value = read_yaml(path)
    change(value)
    write_yaml(path, value)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_the_projects_own_files_are_without_fault_and_nothing_is_written(project, capsys):
    before = files(project)
    main(["check"])
    assert capsys.readouterr().out == "nothing wrong found\n"
    assert files(project) == before


def test_studies_are_the_root_and_the_papers_and_not_data_or_pretraining(project):
    assert studies() == ["study", "etris", "medvlsm", "prompt_levels", "referring", "vlsm_adapter"]


def test_every_fault_is_told_once_and_the_status_is_1(project, capsys):
    edit("params.yaml", lambda params: params["adapter"].update(dmi=3))
    edit("pipelines/vlsm_adapter/params.yaml", lambda params: params["study"].update(seeds=[]))
    write_yaml("recipes/mine.yaml", {"title": "mine", "model": "clipseg", "adapter": {"name": "lora", "rank": 0}})
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    assert sum("'adapter.dmi'" in line for line in lines) == 1
    assert sum("pipelines/vlsm_adapter/params.yaml" in line and "study.seeds" in line for line in lines) == 1
    assert sum("recipes/mine.yaml" in line and "rank" in line for line in lines) == 1
    assert len(lines) == 3


def test_stages_that_wait_for_the_check_find_a_file_only_where_nothing_is_wrong(project):
    edit("params.yaml", lambda params: params["adapter"].update(dmi=3))
    with pytest.raises(SystemExit):
        main(["check", "--params-only", "--out", "runs/check.json"])
    assert not Path("runs").exists()
    edit("params.yaml", lambda params: params["adapter"].pop("dmi"))
    main(["check", "--params-only", "--out", "runs/check.json"])
    first = Path("runs/check.json").read_bytes()
    edit("params.yaml", lambda params: params["study"].update(seeds=[0, 1]))
    main(["check", "--params-only", "--out", "runs/check.json"])
    assert Path("runs/check.json").read_bytes() == first  # a changed param alone draws and fetches nothing anew


@pytest.mark.parametrize(("size", "said"), [
    (100, "image_size 100 is not a multiple of the patch size 16"), (80, "image_size 80 is not a multiple of 32")])
def test_a_size_that_a_model_cannot_have_is_told_before_anything_runs(project, size, said):
    edit("params.yaml", lambda params: params["model"].update(image_size=size))
    assert any(said in fault for fault in check_project(["study"], params_only=True))


def test_a_chosen_study_is_checked_alone(project):
    edit("pipelines/vlsm_adapter/params.yaml", lambda params: params["study"].update(seeds=[]))
    assert check_project(["study"]) == []
    assert len(check_project(["vlsm_adapter"])) == 1


def test_params_only_reads_no_dataset(project):
    broken = project / "data/processed/lesions"
    broken.mkdir(parents=True)
    (broken / "status.json").write_text("{")
    edit("params.yaml", lambda params: params["data"].update(folders={"mine": {"path": "absent"}}, mirror="away"))
    assert check_project(params_only=True) == []
    faults = check_project()
    assert any("data.mirror: the folder away does not exist" in fault for fault in faults)
    assert any("data/processed/lesions" in fault for fault in faults)
    assert any("mine" in fault and "absent" in fault for fault in faults)
    assert len(faults) == 3


def test_a_file_beside_the_datasets_is_none(project):
    (project / "data/processed").mkdir(parents=True)
    (project / "data/processed/notes.txt").write_text("mine")
    assert check_project() == []


def test_a_dataset_that_is_not_to_be_had_is_no_fault(project):
    folder = project / "data/processed/kvasir_seg"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"status": "not_run", "reason": "no archive"}')
    assert check_project() == []
