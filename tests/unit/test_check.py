"""`featherseg check` reads everything and runs nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from data_files import save

from featherseg.check import check_project, one_of_a_kind, studies
from featherseg.cli import main
from featherseg.config import read_yaml, write_yaml
from featherseg.data.card import About, write_card
from featherseg.data.prepared import PreparedWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The project's own declarations, without data and weights, as the working directory."""
    for folder in ("recipes", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("weights"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    edit("params.yaml", lambda params: params["data"].update(folders={}))
    edit("params.yaml", lambda params: params["model"].update(image_size=64))
    edit("params.yaml", lambda params: params["study"].update(
        datasets=["lesions", "organs"], recipes=["clipseg-decoder", "clipseg-vlsm_dense-vl", "unet-full"]))
    for study in ("real_images", "real_levels", "real_shares"):
        edit(f"pipelines/{study}/params.yaml", lambda params: params["study"].update(datasets=["lesions"]))
    for path in ("params.yaml", "pipelines/prompt_levels/params.yaml", "pipelines/referring/params.yaml"):
        edit(path, lambda params: params["model"].update(weights=dict.fromkeys(
            ("clipseg", "etris_vit", "unet"), "random-small")))
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
    assert studies() == ["study", "etris", "medvlsm", "prompt_levels", "real_images", "real_levels", "real_shares",
                         "referring", "vlsm_adapter"]


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
    (100, "image_size 100 is not a multiple of the patch size 16"), (48, "image_size 48 is below 64")])
def test_a_size_that_a_model_cannot_have_is_told_before_anything_runs(project, size, said):
    weights = dict.fromkeys(("clipseg", "etris_vit", "unet"), "random")  # at full size
    edit("params.yaml", lambda params: params["model"].update(image_size=size, weights=weights))
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


def test_faults_of_one_kind_are_one_line_with_a_count_and_names():
    alike = [f"my set/masks/left lung/IMG {k}.png has {k + 3} levels; give a threshold." for k in range(9)]
    other = ["unknown recipe 'clipseg-dense': did you mean 'clipseg-decoder'?", "params.yaml: key 'a' is missing."]
    grouped = one_of_a_kind([alike[0], other[0], *alike[1:], other[1]])
    assert grouped[1:] == other
    assert grouped[0].startswith(f"{alike[0]} (8 more like it: ")
    assert "left lung/IMG 1.png" in grouped[0] and "IMG 3.png, ...)" in grouped[0] and "IMG 4" not in grouped[0]


def test_few_faults_of_one_kind_and_the_name_that_differs_are_kept():
    few = [f"params.yaml: key '{key}' is missing." for key in "abcde"]
    assert one_of_a_kind(few) == few
    assert one_of_a_kind(few[:1] * 9) == few[:1]
    assert "(5 more like it: 'b', 'c', 'd', ...)" in one_of_a_kind([*few, few[0].replace("'a'", "'f'")])[0]


def test_equal_faults_of_files_are_one_line(project, capsys):
    for number in range(20):
        save(Path(f"mine/images/{number}.png"), np.full((8, 8, 3), number, np.uint8))
        save(Path(f"mine/masks/{number}.png"), np.arange(64, dtype=np.uint8).reshape(8, 8))
    edit("params.yaml", lambda params: params["data"].update(folders={"mine": {"path": "mine"}}))
    with pytest.raises(SystemExit):
        main(["check"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and "19 more like it: data.folders.mine: mine/masks/1.png" in lines[0]


def test_leaks_are_notes_and_no_faults(project, capsys):
    for number in range(6):
        save(Path(f"mine/images/{number}.png"), np.full((8, 8, 3), number % 5, np.uint8))
        save(Path(f"mine/masks/{number}.png"), np.eye(8, dtype=bool))
    Path("mine/list.csv").write_text("image,split,patient\n0,train,p\n1,train,p\n2,val,p\n3,val,q\n4,test,q\n5,test,r\n")
    edit("params.yaml", lambda params: params["data"].update(folders={"mine": {"path": "mine"}}))
    main(["check"])
    found = capsys.readouterr().out.splitlines()
    assert found[0] == "nothing wrong found"
    assert [line.partition(" in several")[0] for line in found[1:]] == [
        "note: data.folders.mine: 1 picture", "note: data.folders.mine: 2 groups (patients)"]


def test_leaks_of_a_prepared_set_that_is_no_own_folder_are_notes(project, capsys):
    with PreparedWriter("data/processed/drawn", dataset="drawn", finish=lambda folder: write_card(
            folder, About("drawn", "a test", "none"))) as writer:
        for number, split in enumerate(("train", "val", "test")):
            writer.add_image(f"{number}", np.full((8, 8, 3), number % 2, np.uint8))
            writer.add_sample(image_id=f"{number}", target="x", mask=np.eye(8, dtype=bool), split=split)
    main(["check"])
    assert "note: data/processed/drawn: 1 picture in several splits (train and test: 1)" in capsys.readouterr().out


def test_what_masks_are_marked_by_is_a_note_as_on_the_card(project, capsys):
    for number in range(3):
        pixels = np.zeros((8, 8), np.uint8)
        pixels[2:6, 2:6] = 1 if number == 0 else 255
        save(Path(f"mine/images/{number}.png"), np.full((8, 8, 3), number, np.uint8))
        save(Path(f"mine/masks/{number}.png"), pixels)
    edit("params.yaml", lambda params: params["data"].update(folders={"mine": {"path": "mine"}}))
    main(["check"])
    note = "The masks of 'object' mark it by several levels or colours: 1 on 0 in 1 file (0.png), 255 on 0 in 2 files"
    assert capsys.readouterr().out.startswith(f"nothing wrong found\nnote: data.folders.mine: {note}")
    main(["prepare", "mine"])
    assert note in capsys.readouterr().out and note in Path("data/processed/mine/card.md").read_text()


def test_splits_far_from_their_shares_are_a_note_as_on_the_card(project, capsys):
    for number in range(20):
        save(Path(f"mine/images/{number}.png"), np.full((8, 8, 3), number, np.uint8))
        save(Path(f"mine/masks/{number}.png"), np.eye(8, dtype=bool))
    patients = "".join(f"{number},{'p' if number < 17 else number}\n" for number in range(20))
    Path("mine/list.csv").write_text(f"image,patient\n{patients}")
    edit("params.yaml", lambda params: params["data"].update(folders={"mine": {"path": "mine"}}))
    note = "of 20 samples where 60/20/20 was asked: the largest of 4 groups (patients) has 85% of them"
    main(["check"])
    assert note in capsys.readouterr().out
    main(["prepare", "mine"])
    assert note in capsys.readouterr().out and note in Path("data/processed/mine/card.md").read_text()
