"""Killed at any moment, the next attempt ends in the same bytes; two attempts do not spoil each other."""

import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from tiny import tiny_data, tiny_environment, tiny_run, tiny_weights

from featherseg import engine, resume
from featherseg.core.errors import UserError
from featherseg.core.files import cache_root, read_json
from featherseg.data.prepared import PreparedDataset
from featherseg.engine import train
from featherseg.resume import Attempt, run_key
from featherseg.tasks.segmentation.objective import SegmentationObjective


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


VALIDATE = engine.Trainer._validate
REFERENCES: dict[tuple[str, bool], dict[str, bytes]] = {}  # of trainings that several tests compare with


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Iterator[tuple[Path, str, Path]]:
    """A weights folder, its SHA-256, and a prepared dataset."""
    root = tmp_path_factory.mktemp("tiny")
    yield root / "weights", tiny_weights(root / "weights"), tiny_data(root / "data")
    REFERENCES.clear()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def states(place: Path) -> list[Path]:
    return list((place / "cache/resume").glob("*/state.pt"))


def uninterrupted(files, place: Path, run, monkeypatch) -> dict[str, bytes]:
    """Outputs of the same run without a kill, in a cache of its own."""
    key = run.model_dump_json(), engine.Trainer._validate is VALIDATE
    if key not in REFERENCES:
        monkeypatch.setenv("FEATHERSEG_CACHE", str(place / "other-cache"))
        train(run, files[2], place / "reference", place / "reference.json")
        monkeypatch.setenv("FEATHERSEG_CACHE", str(place / "cache"))
        REFERENCES[key] = contents(place / "reference")
    return REFERENCES[key]


def killed_in(files, place: Path, run, monkeypatch, batch: int) -> None:
    """Train until the given batch, counted over epochs: three of training and two of validation in each."""
    asked, calls = SegmentationObjective._asked, []

    def until(self, items):
        calls.append(items)
        if len(calls) == batch:
            raise Killed
        return asked(self, items)

    monkeypatch.setattr(SegmentationObjective, "_asked", until)
    with pytest.raises(Killed):
        train(run, files[2], place / "out", place / "out.json")
    monkeypatch.setattr(SegmentationObjective, "_asked", asked)
    assert not (place / "out").exists() and not (place / "out.json").exists()


def ever_worse(monkeypatch) -> None:
    """Let validation end in 1, 1/2, 1/3...: the first epoch is the best, and a plateau follows it."""
    monkeypatch.setattr(engine.Trainer, "_validate",
                        lambda self, epoch: {"val_dsc": 1 / epoch + 0 * VALIDATE(self, epoch)["val_dsc"]})


PLATEAU = {"schedule": "plateau", "patience": 0}


# killed in epoch 1 nothing is left to go on with, so that one training stands for all
@pytest.mark.parametrize(("settings", "batch"), [
    (PLATEAU, 2), (PLATEAU, 13), ({"schedule": "multistep", "milestones": (2, 3), "factor": 0.5}, 13),
    ({"schedule": "cosine"}, 13), ({"schedule": "constant", "optimizer": "adam", "adapter": {"name": "full"}}, 13),
    ({"schedule": "constant", "adapter": {"name": "vlsm_shallow", "dim": 4}}, 13)],
    ids=["plateau, in epoch 1", "plateau", "multistep", "cosine", "full", "shallow"])
def test_resumed_is_uninterrupted(files, place, monkeypatch, capfd, settings, batch):
    run = tiny_run(files[0], files[1], epochs=4, **settings)
    if run.train.schedule == "plateau":
        ever_worse(monkeypatch)
    reference = uninterrupted(files, place, run, monkeypatch)
    killed_in(files, place, run, monkeypatch, batch)
    capfd.readouterr()
    train(run, files[2], place / "out", place / "out.json")
    finished = {2: 0, 13: 2}[batch]
    assert ("going on after epoch 2" in capfd.readouterr().err) == (finished == 2)
    assert read_json(place / "out.json")["resumed_after_epoch"] == finished
    assert contents(place / "out") == reference
    assert not states(place)


