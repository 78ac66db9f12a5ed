"""Speed and memory of every method, as one table.

CLIPSeg is measured beside the library's own forward, ETRIS's ways to tune beside each other.
"""

import csv
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import growth, startup, steps
from benchmarks.process import in_process
from benchmarks.steps import IMPLEMENTATIONS, PROMPTS, Case, model_config
from featherseg.core.errors import NotRun
from featherseg.core.files import atomic_path, cache_root
from featherseg.core.markup import csv_cell, from_csv_cell
from featherseg.core.provenance import hardware, processor, provenance
from featherseg.data.synthetic import prepare_synthetic

OUTPUT = Path("reports/benchmarks.csv")
START_UP = "start-up"
COLUMNS = ("part", "size", "image_size", "method", "condition", "device", "precision", "batch",
           "implementation", "quantity", "unit", "median", "min", "max", "runs", "target", "ok", "note",
           "hardware", "threads", "python", "torch", "transformers", "commit")

ZERO_SHOT, DECODER, DENSE = "clipseg-zero_shot", "clipseg-decoder", "clipseg-vlsm_dense-vlc"
SHALLOW = "clipseg-vlsm_shallow-vlc"
METHODS = (ZERO_SHOT, DECODER, "clipseg-full", DENSE, SHALLOW, "clipseg-lora")
ETRIS_MODELS = ("etris_vit", "etris_r50")
ETRIS_METHODS = ("decoder", "bridger", "lora", "full")
ETRIS_BATCH, ETRIS_ROUNDS = 1, 2
TRAINING_GOALS = {DENSE: 1.1, SHALLOW: 8.0, DECODER: 8.0}  # speed-up of a full-size step on the CPU
PROMPTS_GOAL = 8.0
GROWTH_GOALS = {"seconds": 1.2, "peak": 1.1}
# of the time that torch's own import takes: what the engine's adds, and one image segmented
ENGINE_GOAL, PREDICT_GOAL = 0.68, 1.6
CUDA_BATCH, CUDA_ROUNDS = 32, 10
# dense bf16 operations a second by the vendor's data sheets, two a multiply-add; the first name that fits
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        sizes: for each size of a case its batch and rounds on the CPU.
        methods: recipes.
        images: the two numbers of images between which growth is looked at.
        etris: the ETRIS models, each at full size with every method of `ETRIS_METHODS`.
        starts: how often a command is started.
    """

    sizes: dict[str, tuple[int, int]]
    methods: tuple[str, ...]
    images: tuple[int, int]
    etris: tuple[str, ...] = ()
    starts: int = 1

    def cases(self) -> list[Case]:
        """Every size, device, method and phase."""
        found = []
        for size, on_cpu in self.sizes.items():
            for device, (batch, rounds) in {"cpu": on_cpu, "cuda": (CUDA_BATCH, CUDA_ROUNDS)}.items():
                found += [Case(size, recipe, phase, device, batch, rounds)
                          for recipe in self.methods for phase in ("train", "inference")
                          if (recipe, phase) != (ZERO_SHOT, "train")]
        return found

    def etris_cases(self) -> list[list[Case]]:
        """Training steps of every ETRIS model on every device, the methods of one of them in a list."""
        devices = {"cpu": (ETRIS_BATCH, ETRIS_ROUNDS), "cuda": (CUDA_BATCH, CUDA_ROUNDS)}
        return [[Case("full", f"{model}-{method}", "train", device, *much, model) for method in ETRIS_METHODS]
                for model in self.etris for device, much in devices.items()]


WHOLE = Plan({"full": (2, 3), "embedded": (16, 15)}, METHODS, (1_000, 10_000), ETRIS_MODELS, starts=5)
QUICK = Plan({"embedded": (4, 2)}, (ZERO_SHOT, DENSE, SHALLOW), (30, 90))


def run_benchmarks(quick: bool = False, start_up_alone: bool = False) -> None:
    """Measure, print each result as it comes, and write `reports/benchmarks.csv`.

    Args:
        quick: measure a fraction at the embedded size, to see that it works, and write nothing.
        start_up_alone: measure how long commands take to start, and keep the other rows of the file.
    """
    cache_root().mkdir(parents=True, exist_ok=True)
    started, rows, source = time.perf_counter(), [], _source()
    plan, part = QUICK if quick else WHOLE, _startup if start_up_alone else measure
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache_root()) as folder:
        for row in part(plan, Path(folder)):
            print(f"[{time.perf_counter() - started:4.0f} s] {_line(row)}", flush=True)
            rows.append({**row, **source, "hardware": hardware() if row["device"] == "cuda" else processor()})
    if quick:
        print("this was a quick run: everything works, but its figures mean little, and nothing is written")
        return
    print("\ntargets:", *(_line(row) for row in rows if row["target"]), sep="\n")
    others = [row for row in read_rows(OUTPUT) if row["part"] != START_UP] if start_up_alone else []
    write_rows([*rows, *others], OUTPUT)
    print(f"{OUTPUT} is written")


def measure(plan: Plan, work_dir: Path) -> Iterator[Row]:
    """The rows of a plan, without hardware and versions; `work_dir` takes datasets and caches."""
    yield from _startup(plan, work_dir)
    for case in plan.cases():
        yield from _or_reason(case, case.phase, _steps(case, work_dir))
        if (case.recipe, case.phase) == (ZERO_SHOT, "inference"):
            yield from _or_reason(case, "prompts", _prompts(case, work_dir))
    for cases in plan.etris_cases():
        measured = []
        for case in cases:
            for row in _or_reason(case, "train", _alone(case, work_dir)):
                measured.append(row)
                yield row
        yield from _beside_full(cases, measured)
    yield from _growth("prepare", "", plan.images, work_dir)
    for recipe in (DENSE, SHALLOW):
        yield from _growth("epoch", recipe, plan.images, work_dir)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote; none where there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: from_csv_cell(text) for name, text in row.items()} for row in csv.DictReader(file)]


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV with the columns `COLUMNS`, beside and renamed."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)


def make_row(case: Case, part: str, quantity: str, unit: str = "", values: Sequence[float] = (), *,
             implementation: str = "", condition: str = "", note: str = "",
             at_least: float | None = None, at_most: float | None = None) -> Row:
    """One row of the table, every column in it.

    Args:
        case: what was measured.
        part: start-up, train, inference, prompts, prepare or epoch.
        quantity: what the values are.
        unit: their unit.
        values: one a measurement; none where it was not made.
        implementation: ours, reference, or the two that are compared.
        condition: what is special to this row within its case.
        note: what else a reader needs, or why nothing was measured.
        at_least, at_most: the goal, held against the median.
    """
    row = dict.fromkeys(COLUMNS, "") | {
        "part": part, "size": case.size, "image_size": model_config(case.size, case.model).image_size,
        "method": case.recipe, "condition": condition, "device": case.device, "batch": case.batch,
        "precision": "bf16" if case.device == "cuda" and part != "prompts" else "float32",
        "implementation": implementation, "quantity": quantity, "unit": unit, "note": note}
    if not values:
        return row
    middle = median(values)
    row |= {"median": _rounded(middle), "min": _rounded(min(values)), "max": _rounded(max(values)),
            "runs": len(values)}
    if at_least is not None:
        row |= {"target": f">= {at_least:g}", "ok": "yes" if middle >= at_least else "no"}
    if at_most is not None:
        row |= {"target": f"<= {at_most:g}", "ok": "yes" if middle <= at_most else "no"}
    return row


def share_of_peak(case: Case, gpu: str, flops: int, seconds: Sequence[float]) -> Row:
    """The operations that a step of ours needs, a second, over the peak of a GPU of that name."""
    quantity = "share of the hardware's peak"
    peak = next((peak for known, peak in PEAKS.items() if known in gpu), None)
    if peak is None:
        return make_row(case, case.phase, quantity, note=f"not measured: the peak of {gpu} is not known here")
    return make_row(case, case.phase, quantity, "1", [flops / s / peak for s in seconds],
                    implementation="ours",
                    note=f"{flops / 1e9:.1f} GFLOP a step counted, {peak / 1e12:.0f} TFLOP/s at most")


def _startup(plan: Plan, work_dir: Path) -> Iterator[Row]:
    """Seconds that the engine's import adds to torch's, and those of one image's prediction, each beside torch's."""
    rounds = plan.starts
    case = Case("embedded", "", "inference", "cpu", 1, rounds)
    seconds = in_process(startup.engine_import, rounds, cache_dir=work_dir / "cache")
    yield from _beside_torch(case, "engine", "import of the engine, torch's not counted", seconds, ENGINE_GOAL)
    case = replace(case, recipe=DECODER)
    seconds = in_process(startup.predict_one, DECODER, rounds, _dataset(case, work_dir), work_dir / "start-up",
                         cache_dir=work_dir / "cache")
    yield from _beside_torch(case, "predict", "featherseg predict, one image", seconds, PREDICT_GOAL)


def _beside_torch(case: Case, ours: str, condition: str, seconds: dict[str, list[float]], goal: float) -> Iterator[Row]:
    """What was measured, and its ratio to torch's import."""
    yield make_row(case, START_UP, "time", "s", seconds["torch"], implementation="torch", condition="import")
    yield make_row(case, START_UP, "time", "s", seconds[ours], implementation="ours", condition=condition)
    yield make_row(case, START_UP, "time", "x", _ratios(seconds[ours], seconds["torch"]),
                   implementation="ours / torch", condition=condition, at_most=goal)


