"""What the benchmarks compare is equal, and what they write is whole. Nothing is timed here."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import startup, steps
from benchmarks import suite as bench
from benchmarks.process import in_process
from benchmarks.reference import Reference
from benchmarks.steps import Bench, Case
from featherseg import adapters, models
from featherseg.cli import main
from featherseg.config import ModelConfig
from featherseg.core.errors import NotRun
from featherseg.core.provenance import peak_memory_mib, provenance
from featherseg.data.synthetic import prepare_synthetic
from featherseg.models import small_model

ROOT = Path(__file__).parents[2]
METHODS = ("zero_shot", "decoder", "full", "vlsm_dense", "vlsm_shallow", "lora")
PROMPTS = ["", "left lung", "one large white polyp, located in the upper left of the image"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny_run.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def at_root(monkeypatch, tmp_path, weights):
    """Recipes and params are found, caches are apart, and every size is a tiny model."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(steps, "model_config", lambda size, model="clipseg": weights)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.fixture
def small_etris(at_root, monkeypatch, tmp_path):
    """Every size is a small ETRIS."""
    model = small_model("etris_vit", 32)
    (tmp_path / "config.json").write_text(json.dumps(model.architecture()))
    save_file({name: tensor.contiguous() for name, tensor in model.net.state_dict().items()},
              tmp_path / "model.safetensors")
    found = ModelConfig(name="etris_vit", weights=str(tmp_path))
    monkeypatch.setattr(steps, "model_config", lambda size, model="clipseg": found)


@pytest.fixture
def data_dir(tmp_path):
    prepare_synthetic("lesions", 6, 32, 0, tmp_path / "lesions")
    return tmp_path / "lesions"


def case(**changes):
    return Case(**{"size": "embedded", "recipe": "clipseg-full", "phase": "train", "device": "cpu",
                   "batch": 3, "rounds": 1, **changes})


def tuned(weights, method):
    """A tiny model whose method has moved away from its start."""
    model = adapters.apply(models.build(weights), {"name": method}, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapters.trainable(model).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(model):
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3)), model.tokenize(PROMPTS)


