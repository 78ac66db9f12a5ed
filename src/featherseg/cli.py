"""`featherseg <command>`: one thin function a stage of the pipeline, and what people call by hand.

Each command imports what it needs when it runs, so that `--help` answers at once.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from featherseg.core import paths
from featherseg.core.arithmetic import pin
from featherseg.core.errors import NotRun, UserError
from featherseg.core.files import cache_root, check_name, check_run_name, explained
from featherseg.core.terminal import printable, printable_output, shortened


def main(argv: list[str] | None = None) -> None:
    """Run one command. What stops it is one sentence on standard error, and status 1.

    The traceback of a fault of the program itself goes to a file in the cache folder, which the sentence names;
    with FEATHERSEG_DEBUG=1 in the environment every error shows its traceback instead.
    """
    with printable_output():
        try:
            arguments = vars(_parser().parse_args(argv))
            pin()
            command = arguments.pop("run_command")
            command(**arguments)
            print(end="", flush=True)
        except BrokenPipeError:  # the reader, such as head, has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if os.environ.get("FEATHERSEG_DEBUG"):
                raise
            sys.exit(f"featherseg: {printable(_sentence(error))}")


def _sentence(error: BaseException) -> str:
    """What a user can do about an error."""
    if isinstance(error, UserError | NotRun):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the next run goes on after the last finished epoch."
    if isinstance(error, ModuleNotFoundError) and not (error.name or "featherseg").startswith("featherseg"):
        return (f"the package '{error.name}' is not installed in {sys.executable}; run `make setup` and use .venv/bin "
                "(source .venv/bin/activate).")
    if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and ("out of memory" in str(error) or "allocate memory" in str(error))):
        return ("there is not enough memory; lower train.batch_size, evaluate.batch_size or model.image_size, or end "
                "what else uses it.")
    if isinstance(error, OSError) and error.errno is not None:
        return explained(error, "reading or writing failed")
    return f"the program itself is at fault ({type(error).__name__}: {shortened(str(error), 200)}); {_keep(error)}"


def _keep(error: BaseException) -> str:
    """Write an error's traceback into the cache folder; returns where it is, as the rest of a sentence."""
    path = cache_root() / "faults" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace")
    except OSError:
        return "run it with FEATHERSEG_DEBUG=1 to see where."
    return f"report it with {path}, which says where."


def download(dataset: str) -> None:
    """Fetch an official archive into data/raw, from the mirror, the inbox or its address."""
    from featherseg.config import read_params
    from featherseg.data.raw.download import download_dataset

    download_dataset(dataset, mirror=read_params("study").data.mirror)


def prepare(dataset: str) -> None:
    """Write a prepared dataset into data/processed: a synthetic set, an own folder, or an official one."""
    from featherseg.check import split_notes
    from featherseg.config import read_params
    from featherseg.data.prepare import prepare_dataset

    prepare_dataset(dataset, read_params("study").data)
    _print_notes(split_notes(dataset))


def pool(name: str) -> None:
    """Make a pooled set of prepared ones, as params.yaml declares it in data.pooled."""
    from featherseg.check import split_notes
    from featherseg.config import read_params
    from featherseg.data.pool import pool_dataset

    pool_dataset(name, read_params("study").data.pooled)
    _print_notes(split_notes(name))


def weights(model: str) -> None:
    """Fetch a model's public weights into data/weights."""
    from featherseg.config import read_params
    from featherseg.models.public import fetch_weights

    fetch_weights(model, read_params("study").data.mirror)


def plan(study: str, list_runs: bool) -> None:
    """Resolve a study into one small file a run; with --list only show the runs and what they lack."""
    from featherseg.config import read_params
    from featherseg.plan import (
        idle_knob_notes,
        lacking,
        own_data_notes,
        resolve_study,
        unlisted_run_notes,
        write_plan,
    )
    from featherseg.tasks.base import TASKS

    if list_runs:
        runs = resolve_study(study)
        reasons = lacking(runs, read_params("study").data)
        width = max(len(run.name) for run in runs)
        for run in runs:
            lack = reasons.get(run.name)
            print(f"{run.name:<{width}}  {f'not run: {lack}' if lack else 'ready'}")
    else:
        runs = write_plan(study)
        print(f"{len(runs)} runs planned")
        _print_notes([*idle_knob_notes(study), *unlisted_run_notes(study, runs), *own_data_notes(study)])
    for task in sorted({run.task for run in runs}):
        for note in TASKS[task]().plan_notes([run for run in runs if run.task == task]):
            print(note, file=sys.stderr)


def code() -> None:
    """Write into runs/code which code decides each recipe's runs, as digests that no comment changes."""
    from featherseg.run_code import write_code

    _print_notes(write_code(paths.CODE))