def _steps(case: Case, work_dir: Path) -> Iterator[Row]:
    """Speed of ours and of the reference, their ratio, and the peak memory of each."""
    data_dir = _dataset(case, work_dir)
    timed = _run(steps.time_steps, case, data_dir, case=case, work_dir=work_dir)
    seconds = timed["seconds"]
    conditions = {"ours": "cached features" if timed["cached"] else "", "reference": ""}
    for name in IMPLEMENTATIONS:
        yield make_row(case, case.phase, "speed", "images/s", [case.batch / s for s in seconds[name]],
                       implementation=name, condition=conditions[name])
    has_goal = (case.size, case.phase, case.device) == ("full", "train", "cpu")
    yield make_row(case, case.phase, "speed-up", "x", _ratios(seconds["reference"], seconds["ours"]),
                   implementation="ours / reference", condition=conditions["ours"],
                   at_least=TRAINING_GOALS.get(case.recipe) if has_goal else None)
    if case.device == "cuda":
        yield share_of_peak(case, torch.cuda.get_device_name(), timed["flops"], seconds["ours"])
    for name in IMPLEMENTATIONS:
        memory = _run(steps.peak_memory, case, data_dir, name, case=case, work_dir=work_dir)
        note = f"{memory['before']} MiB of it before the model is built" if case.device == "cpu" else ""
        yield make_row(case, case.phase, "peak memory", "MiB", [memory["peak"]],
                       implementation=name, condition=conditions[name], note=note)