@pytest.mark.parametrize("method", METHODS)
def test_the_reference_gives_our_logits_and_our_gradients(weights, method):
    model = tuned(weights, method)
    gradients, logits = {}, {}
    for name, network in (("ours", model), ("reference", Reference(model))):
        model.zero_grad()
        with sdpa_kernel(SDPBackend.MATH):  # the library's fused attention has rougher gradients in the decoder
            logits[name] = network(*inputs(network))
        if method != "zero_shot":
            logits[name].square().mean().backward()
        gradients[name] = [p.grad.clone() for p in adapters.trainable(model).values()]
    assert logits["ours"].std() > 0.01
    torch.testing.assert_close(logits["ours"], logits["reference"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients["ours"], gradients["reference"], rtol=1e-3, atol=1e-5)


def test_the_reference_runs_all_blocks_on_padded_prompts_and_ours_does_not(weights):
    model = models.build(weights)
    ran = []
    towers = {"vision": model.net.clip.vision_model, "text": model.net.clip.text_model}
    for tower, module in towers.items():
        for block in module.encoder.layers:
            block.register_forward_pre_hook(
                lambda _, args, tower=tower: ran.append((tower, args[0].shape[1])))
    model(*inputs(model))
    longest = model.tokenize(PROMPTS).shape[1]
    assert ran == 3 * [("vision", 17)] + 4 * [("text", longest)] and longest < 77
    ran.clear()
    reference = Reference(model)
    reference(*inputs(reference))
    assert ran == 4 * [("vision", 17)] + 4 * [("text", 77)]


@pytest.mark.parametrize(("recipe", "cached"), [("clipseg-decoder", True), ("clipseg-vlsm_shallow-vlc", True),
                                                ("clipseg-vlsm_dense-vlc", False)])
def test_training_steps_train_and_encode_only_what_can_change(at_root, data_dir, recipe, cached):
    made = Bench(case(recipe=recipe), data_dir)
    made.check_equal()
    assert made.cached is cached
    model, encoded = made.models["ours"], []
    model.net.clip.vision_model.pre_layrnorm.register_forward_hook(lambda *_: encoded.append(1))
    for implementation, passes in (("ours", 0 if cached else 1), ("reference", 1)):
        before = {name: p.detach().clone() for name, p in adapters.trainable(model).items()}
        encoded.clear()
        made.step(implementation, 0)
        assert len(encoded) == passes
        assert all(not torch.equal(p, before[name]) for name, p in adapters.trainable(model).items())


def test_inference_encodes_every_image_and_changes_nothing(at_root, data_dir):
    made = Bench(case(recipe="clipseg-decoder", phase="inference"), data_dir)
    model, encoded = made.models["ours"], []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.net.clip.vision_model.pre_layrnorm.register_forward_hook(
        lambda _, args, output: encoded.append(len(output)))
    for number in range(3):
        made.step("ours", number)
    assert encoded == [3, 3, 3] and not made.cached
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_reference_that_computes_something_else_is_refused(at_root, data_dir):
    made = Bench(case(recipe="clipseg-zero_shot", phase="inference"), data_dir)
    reference = made.models["reference"]
    reference.vision = replace(reference.vision, taps=(1, 2, 3))
    with pytest.raises(AssertionError):
        made.check_equal()


def test_ours_and_the_reference_take_turns_and_the_first_round_does_not_count(at_root, data_dir, monkeypatch):
    run = []
    monkeypatch.setattr(Bench, "step", lambda self, *which: run.append(which))
    monkeypatch.setattr(steps, "stopwatch", lambda call, device: call() or float(len(run)))
    found = steps.time_steps(case(recipe="clipseg-zero_shot", phase="inference", rounds=2), data_dir)
    assert run == [(name, number) for number in range(3) for name in ("ours", "reference")]
    assert found == {"seconds": {"ours": [3, 5], "reference": [4, 6]}, "cached": False, "flops": None}


def test_twelve_prompts_are_given_at_once_and_one_by_one(at_root, data_dir, monkeypatch):
    asked = []
    monkeypatch.setattr(
        steps, "predict_probabilities",
        lambda model, images, prompts: asked.append((type(model).__name__, len(images), *prompts)))
    found = steps.time_prompts(case(recipe="clipseg-zero_shot", phase="inference", rounds=1), data_dir)
    assert set(found) == {"at once", "one by one", "reference"} and all(len(s) == 1 for s in found.values())
    prompts = asked[1][2:]
    assert len(set(prompts)) == 12 and asked[1][:2] == ("CLIPSeg", 12)
    assert asked[2:] == [(kind, 1, prompt) for kind in ("CLIPSeg", "Reference") for prompt in prompts]


def test_a_prediction_is_started_on_a_run_of_its_own(at_root, data_dir, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(startup, "_python", lambda *arguments, folder: started.append(arguments))
    seconds = startup.predict_one("clipseg-decoder", 2, data_dir, tmp_path / "work")
    assert {name: len(values) for name, values in seconds.items()} == {"torch": 2, "predict": 2}
    assert [arguments[:2] for arguments in started] == 3 * [("-c", "import torch"), ("-m", "featherseg")]
    monkeypatch.chdir(tmp_path / "work")
    main(started[1][2:])
    assert Image.open("mask.png").size == (32, 32)


def test_what_the_engine_adds_is_counted_apart_from_torch(monkeypatch):
    monkeypatch.setattr(startup, "IMPORTS", "import sys\nprint(*map(len, sys.argv[1:]), sep='\\n')")
    assert startup.engine_import(2) == {"torch": [5.0, 5.0], "engine": [17.0, 17.0]}


def test_a_processes_memory_is_its_own():
    assert peak_memory_mib()["process"] > 300
    assert in_process(peak_memory_mib, cache_dir=Path("unused"))["process"] < 200


def test_a_process_has_its_own_cache_and_a_killed_one_says_so(tmp_path):
    assert in_process(os.getenv, "FEATHERSEG_CACHE", cache_dir=tmp_path) == str(tmp_path)
    with pytest.raises(NotRun, match="killed"):
        in_process(os.abort, cache_dir=tmp_path)


def test_a_row_has_every_column_and_holds_the_median_against_its_goal():
    row = bench.make_row(case(), "train", "speed-up", "x", [1.0, 3.0, 1.2], at_least=1.2)
    assert tuple(row) == bench.COLUMNS
    assert (row["median"], row["min"], row["max"], row["runs"]) == ("1.2", "1", "3", 3)
    assert (row["target"], row["ok"]) == (">= 1.2", "yes")
    assert bench.make_row(case(), "train", "speed-up", "x", [1.19], at_least=1.2)["ok"] == "no"
    assert bench.make_row(case(), "epoch", "growth", "x", [1.3], at_most=1.2)["ok"] == "no"


@pytest.mark.parametrize(("gpu", "peak"), [("NVIDIA H200", 989e12), ("NVIDIA H100 80GB HBM3", 989e12),
                                           ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12)])
def test_the_share_of_the_hardwares_peak(gpu, peak):
    row = bench.share_of_peak(case(device="cuda"), gpu, flops=int(peak), seconds=[4.0, 2.0, 2.0])
    assert (row["median"], row["min"], row["precision"]) == ("0.5", "0.25", "bf16")


def test_the_share_of_an_unknown_gpus_peak_is_not_invented():
    row = bench.share_of_peak(case(device="cuda"), "NVIDIA Q1", flops=10**12, seconds=[1.0])
    assert row["median"] == "" and "NVIDIA Q1 is not known" in row["note"]


@pytest.mark.parametrize("method", bench.ETRIS_METHODS)
def test_a_step_of_etris_trains_what_the_method_trains(small_etris, data_dir, method):
    made = Bench(case(size="full", recipe=f"etris_vit-{method}", model="etris_vit"), data_dir, ("ours",))
    model = made.models["ours"]
    assert made.cached is (method == "decoder") and list(made.models) == ["ours"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made.step("ours", 0)
    made.step("ours", 1)  # LoRA's A has no gradient until B has moved
    trained = adapters.trainable(model)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in trained.items())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name not in trained)


