"""A folder of own pictures is ignored by git once it is prepared."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherseg.config import FolderParams
from featherseg.data.folder.privacy import keep_out_of_git
from featherseg.data.prepare import prepare_own_folder


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    (tmp_path / ".gitignore").write_text("/ignored/\n")
    return tmp_path


def picture_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "patient.png").write_bytes(b"a picture")
    return folder


@pytest.mark.parametrize("name", ["my_set", "data/own/set", "odd [name]*", "of Müller"])
def test_own_pictures_are_not_added(checkout, capfd, name):
    folder = picture_in(checkout / name)
    keep_out_of_git(Path(name))
    git("add", "--all")
    assert git("ls-files").split() == [".gitignore"]
    assert str(folder) in capfd.readouterr().err
    before = (checkout / ".git/info/exclude").read_text()
    keep_out_of_git(folder)
    assert (checkout / ".git/info/exclude").read_text() == before and not capfd.readouterr().err


@pytest.mark.parametrize("name", ["ignored", "../elsewhere", ".", "absent"])
def test_what_git_does_not_see_or_is_everything_is_left_alone(checkout, capfd, name):
    before = (checkout / ".git/info/exclude").read_text()
    (checkout / "ignored").mkdir()
    keep_out_of_git(checkout / name)
    assert (checkout / ".git/info/exclude").read_text() == before and not capfd.readouterr().err


def test_a_repository_that_cannot_be_written_to_is_no_obstacle(checkout, capfd):
    (checkout / ".git/info/exclude").unlink()
    (checkout / ".git/info/exclude").mkdir()
    picture_in(checkout / "my_set")
    keep_out_of_git(Path("my_set"))
    assert "git does not ignore" in capfd.readouterr().err


def test_pictures_that_git_tracks_are_named(checkout, capfd):
    picture_in(checkout / "my_set")
    git("add", "--all")
    keep_out_of_git(Path("my_set"))
    assert "git tracks" in capfd.readouterr().err


def test_outside_of_a_repository_nothing_happens(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    keep_out_of_git(picture_in(tmp_path / "my_set"))
    assert not capfd.readouterr().err


@pytest.mark.parametrize(("public", "added"), [(False, 1), (True, 7)])
def test_preparing_a_folder_keeps_it_out_of_git_unless_it_is_public(checkout, public, added):
    for part in ("images", "masks"):
        (checkout / "pictures" / part).mkdir(parents=True)
        for number in range(3):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[4 + number:20, 4:20] = 255
            Image.fromarray(pixels).save(checkout / "pictures" / part / f"{number}.png")
    prepare_own_folder("mine", FolderParams(path="pictures", public=public), checkout / "ignored/out")
    git("add", "--all")
    assert len(git("ls-files").split()) == added