def _alone(case: Case, work_dir: Path) -> Iterator[Row]:
    """Speed and peak memory of training steps of a model without a reference."""
    timed = _run(steps.time_alone, case, _dataset(case, work_dir), case=case, work_dir=work_dir)
    common = {"implementation": "ours", "condition": "cached features" if timed["cached"] else ""}
    yield make_row(case, "train", "speed", "images/s", [case.batch / s for s in timed["seconds"]], **common)
    if case.device == "cuda":
        yield share_of_peak(case, torch.cuda.get_device_name(), timed["flops"], timed["seconds"])
    note = f"{timed['before']} MiB of it before the model is built" if case.device == "cpu" else ""
    yield make_row(case, "train", "peak memory", "MiB", [timed["peak"]], note=note, **common)


def _beside_full(cases: Sequence[Case], rows: Sequence[Row]) -> Iterator[Row]:
    """How much faster each method is than training everything, and which share of its memory it takes."""
    for quantity, compared, unit in (("speed", "speed-up", "x"), ("peak memory", "share of memory", "1")):
        found = {row["method"]: float(row["median"]) for row in rows if row["quantity"] == quantity and row["runs"]}
        full = found.pop(cases[-1].recipe, None)
        for case in cases:
            if full and case.recipe in found:
                yield make_row(case, "train", compared, unit, [found[case.recipe] / full],
                               implementation="ours / ours", condition="beside full")