def train(run: str, study: str) -> None:
    """Train one planned run."""
    from featherseg.config import plan_path, read_run
    from featherseg.core.files import not_run_reason, write_not_run

    resolved = read_run(plan_path(study, run))
    data = paths.processed(resolved.dataset)
    out, info = paths.trained(study, run), paths.info(study, run)
    if reason := resolved.not_run or not_run_reason(data):
        write_not_run(out, reason, info)
        print(f"not run: {reason}")
        return
    from featherseg.engine import train as train_run

    train_run(resolved, data, out, info)


def evaluate(run: str, study: str) -> None:
    """Score one trained run at original resolution."""
    from featherseg.config import plan_path, read_run
    from featherseg.core.files import not_run_reason, write_not_run

    resolved = read_run(plan_path(study, run))
    trained, out = paths.trained(study, run), paths.evaluated(study, run)
    if reason := not_run_reason(trained):
        write_not_run(out, reason)
        print(f"not run: {reason}")
        return
    from featherseg.evaluate import evaluate as evaluate_run

    evaluate_run(resolved, paths.processed(resolved.dataset), trained, out)


def collect(study: str) -> None:
    """Gather the declared runs' results into reports/<study>."""
    from featherseg.plan import uncommitted_lock_notes
    from featherseg.reporting.collect import collect as collect_study

    collect_study(study)
    _print_notes(uncommitted_lock_notes(study))


def notebook(name: str, study: str, parameters: list[str]) -> None:
    """Execute a notebook into reports/<study> and turn it into HTML."""
    from featherseg.reporting.notebook import execute

    execute(name, study, dict(_assignment(text) for text in parameters))


def index() -> None:
    """Write reports/index.html, which links every report."""
    from featherseg.reporting.index import write_index

    write_index()


def verify(study: str, against: str) -> None:
    """Compare a study's results with the committed ones, cell by cell; status 1 where one is off or missing."""
    from featherseg.verify.page import summary, write_verification

    found = write_verification(study, against)
    print(summary(found))
    print(f"see {paths.verification(study)}")
    if not found.reproduced:
        sys.exit(1)


def spread(study: str, source: str | None) -> None:
    """Write into reports/spread.csv how far seeds alone move a study's scores, for verify."""
    from featherseg.verify.spread import SPREAD, write_spread

    lines = write_spread(study, source)
    print(f"{len(lines)} deviations over seeds, of {lines.recipe.nunique()} recipes on {lines.dataset.nunique()} "
          f"datasets; see {SPREAD}")


def pretrain(name: str, start: Path | None) -> None:
    """Make embedded weights again (half an hour or more); --start goes on from earlier ones."""
    from featherseg.config import PretrainParams, parse, read_yaml
    from featherseg.core.registry import unknown
    from featherseg.tasks.segmentation.pretrain import pretrain as pretrain_model

    source = Path("pipelines/pretrain")
    declared = read_yaml(source / "params.yaml")
    if name not in declared:
        raise unknown(f"weights in {source / 'params.yaml'}", name, list(declared))
    params = parse(PretrainParams, declared[name], f"{source / 'params.yaml'}: {name}")
    pretrain_model(params, source / "weights" / name, start)


def describe(recipe: str, params: str | None, as_json: bool, resolved: bool) -> None:
    """Print a recipe's parameters by group and its multiply-adds; with --params those of that file's model."""
    if resolved:
        from featherseg.plan import read_recipe
        from featherseg.recipes import as_text

        read_recipe(recipe)
        print(as_text(recipe), end="")
        return
    from featherseg.describe import table
    from featherseg.papers.counts import describe_with

    described = describe_with(recipe, params)
    print(json.dumps(described, indent=2) if as_json else table(described))


def predict(run: str, image: list[Path], prompt: list[str], out: Path, overlay: Path | None,
            threshold: float | None) -> None:
    """Segment images with a trained run."""
    from featherseg.tasks.segmentation.predict import predict_files

    predict_files(run, image, prompt, out, overlay, threshold)


def reliance(predictor: str | None, run: str | None, data: Path | None, split: str, limit: int | None,
             out: Path) -> None:
    """Find out how much image and language each matter to a run, or to a model of your own."""
    from featherseg.reliance.examine import examine

    examine(predictor, run, data, split, limit, out)


def check(study: list[str] | None, recipe: str | None, params_only: bool, out: Path | None) -> None:
    """Read every YAML and dataset and say what is wrong, without running anything."""
    if recipe is not None:
        describe(recipe, params=None, as_json=False, resolved=True)
        return
    from featherseg.check import check_project, data_notes, knob_notes, list_notes
    from featherseg.core.files import write_json

    notes: list[str] = []
    faults = check_project(study, params_only, notes)
    print("\n".join(faults) if faults else "nothing wrong found")
    _print_notes(knob_notes(study))
    if not params_only:
        _print_notes([*list_notes(), *notes, *data_notes()])
    if faults:
        sys.exit(1)
    if out:
        write_json(out, {"faults": faults})