def test_killed_by_the_system_and_resumed(files, place, monkeypatch):
    run = tiny_run(files[0], files[1], epochs=15, early_stop_patience=None)
    (place / "run.json").write_text(run.model_dump_json())
    command = [sys.executable, tiny.__file__, str(place / "run.json"), str(files[2]), str(place / "out")]
    trainer = subprocess.Popen(command, env=tiny_environment(), stderr=subprocess.DEVNULL)
    try:
        for _ in range(9000):
            if states(place) or trainer.poll() is not None:
                break
            time.sleep(0.02)
        assert trainer.poll() is None, "the trainer ended before it could be killed"
        trainer.send_signal(signal.SIGKILL)
    finally:
        trainer.kill()
        trainer.wait()
    assert states(place) and not (place / "out").exists()
    train(run, files[2], place / "out", place / "out.json")
    assert 1 <= read_json(place / "out.json")["resumed_after_epoch"] < 15
    assert contents(place / "out") == uninterrupted(files, place, run, monkeypatch)


@pytest.mark.parametrize("moment", ["checkpoint", "done"])
def test_killed_while_writing_the_outputs(files, place, monkeypatch, moment):
    ever_worse(monkeypatch)
    run = tiny_run(files[0], files[1])
    reference = uninterrupted(files, place, run, monkeypatch)
    with monkeypatch.context() as patch:
        if moment == "checkpoint":
            patch.setattr(engine.checkpoint, "save", lambda *args: (_ for _ in ()).throw(Killed))
        else:
            patch.setattr(resume, "_contents", lambda folder: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(run, files[2], place / "out", place / "out.json")
    assert states(place)
    train(run, files[2], place / "out", place / "out.json")
    assert contents(place / "out") == reference
    assert read_json(place / "out.json")["resumed_after_epoch"] == 3 and not states(place)


def test_leftovers_of_a_kill_are_removed(files, place):
    run = tiny_run(files[0], files[1], epochs=1)
    (place / ".out.0123abcd.partial").mkdir()
    train(run, files[2], place / "out", place / "out.json")
    assert not list(place.glob(".out.*"))


@pytest.mark.parametrize("damage", ["cut", "other", "byte"])
def test_a_damaged_state_is_ignored(files, place, monkeypatch, capfd, damage):
    run = tiny_run(files[0], files[1], epochs=2)
    reference = uninterrupted(files, place, run, monkeypatch)
    killed_in(files, place, run, monkeypatch, 7)
    [state] = states(place)
    content = state.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(b"/data/0") + 200] ^= 1
    state.write_bytes({"cut": content[:1000], "other": b"hello", "byte": flipped}[damage])
    capfd.readouterr()
    train(run, files[2], place / "out", place / "out.json")
    said = capfd.readouterr().err
    assert "is damaged" in said and "going on" not in said
    assert contents(place / "out") == reference


def reshaped(state: dict) -> dict:
    return state | {"changing": {name: tensor[..., None] for name, tensor in state["changing"].items()}}


def renamed(state: dict) -> dict:
    return state | {"changing": {f"other.{name}": tensor for name, tensor in state["changing"].items()}}


def without_optimizer(state: dict) -> dict:
    return {name: value for name, value in state.items() if name != "optimizer"}


@pytest.mark.parametrize("change", [reshaped, renamed, without_optimizer])
def test_a_state_of_another_model_is_ignored(files, place, monkeypatch, capfd, change):
    run = tiny_run(files[0], files[1], epochs=2)
    reference = uninterrupted(files, place, run, monkeypatch)
    killed_in(files, place, run, monkeypatch, 7)
    [state] = states(place)
    torch.save(change(torch.load(state, weights_only=True)), state)
    capfd.readouterr()
    train(run, files[2], place / "out", place / "out.json")
    printed = capfd.readouterr().err
    assert "of a model with other tensors" in printed and "going on" not in printed
    assert contents(place / "out") == reference


@pytest.mark.parametrize("change", [
    {"lr": 2e-2}, {"epochs": 3}, {"prompts": "p1"}, {"adapter": {"name": "decoder"}}],
    ids=lambda change: next(iter(change)))
def test_state_of_other_parameters_is_not_resumed(files, place, monkeypatch, change):
    killed_in(files, place, tiny_run(files[0], files[1], epochs=2), monkeypatch, 7)
    train(tiny_run(files[0], files[1], **{"epochs": 2} | change), files[2], place / "out", place / "out.json")
    assert read_json(place / "out.json")["resumed_after_epoch"] == 0


@pytest.fixture
def more_threads():
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(before + 1)
    torch.set_num_threads(before)


def test_a_resumed_training_keeps_the_threads_that_it_began_with(files, place, monkeypatch, more_threads):
    run, before = tiny_run(files[0], files[1], epochs=2), torch.get_num_threads()
    reference = uninterrupted(files, place, run, monkeypatch)
    killed_in(files, place, run, monkeypatch, 7)
    more_threads()
    train(run, files[2], place / "out", place / "out.json")
    info = read_json(place / "out.json")
    assert info["threads"] == before and info["resumed_after_epoch"] == 1
    assert contents(place / "out") == reference