def _prompts(case: Case, work_dir: Path) -> Iterator[Row]:
    """Twelve prompts on one image in one call, beside a call for each of them."""
    seconds = _run(steps.time_prompts, case, _dataset(case, work_dir), case=case, work_dir=work_dir)
    for way, implementation, condition in (("at once", "ours", "one call"),
                                           ("one by one", "ours", "twelve calls"),
                                           ("reference", "reference", "twelve calls")):
        yield make_row(case, "prompts", "speed", "prompts/s", [PROMPTS / s for s in seconds[way]],
                       implementation=implementation, condition=condition)
    has_goal = (case.size, case.device) == ("full", "cpu")
    for way, compared in (("one by one", "ours / ours"), ("reference", "ours / reference")):
        yield make_row(case, "prompts", "speed-up", "x", _ratios(seconds[way], seconds["at once"]),
                       implementation=compared, condition="one call / twelve calls",
                       at_least=PROMPTS_GOAL if has_goal and way == "reference" else None)


def _growth(part: str, recipe: str, images: tuple[int, int], work_dir: Path) -> Iterator[Row]:
    """Time for each image and peak memory of `prepare` or of a training epoch, at two numbers of images."""
    case, found = Case("embedded", recipe, "train", "cpu", growth.BATCH, 1), []
    for number in images:
        data_dir = work_dir / f"{number}-images" / "lesions"
        if part == "prepare":
            call = (growth.prepare, number, model_config("embedded").image_size, data_dir)
        else:
            call = (growth.epoch, recipe, data_dir, data_dir.parent)
        found.append(in_process(*call, cache_dir=work_dir / "cache"))
        for quantity, unit, value in (("speed", "images/s", 1 / found[-1]["seconds"]),
                                      ("peak memory", "MiB", found[-1]["peak"])):
            yield make_row(case, part, quantity, unit, [value],
                           implementation="ours", condition=f"{number} images")
    few, many = found
    for quantity, key in (("growth of time an image", "seconds"), ("growth of peak memory", "peak")):
        yield make_row(case, part, quantity, "x", [many[key] / few[key]], implementation="ours",
                       condition=f"{images[1]} / {images[0]} images", at_most=GROWTH_GOALS[key])


def _or_reason(case: Case, part: str, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, or one that says why they were not measured."""
    try:
        if case.device == "cuda" and not torch.cuda.is_available():
            raise NotRun("no CUDA GPU here")
        yield from rows
    except NotRun as reason:
        yield make_row(case, part, "speed, memory", note=f"not measured: {reason}")


def _run(function: Callable, *arguments: Any, case: Case, work_dir: Path) -> Any:
    loaded = (steps.__name__, "peft") if case.device == "cpu" else ()
    return in_process(function, *arguments, cache_dir=work_dir / "cache", loaded=loaded)


def _dataset(case: Case, work_dir: Path) -> Path:
    """A prepared dataset of two batches at the case's input size."""
    size = model_config(case.size, case.model).image_size
    data_dir = work_dir / f"{size}-px-{case.batch}" / "lesions"
    if not data_dir.is_dir():
        prepare_synthetic("lesions", 2 * case.batch, size, 0, data_dir)
    return data_dir


def _ratios(many: Sequence[float], few: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(many, few, strict=True)]


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _source() -> Row:
    found = provenance()
    return {"threads": found["threads"], "python": found["python"], "commit": found["commit"] or "",
            **{name: found["versions"][name] for name in ("torch", "transformers")}}


def _line(row: Row) -> str:
    """A row for the terminal."""
    places = ("size", "device", "part", "method", "condition", "implementation")
    said = f"{row['median']} {row['unit']}" if row["runs"] else row["note"]
    goal = f" ({row['target']}: {'ok' if row['ok'] == 'yes' else 'NOT REACHED'})" if row["target"] else ""
    return f"{' '.join(row[place] for place in places if row[place])}: {row['quantity']} {said}{goal}"