def agreement(data: list[Path], split: str, out: Path) -> None:
    """Compare the prompt engine's words with the published ones of prepared datasets."""
    from featherseg.papers.medvlsm.agreement_page import write_agreement

    for one in write_agreement(data, out, split):
        print(f"{one.dataset}, {one.attribute}: agreement {one.share:.3f}, kappa {one.kappa:.3f}")


def _print_notes(notes: list[str]) -> None:
    """What a user should know and need not correct."""
    for note in notes:
        print(f"note: {note}")


def _assignment(text: str) -> tuple[str, object]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"-p {text}: a notebook parameter is given as name=value.")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="featherseg", description="Parameter-efficient tuning of vision-language segmentation models. "
        "Run `dvc repro` for the whole study; the commands below are its stages, and what is called by hand.")
    commands = parser.add_subparsers(metavar="command", required=True)

    def named(kind: str) -> Callable[[str], str]:
        return partial(check_name, kind)

    def command(function: Callable[..., None], *, study: bool = False) -> argparse.ArgumentParser:
        summary = (function.__doc__ or "").splitlines()[0]
        sub = commands.add_parser(function.__name__, help=summary, description=summary)
        sub.set_defaults(run_command=function)
        if study:
            sub.add_argument("--study", type=named("study"), default="study", help="`study` or a folder of pipelines/")
        return sub

    command(download).add_argument("dataset", type=named("dataset"))
    command(prepare).add_argument("dataset", type=named("dataset"))
    command(pool).add_argument("name", type=named("dataset"))
    command(weights).add_argument("model", type=named("weights"))
    command(plan, study=True).add_argument("--list", action="store_true", dest="list_runs")
    command(code)
    command(train, study=True).add_argument("run", type=check_run_name)
    command(evaluate, study=True).add_argument("run", type=check_run_name)
    command(collect, study=True)
    sub = command(notebook, study=True)
    sub.add_argument("name", type=named("notebook"))
    sub.add_argument("-p", "--parameter", action="append", default=[], dest="parameters", metavar="NAME=VALUE")
    command(index)
    command(verify, study=True).add_argument("--against", default="HEAD", metavar="REVISION",
                                             help="a commit, or the path of a results.csv; HEAD by default")
    command(spread, study=True).add_argument("--from", dest="source", metavar="REVISION",
                                             help="a commit, or the path of a results.csv; what lies here by default")
    pretraining = command(pretrain)
    pretraining.add_argument("name", type=named("weights"), help="a key of pipelines/pretrain/params.yaml")
    pretraining.add_argument("--start", type=Path, metavar="FOLDER")
    sub = command(describe)
    sub.add_argument("recipe", type=named("recipe"))
    sub.add_argument("--params", metavar="FILE", help="describe the model of this params file, not the full-size one")
    sub.add_argument("--json", action="store_true", dest="as_json")
    sub.add_argument("--resolved", action="store_true", help="print its keys, with those of the file that it extends")
    sub = command(predict)
    sub.add_argument("--run", required=True, help="<run> or <study>/<run>")
    sub.add_argument("--image", required=True, nargs="+", type=Path, help="images, or one folder of images")
    sub.add_argument("--prompt", required=True, nargs="+",
                     help="one for all images, one for each, or several for one image")
    sub.add_argument("--out", required=True, type=Path, help="mask, or a folder of masks for several images")
    sub.add_argument("--overlay", type=Path)
    sub.add_argument("--threshold", type=float)
    sub = command(reliance)
    sub.add_argument("--predictor", metavar="MODULE:FUNCTION",
                     help="(image uint8 HxWx3, prompt) -> mask HxW, bool or probabilities; imported from here")
    sub.add_argument("--run", help="or a trained run: <run> or <study>/<run>")
    sub.add_argument("--data", type=Path, metavar="FOLDER",
                     help="a prepared dataset, or a folder with images/ and masks/, by path or by its name in "
                          "data.folders; for a run its own by default")
    sub.add_argument("--split", default="test", help="test by default; all for every one")
    sub.add_argument("--limit", type=int, metavar="N", help="at most N images, of as many patients as can be")
    sub.add_argument("--out", type=Path, default=paths.reports("reliance"), metavar="FOLDER")
    sub = command(check)
    sub.add_argument("--study", type=named("study"), action="append", help="only these studies")
    sub.add_argument("--recipe", type=named("recipe"), help="only this recipe, which is printed with what it extends")
    sub.add_argument("--params-only", action="store_true", help="leave datasets and weights out")
    sub.add_argument("--out", type=Path, metavar="FILE", help="written if nothing is wrong, for stages that wait")
    sub = command(agreement)
    sub.add_argument("--data", required=True, nargs="+", type=Path, metavar="FOLDER", help="prepared datasets")
    sub.add_argument("--split", default="test")
    sub.add_argument("--out", type=Path, default=paths.reports("prompt_engine"))
    return parser