def test_etris_alone_counts_every_round_but_the_first(small_etris, data_dir, monkeypatch):
    monkeypatch.setattr(steps, "stopwatch", lambda call, device: call() or 3.0)
    found = steps.time_alone(case(size="full", recipe="etris_vit-decoder", model="etris_vit", rounds=2), data_dir)
    assert found["seconds"] == [3.0, 3.0] and found["cached"] is True and found["flops"] is None
    assert found["peak"] >= found["before"] > 100


def test_every_way_to_tune_etris_is_held_against_full(pretended, tmp_path, monkeypatch):
    def slow_when_full(function, case, *arguments, **options):
        found = pretend(function)
        if function.__name__ == "time_alone" and case.recipe.endswith("-full"):
            found |= {"seconds": [8.0], "peak": 4000}
        return found

    monkeypatch.setattr(bench, "in_process", slow_when_full)
    plan = replace(bench.WHOLE, sizes={})
    rows = [row for row in bench.measure(plan, tmp_path) if row["method"].startswith("etris") and row["runs"]]
    beside = {(row["method"], row["quantity"]): float(row["median"]) for row in rows
              if row["condition"] == "beside full"}
    assert beside == {(f"{model}-{method}", quantity): value for model in bench.ETRIS_MODELS
                      for method in ("decoder", "bridger", "lora")
                      for quantity, value in (("speed-up", 4), ("share of memory", 0.25))}
    assert {row["image_size"] for row in rows} == {416} and {row["device"] for row in rows} == {"cpu"}


def test_all_methods_are_measured_and_only_what_trains_is_trained():
    cases = bench.WHOLE.cases()
    assert len(cases) == len(set(cases)) == 2 * 2 * (5 + 6)
    assert [len(cases) for cases in bench.WHOLE.etris_cases()] == [4] * 2 * 2
    assert {c.recipe.split("-")[1] for c in cases} == set(METHODS)
    assert not [c for c in cases if "zero_shot" in c.recipe and c.phase == "train"]


def pretend(function, *arguments, **_):
    """What a process would return, without one: the reference takes nine times as long."""
    seconds = {"ours": [1.0, 2.0], "reference": [9.0, 18.0]}
    return {
        "time_steps": {"seconds": seconds, "cached": True, "flops": None},
        "peak_memory": {"peak": 1000, "before": 400},
        "time_alone": {"seconds": [2.0], "cached": False, "flops": None, "peak": 1000, "before": 400},
        "time_prompts": {"at once": [1.0], "one by one": [7.0], "reference": [9.0]},
        "prepare": {"seconds": 0.01, "peak": 100}, "epoch": {"seconds": 0.02, "peak": 700},
        "engine_import": {"torch": [2.0], "engine": [1.0]}, "predict_one": {"torch": [2.0], "predict": [5.0]},
    }[function.__name__]


