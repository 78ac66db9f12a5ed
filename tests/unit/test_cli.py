"""The command line: quick to answer, one sentence for what it cannot do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featherseg import cli
from featherseg.cli import main
from featherseg.config import write_yaml
from featherseg.core.errors import UserError

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "accelerate", "peft", "matplotlib", "pandas", "scipy", "monai", "pydantic")
COMMANDS = ("download", "prepare", "weights", "plan", "code", "train", "evaluate", "collect", "notebook", "index",
            "verify", "pretrain", "describe", "predict", "reliance", "check")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def test_help_names_every_command_without_a_heavy_import():
    done = run("-c", "import sys; from featherseg.cli import main\n"
                     "try: main(['--help'])\n"
                     "finally: print('IMPORTED', *sys.modules)")
    assert done.returncode == 0, done.stderr
    text, _, imported = done.stdout.partition("IMPORTED")
    assert [name for name in COMMANDS if f"    {name} " not in text] == []
    assert set(HEAVY) & set(imported.split()) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert getattr(cli, command).__doc__.splitlines()[0].split(",")[0].split(";")[0][:30] in capsys.readouterr().out


def test_an_unknown_command_names_the_valid_ones(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evalute"])
    assert ended.value.code == 2
    assert "evaluate" in capsys.readouterr().err


def test_a_user_error_is_one_sentence_and_status_1(tmp_path):
    done = run("-m", "featherseg", "plan", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("featherseg: params.yaml does not exist;") and done.stderr.count("\n") == 1


class Odd(BaseException):
    """What no `except Exception` catches."""


@pytest.mark.parametrize("raised", [KeyError("inner"), RecursionError("deep"), Odd("x\x1b[31m"), OSError("no number")])
def test_the_traceback_of_a_fault_of_the_program_goes_to_a_file(monkeypatch, tmp_path, raised):
    def broken(*_):
        raise raised

    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path))
    monkeypatch.setattr("featherseg.check.check_project", broken)
    with pytest.raises(SystemExit, match="the program itself is at fault") as ended:
        main(["check"])
    [kept] = (tmp_path / "faults").iterdir()
    assert str(kept) in ended.value.code and ended.value.code.isprintable()
    assert "in broken" in kept.read_text() and type(raised).__name__ in kept.read_text()
    monkeypatch.setenv("FEATHERSEG_DEBUG", "1")
    with pytest.raises(type(raised)):
        main(["check"])


def test_a_fault_is_said_also_where_its_traceback_cannot_be_kept(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("featherseg.check.check_project", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match="ZeroDivisionError.*FEATHERSEG_DEBUG=1"):
        main(["check"])


@pytest.mark.parametrize(("raised", "said"), [
    (UserError("the mask is empty."), "featherseg: the mask is empty."),
    (KeyboardInterrupt(), "goes on after the last finished epoch"),
    (ModuleNotFoundError("no", name="papermill"), "'papermill' is not installed"),
    (OSError(28, "No space left on device", "/x/a.png"), "/x/a.png: No space left on device; free space"),
    (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied; change the permission"),
    (UserError("the server says \x1b[2J\r\u202e."), r"the server says \x1b[2J\r\u202e."),
    (MemoryError(), "there is not enough memory; lower train.batch_size"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "there is not enough memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "there is not enough memory"),
])
def test_what_a_user_can_act_on_ends_in_one_sentence(monkeypatch, raised, said):
    def stop(*_):
        raise raised

    monkeypatch.setattr("featherseg.check.check_project", stop)
    with pytest.raises(SystemExit) as ended:
        main(["check"])
    assert said in str(ended.value.code) and "\n" not in str(ended.value.code)


@pytest.mark.parametrize(("given", "values"), [
    (["-p", "study=vlsm_adapter", "-p", "width=3"], {"study": "vlsm_adapter", "width": 3}),
    (["-p", "names=[\"a\"]", "-p", "text=a=b"], {"names": ["a"], "text": "a=b"}),
    ([], {}),
])
def test_notebook_parameters_are_json_or_text(monkeypatch, given, values):
    called = []
    monkeypatch.setattr("featherseg.reporting.notebook.execute", lambda *arguments: called.append(arguments))
    main(["notebook", "00_overview", *given])
    assert called == [("00_overview", "study", values)]


def test_a_notebook_parameter_without_a_value_is_refused():
    with pytest.raises(SystemExit, match="-p dim: .*name=value"):
        main(["notebook", "00_overview", "-p", "dim"])


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_undeclared_run_is_refused_with_the_planned_ones(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write_yaml("runs/study/plan/clipseg-decoder-lesions-0.yaml", {})
    with pytest.raises(SystemExit, match="did you mean 'clipseg-decoder-lesions-0'"):
        main([command, "clipseg-decoder-lesion-0"])


def test_describe_prints_json_that_adds_up(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    main(["describe", "clipseg-vlsm_dense-v", "--json"])
    described = json.loads(capsys.readouterr().out)
    assert described["trainable"] == sum(group["trainable"] for group in described["groups"].values()) == 1_784_448


def test_describe_with_params_is_the_model_that_they_choose(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "params.yaml"
    write_yaml(path, {"study": {"datasets": [], "recipes": [], "seeds": []},
                      "model": {"weights": {"clipseg": "random"}}, "adapter": {"dim": 32}})
    main(["describe", "clipseg-vlsm_dense-v", "--params", str(path), "--json"])
    blocks, width, dim = 9 * 2, 768, 32
    assert json.loads(capsys.readouterr().out)["trainable"] == blocks * (2 * width * dim + width + dim)


@pytest.mark.parametrize("reports", ["absent", "a file"])
def test_an_index_of_nothing_is_one_sentence(tmp_path, monkeypatch, reports):
    monkeypatch.chdir(tmp_path)
    if reports == "a file":
        Path("reports").write_text("x")
    with pytest.raises(SystemExit, match="there is no folder reports/"):
        main(["index"])


# the command line with a command that only prints, since most others import torch first
SAYING = """
from featherseg import cli

def index():
    "Print a text."
    print({text})

cli.index = index
cli.main(["index"])
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_text_can_be_printed_in_any_encoding(encoding):
    text = ascii("病例 \u2013 \udcff \x1b]0;title\x07 \x85")
    done = subprocess.run([sys.executable, "-c", SAYING.format(text=text)], capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": encoding})
    printed = done.stdout.decode(encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert r"\x1b]0;title\x07 \x85" in printed and "\x1b" not in printed
    assert ("病例" if encoding == "utf-8" else r"\u75c5\u4f8b") in printed


@pytest.mark.parametrize(("stdout", "said"), [("/dev/full", "No space left on device"), (None, "")])
def test_a_standard_output_that_takes_nothing(stdout, said):
    redirect = f">{stdout}" if stdout else ">&-"
    done = subprocess.run(f"exec {sys.executable} - {redirect}", shell=True, input=SAYING.format(text="'x'"),
                          stderr=subprocess.PIPE, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert said in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.parametrize("arguments", [
    ["train", "../x"], ["evaluate", "x;id"], ["prepare", "-"], ["download", "x" * 5000], ["pool", "a b"],
    ["weights", "\x1b[31m"], ["notebook", "../../x"], ["describe", "$(id)"], ["pretrain", "a/b"],
    ["collect", "--study", ".."], ["plan", "--study", "/etc"], ["check", "--study", "a\nb"]])
def test_names_that_become_paths_or_shell_lines_obey_one_pattern(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="a name consists of letters") as ended:
        main(arguments)
    assert ended.value.code.isprintable() and len(ended.value.code) < 300