def test_a_run_is_trained_with_its_own_threads(files, place, more_threads):
    before = torch.get_num_threads()
    run = tiny_run(files[0], files[1], epochs=1)
    assert run_key(run, "data") != run_key(run.model_copy(update={"threads": before}), "data")
    more_threads()
    train(run.model_copy(update={"threads": before}), files[2], place / "out", place / "out.json")
    assert read_json(place / "out.json")["threads"] == before


def test_the_key_follows_what_decides_a_training(files, place, monkeypatch):
    run = tiny_run(files[0], files[1])
    key = run_key(run, "data")
    scored = run.model_copy(update={"evaluate": run.evaluate.model_copy(update={"threshold": 0.3})})
    assert run_key(scored, "data") == key
    assert run_key(run, "other data") != key
    assert run_key(run.model_copy(update={"seed": 2}), "data") != key
    weights = run.model.model_copy(update={"sha256": "0" * 64})
    assert run_key(run.model_copy(update={"model": weights}), "data") != key
    monkeypatch.setattr(resume, "training_code", lambda run: {"tasks/segmentation/losses.py": "changed"})
    assert run_key(run, "data") != key


def test_a_finished_output_is_kept_and_another_is_not(files, place, capfd):
    run = tiny_run(files[0], files[1], epochs=1)
    train(run, files[2], place / "out", place / "out.json")
    written = place / "out/checkpoint.safetensors"
    first, before = contents(place / "out"), written.stat().st_mtime_ns
    (place / "out.json").unlink()
    train(run, files[2], place / "out", place / "out.json")
    assert "is finished already" in capfd.readouterr().err
    assert written.stat().st_mtime_ns == before and (place / "out.json").is_file()
    resume.forget(place / "out")
    (place / "out/history.csv").write_text("something else")
    train(run, files[2], place / "out", place / "out.json")
    assert contents(place / "out") == first


def never_trained(*args) -> None:
    raise AssertionError("trained again")


@pytest.mark.parametrize("deleted", [["out", "out.json"], ["out"], ["out.json"]], ids="+".join)
def test_a_finished_training_whose_outputs_dvc_deleted_is_taken_over(files, place, monkeypatch, deleted):
    run = tiny_run(files[0], files[1], epochs=1)
    train(run, files[2], place / "out", place / "out.json")
    outputs, info = contents(place / "out"), (place / "out.json").read_bytes()
    monkeypatch.setattr(engine, "Trainer", never_trained)
    for name in deleted:
        remove(place / name)
    train(run, files[2], place / "out", place / "out.json")
    assert contents(place / "out") == outputs and (place / "out.json").read_bytes() == info


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("damage", ["out/checkpoint.safetensors", "out/history.csv", "done.json"])
def test_a_damaged_copy_of_a_finished_training_is_not_taken_over(files, place, damage):
    run = tiny_run(files[0], files[1], epochs=1)
    train(run, files[2], place / "out", place / "out.json")
    outputs = contents(place / "out")
    [copied] = (place / "cache/resume").glob(f"*/{damage}")
    copied.write_bytes(copied.read_bytes()[:-7])
    remove(place / "out")
    train(run, files[2], place / "out", place / "out.json")
    assert contents(place / "out") == outputs


def test_the_copy_of_a_finished_training_goes_once_it_is_evaluated(files, place):
    run = tiny_run(files[0], files[1], epochs=1)
    train(run, files[2], place / "out", place / "out.json")
    assert list((place / "cache/resume").glob("*/out"))
    resume.forget(place / "out")
    assert not list((place / "cache/resume").glob("*/out"))
    resume.forget(place / "out")
    resume.forget(place / "another")


def test_a_copy_that_is_being_taken_over_stays(files, place):
    run = tiny_run(files[0], files[1], epochs=1)
    train(run, files[2], place / "out", place / "out.json")
    key = read_json(next((place / "cache/resume/claims").glob("*.json")))["key"]
    with Attempt(key, place / "elsewhere", place / "elsewhere.json"):
        resume.forget(place / "out")
    assert list((place / "cache/resume").glob("*/out"))


def test_an_overtaken_training_that_finishes_is_kept_for_later(files, place, monkeypatch):
    run = tiny_run(files[0], files[1])
    reference = uninterrupted(files, place, run, monkeypatch)
    key = run_key(run, PreparedDataset.read(files[2]).fingerprint())
    with Attempt(key, place / "out", place / "out.json") as first:
        with Attempt("other", place / "out", place / "out.json"), \
                pytest.raises(UserError, match="other settings"):
            first.publish(lambda folder: write(folder, reference), {})
    monkeypatch.setattr(engine, "Trainer", never_trained)
    train(run, files[2], place / "out", place / "out.json")
    assert contents(place / "out") == reference