@pytest.fixture
def pretended(at_root, monkeypatch):
    monkeypatch.setattr(bench, "in_process", pretend)
    monkeypatch.setattr(bench, "_dataset", lambda case, work_dir: work_dir)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_table_holds_every_goal_once_and_says_what_was_not_measured(pretended, tmp_path):
    rows = list(bench.measure(bench.WHOLE, tmp_path))
    assert all(tuple(row) == bench.COLUMNS for row in rows)
    goals = {(row["part"], row["method"], row["quantity"], row["implementation"]): (row["target"], row["ok"])
             for row in rows if row["target"]}
    assert len(goals) == sum(bool(row["target"]) for row in rows) == 2 + 3 + 1 + 6
    assert goals["start-up", "", "time", "ours / torch"] == ("<= 0.68", "yes")
    assert goals["start-up", "clipseg-decoder", "time", "ours / torch"] == ("<= 1.6", "no")
    for recipe, target in (("decoder", ">= 8"), ("vlsm_shallow-vlc", ">= 8"), ("vlsm_dense-vlc", ">= 1.1")):
        assert goals["train", f"clipseg-{recipe}", "speed-up", "ours / reference"] == (target, "yes")
    assert goals["prompts", "clipseg-zero_shot", "speed-up", "ours / reference"] == (">= 8", "yes")
    assert goals["prepare", "", "growth of peak memory", "ours"] == ("<= 1.1", "yes")
    without_gpu = [row for row in rows if row["device"] == "cuda"]
    assert len(without_gpu) == 2 * (11 + 1) + 2 * 4
    assert {row["note"] for row in without_gpu} == {"not measured: no CUDA GPU here"}
    assert all(row["median"] == "" for row in without_gpu)


def test_a_killed_case_is_a_row_and_the_rest_goes_on(pretended, tmp_path, monkeypatch):
    def dies(function, case, *arguments, **options):
        if function.__name__ == "time_steps" and case.recipe == "clipseg-full":
            raise NotRun("the process was killed")
        return pretend(function)

    monkeypatch.setattr(bench, "in_process", dies)
    rows = [row for row in bench.measure(bench.WHOLE, tmp_path) if row["device"] == "cpu"]
    killed = [row for row in rows if row["method"] == "clipseg-full"]
    assert len(killed) == 4 and {row["note"] for row in killed} == {"not measured: the process was killed"}
    assert {row["method"] for row in rows} == {"", *bench.METHODS, *(
        f"{model}-{method}" for model in bench.ETRIS_MODELS for method in bench.ETRIS_METHODS)}


def test_the_command_writes_the_table_and_quick_writes_nothing(pretended, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "OUTPUT", tmp_path / "reports" / "benchmarks.csv")
    bench.run_benchmarks(quick=True)
    assert not bench.OUTPUT.exists() and "not measured: no CUDA GPU here" in capsys.readouterr().out
    monkeypatch.setattr(bench, "PROMPTS_GOAL", 1000.0)
    bench.run_benchmarks()
    with open(bench.OUTPUT, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == bench.COLUMNS and len(rows) == len(list(bench.measure(bench.WHOLE, tmp_path)))
    assert all(row[column] for row in rows for column in ("hardware", "threads", "python"))
    assert {row["torch"] for row in rows} == {provenance()["versions"]["torch"]}
    assert "NOT REACHED" in capsys.readouterr().out


def test_start_up_alone_replaces_its_rows_and_no_others(pretended, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "OUTPUT", tmp_path / "reports" / "benchmarks.csv")
    bench.run_benchmarks()
    before = bench.read_rows(bench.OUTPUT)
    monkeypatch.setattr(bench, "ENGINE_GOAL", 1e-9)
    bench.run_benchmarks(start_up_alone=True)
    after = bench.read_rows(bench.OUTPUT)
    others = [[row for row in rows if row["part"] != bench.START_UP] for rows in (before, after)]
    assert others[0] == others[1] and len(before) == len(after)
    engine = [row for row in after if row["condition"].startswith("import of the engine") and row["target"]]
    assert [row["ok"] for row in engine] == ["no"]