def test_an_experiment_of_the_queue_has_the_cache_of_the_checkout(place, monkeypatch):
    monkeypatch.delenv("FEATHERSEG_CACHE")
    monkeypatch.setenv("DVC_ROOT", str(place / "checkout"))
    monkeypatch.chdir(place)
    assert cache_root() == place / "checkout/.cache"
    monkeypatch.setenv("FEATHERSEG_CACHE", "elsewhere")
    assert cache_root() == place / "checkout/elsewhere"
    monkeypatch.delenv("DVC_ROOT")
    assert cache_root() == place / "elsewhere"


def _train_slowly(run, data: Path, place: Path, started) -> None:
    save = Attempt.save

    def slowly(self, state):
        save(self, state)
        started.set()
        time.sleep(0.4)

    Attempt.save = slowly
    try:
        train(run, data, place / "out", place / "out.json")
    except UserError as error:
        (place / "error.txt").write_text(str(error))


def living_trainer(files, place: Path, run) -> multiprocessing.Process:
    """Start a trainer, and return once it has finished an epoch."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    trainer = context.Process(target=_train_slowly, args=(run, files[2], place, started))
    trainer.start()
    assert started.wait(60)
    return trainer


def test_a_second_trainer_waits_and_takes_over_the_first_ones_output(files, place, monkeypatch, capfd):
    run = tiny_run(files[0], files[1])
    reference = uninterrupted(files, place, run, monkeypatch)
    first = living_trainer(files, place, run)
    capfd.readouterr()
    train(run, files[2], place / "out", place / "out.json")
    said = capfd.readouterr().err
    first.join()
    assert "Another process is training out already. Waiting for it." in said
    assert "is finished already" in said
    assert contents(place / "out") == reference and not (place / "error.txt").exists()
    assert read_json(place / "out.json")["resumed_after_epoch"] == 0


def test_a_second_trainer_goes_on_where_the_first_is_killed_while_it_waits(files, place, monkeypatch):
    run = tiny_run(files[0], files[1], epochs=6)
    reference = uninterrupted(files, place, run, monkeypatch)
    first = living_trainer(files, place, run)
    context = multiprocessing.get_context("fork")
    second = context.Process(target=train, args=(run, files[2], place / "out", place / "out.json"))
    second.start()
    time.sleep(0.6)
    first.kill()
    first.join()
    second.join()
    assert second.exitcode == 0
    assert contents(place / "out") == reference
    assert read_json(place / "out.json")["resumed_after_epoch"] >= 1


def test_a_trainer_with_other_settings_takes_the_output_folder_over(files, place, monkeypatch):
    old, new = tiny_run(files[0], files[1], epochs=30, early_stop_patience=None), tiny_run(files[0], files[1], epochs=1)
    reference = uninterrupted(files, place, new, monkeypatch)
    first = living_trainer(files, place, old)
    train(new, files[2], place / "out", place / "out.json")
    first.join()
    assert "being trained with other settings" in (place / "error.txt").read_text()
    [stopped] = states(place)
    assert len(torch.load(stopped, weights_only=True)["history"]) < 30
    assert contents(place / "out") == reference
    assert read_json(place / "out.json")["epochs"] == 1


def test_an_output_that_was_overtaken_is_not_written(place):
    first, second = (Attempt(key, place / "out", place / "out.json") for key in ("one", "two"))
    with first:
        with second:
            second.publish(lambda folder: (folder / "who").write_text("second"), {})
        with pytest.raises(UserError, match="other settings"):
            first.publish(lambda folder: (folder / "who").write_text("first"), {})
    assert (place / "out/who").read_text() == "second"


def test_several_processes_do_not_wait(place):
    with (Attempt("key", place / "out", place / "out.json"),
          pytest.raises(UserError, match="Another process is training out already"),
          Attempt("key", place / "out", place / "out.json", rank=0, ranks=2)):
        pass


def test_a_full_disk_is_one_sentence(place, monkeypatch):
    def full(state, file):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598") from None

    monkeypatch.setattr(torch, "save", full)
    with Attempt("key", place / "out", place / "out.json") as attempt, \
            pytest.raises(UserError, match="state.pt could not be written: No space left on device"):
        attempt.save({})
    assert [path.name for path in (place / "cache/resume/key").iterdir()] == ["lock"]
