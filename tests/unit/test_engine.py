"""Training: what it changes, when it stops, what it keeps, and that processes and caches change nothing."""

import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny import tiny_data, tiny_environment, tiny_run, tiny_weights

from featherseg import adapters, checkpoint, engine
from featherseg.config import ModelConfig
from featherseg.core.errors import UserError
from featherseg.core.files import read_json, write_status
from featherseg.core.seeds import rng_of
from featherseg.data.prepared import PreparedDataset
from featherseg.engine import (
    make_optimizer,
    make_schedule,
    precision_here,
    should_stop,
    train,
)
from featherseg.models import build
from featherseg.resume import forget
from featherseg.tasks.objective import shuffled
from featherseg.tasks.segmentation import Segmentation, predict
from featherseg.tasks.segmentation.config import LossConfig, SegmentationEvaluate, SegmentationTrain
from featherseg.tasks.segmentation.features import FeatureBank
from featherseg.tasks.segmentation.objective import (
    SegmentationObjective,
    choice_of,
    mask_losses,
    trained_on,
    validation_scores,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, str, Path]:
    """A weights folder, its SHA-256, and a prepared dataset."""
    root = tmp_path_factory.mktemp("tiny")
    return root / "weights", tiny_weights(root / "weights"), tiny_data(root / "data")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path


def trained(files, place: Path, name: str = "out", **settings) -> tuple[list[dict], Path]:
    """History and output folder of a training, which the next one does not take over."""
    run = tiny_run(files[0], files[1], **settings)
    train(run, files[2], place / name, place / f"{name}.json")
    forget(place / name)
    return history(place / name), place / name


def history(folder: Path) -> list[dict[str, float]]:
    with open(folder / "history.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("step", [0.0, -60.0], ids=["stands still", "goes backwards"])
def test_a_clock_that_does_not_go_on_changes_no_result(files, place, monkeypatch, step):
    expected, _ = trained(files, place, "undisturbed")
    ticks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 + step * next(ticks))
    if step == 0:
        monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert trained(files, place)[0] == expected
    info = read_json(place / "out.json")
    assert info["seconds"] >= 0
    assert info["images_per_second"] is None if step == 0 else info["images_per_second"] > 0


ADAPTERS = [
    {"name": "decoder"}, {"name": "full"}, {"name": "vlsm_dense", "dim": 4, "positions": "VL"},
    {"name": "vlsm_shallow", "dim": 4}, {"name": "lora", "rank": 2}]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter["name"])
def test_frozen_tensors_stay_and_trainable_ones_change(files, place, monkeypatch, adapter):
    models = []
    plain = Segmentation.build
    monkeypatch.setattr(Segmentation, "build", lambda *args: models.append(plain(*args)) or models[-1])
    rows, folder = trained(files, place, adapter=adapter, epochs=2, weight_decay=0)
    run = tiny_run(files[0], files[1], adapter)
    before = adapters.apply(build(run.model, run.seed), run.adapter, run.seed).state_dict()
    learned = adapters.trainable(models[0])
    assert learned
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in learned), name
    assert rows[1]["loss"] < rows[0]["loss"]
    restored = adapters.apply(build(run.model, run.seed), run.adapter, run.seed)
    checkpoint.load(folder / "checkpoint.safetensors", restored, run)
    for name, tensor in restored.state_dict().items():
        assert torch.equal(tensor, models[0].state_dict()[name]), name


def test_outputs(files, place):
    rows, folder = trained(files, place, epochs=2, precision="auto")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["checkpoint.safetensors", "history.csv", "status.json"]
    assert (folder / "history.csv").read_text().splitlines()[0] == "epoch,loss,val_dsc,lr"
    assert [row["epoch"] for row in rows] == [1, 2] and all(row["lr"] == 0.01 for row in rows)
    assert read_json(folder / "status.json") == {"status": "ok", "reason": None}
    info = read_json(place / "out.json")
    assert info["epochs"] == 2 and info["processes"] == 1 and info["images_per_second"] > 0
    assert {"hardware", "versions", "commit", "seconds", "peak_memory_mib"} <= info.keys()
    assert not list((place / "cache/resume").glob("*/state.pt"))


def test_the_same_run_gives_the_same_bytes_and_another_seed_others(files, place):
    _, first = trained(files, place, "first")
    _, second = trained(files, place, "second")
    assert (first / "checkpoint.safetensors").read_bytes() == (second / "checkpoint.safetensors").read_bytes()
    assert (first / "history.csv").read_bytes() == (second / "history.csv").read_bytes()
    run = tiny_run(files[0], files[1]).model_copy(update={"seed": 2})
    train(run, files[2], place / "third", place / "third.json")
    assert (first / "history.csv").read_bytes() != (place / "third/history.csv").read_bytes()


def test_a_share_trains_on_whole_images_that_are_among_those_of_a_larger_share(files, place, monkeypatch):
    fetch, seen = SegmentationObjective.fetch, set()
    monkeypatch.setattr(SegmentationObjective, "fetch", lambda self, batch: seen.update(
        asked.sample_id for asked in batch) or fetch(self, batch))
    smaller: set[str] = set()
    for share, images in ((0.2, 1), (0.4, 2), (0.8, 4), (1.0, 5)):
        seen.clear()
        trained(files, place, str(share), epochs=1, share=share)
        assert len(seen) == 2 * images == 2 * len({sample.split("/")[1] for sample in seen})
        assert smaller < seen
        assert read_json(place / f"{share}.json")["training_images"] == images
        smaller = set(seen)


def test_another_seed_draws_another_share(files):
    dataset = PreparedDataset.read(files[2])
    drawn = {tuple(trained_on(dataset, 0.4, seed)) for seed in range(8)}
    assert len(drawn) > 1 and trained_on(dataset, 0.4, 0) == trained_on(dataset, 0.4, 0)


def test_a_share_leaves_validation_as_it_is_and_encodes_no_other_image(files, place, monkeypatch):
    objectives, encoded = [], set()
    plain, encode = Segmentation.objective, FeatureBank._encode_images
    monkeypatch.setattr(Segmentation, "objective", lambda *args: objectives.append(plain(*args)) or objectives[-1])
    monkeypatch.setattr(FeatureBank, "_encode_images", lambda self, rows: encoded.update(rows) or encode(self, rows))
    for share in (0.4, 1.0):
        encoded.clear()
        trained(files, place, str(share), adapter={"name": "decoder"}, epochs=1, share=share)
        objective = objectives[-1]
        asked = [*objective.train_set, *(example.index for example in objective.held_out)]
        assert encoded == {objective.pixels.image_rows[index] for index in asked}
    assert objectives[0].held_out == objectives[1].held_out and len(objectives[0].held_out) == 5


def test_a_share_without_an_image_is_refused(files, place):
    with pytest.raises(UserError, match=r"train.share is 0.05, which leaves none of the 5 training images of .*; "
                                        r"raise it to 0.2 or more"):
        trained(files, place, share=0.05)


@pytest.mark.parametrize("adapter", [
    {"name": "decoder"}, {"name": "vlsm_shallow", "dim": 4},
    {"name": "vlsm_dense", "dim": 4, "positions": "V"}], ids=lambda adapter: adapter["name"])
def test_cached_features_change_no_score(files, place, adapter):
    cached, _ = trained(files, place, "cached", adapter=adapter, epochs=4)
    anew, _ = trained(files, place, "anew", adapter=adapter, epochs=4, cache_features=False)
    for ours, theirs in zip(cached, anew, strict=True):
        assert ours["val_dsc"] == pytest.approx(theirs["val_dsc"], abs=1e-4)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


@pytest.mark.parametrize(("settings", "wanted"), [
    ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1]),
    ({"schedule": "multistep", "milestones": (2, 4), "factor": 0.1}, [1, 1, 0.1, 0.1, 0.01, 0.01]),
    ({"schedule": "cosine"}, [1, 0.9330, 0.75, 0.5, 0.25, 0.0670]),
    ({"schedule": "plateau", "patience": 1, "factor": 0.5}, [1, 1, 1, 1, 0.5, 0.5]),
])
def test_schedules(settings, wanted):
    config = SegmentationTrain(epochs=6, lr=1.0, **settings)
    optimizer = make_optimizer(config, [torch.nn.Parameter(torch.zeros(1))])
    schedule, rates = make_schedule(config, optimizer), []
    for score in [0.1, 0.5, 0.5, 0.4, 0.6, 0.7]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if config.schedule == "plateau":
            schedule.step(score)
        elif schedule:
            schedule.step()
    assert rates == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("settings", "rates"), [
    ({"schedule": "plateau", "patience": 0, "factor": 0.5}, [0.01, 0.01, 0.005]),
    ({"schedule": "cosine"}, [0.01, 0.0075, 0.0025]),
    ({"schedule": "multistep", "milestones": (1,), "factor": 0.5}, [0.01, 0.005, 0.005])])
def test_the_engine_follows_the_schedule(files, place, monkeypatch, settings, rates):
    scores = iter([0.3, 0.2, 0.1])
    monkeypatch.setattr(engine.Trainer, "_validate", lambda self, epoch: {"val_dsc": next(scores)})
    rows, _ = trained(files, place, lr=0.01, **settings)
    assert [row["lr"] for row in rows] == pytest.approx(rates)


@pytest.mark.parametrize(("plateau_on", "rates"), [("dsc", [1, 1, 1, 1]), ("published_loss", [1, 1, 0.5, 0.25])])
def test_the_plateau_waits_for_the_dsc_or_for_the_loss(files, place, monkeypatch, plateau_on, rates):
    """A DSC and a loss that rise together, as when a model grows too certain."""
    scores = iter([{"val_dsc": 0.1 * k, "val_loss": 1.0 * k} for k in range(1, 5)])
    monkeypatch.setattr(engine.Trainer, "_validate", lambda self, epoch: next(scores))
    rows, _ = trained(files, place, epochs=4, lr=1.0, clip_norm=1e-6, schedule="plateau", patience=0, factor=0.5,
                      plateau_on=plateau_on)
    assert [row["lr"] for row in rows] == pytest.approx(rates)
    measured = validation_scores(SegmentationTrain(schedule="plateau", plateau_on=plateau_on))
    assert measured == (("val_dsc", "val_loss") if plateau_on == "published_loss" else ("val_dsc",))


def test_the_validation_loss_is_the_training_loss_of_the_validation_samples(files, place, monkeypatch):
    trainers = []
    begin = engine.Trainer.__init__
    monkeypatch.setattr(engine.Trainer, "__init__", lambda self, *args: trainers.append(self) or begin(self, *args))
    rows, _ = trained(files, place, epochs=1, schedule="plateau", plateau_on="published_loss",
                      loss={"form": "published_second_sigmoid"})
    (trainer,) = trainers
    trainer.load_state(trainer.state())
    trainer.objective.eval()
    with torch.no_grad():
        losses = [trainer.objective(trainer.objective.fetch([asked])) for asked in trainer.objective.held_out]
    assert rows[0]["val_loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
    assert rows[0]["val_loss"] != pytest.approx(rows[0]["loss"], rel=1e-3)


@pytest.mark.parametrize(("selection", "kept"), [("dsc", 2), ("published_iou", 4)])
def test_of_equal_epochs_the_first_is_kept_or_as_published_the_last(selection, kept):
    config, best = SegmentationTrain(selection=selection), None
    scores = [0.2, 0.6, 0.4, 0.6, 0.3]
    for number, score in enumerate(scores, 1):
        best = number if engine.is_best(score, scores[: number - 1], choice_of(config).keeps) else best
    assert best == kept


@pytest.mark.parametrize("threshold", [0.35, 0.5])
def test_the_published_selection_is_the_mean_iou_at_original_size(files, place, threshold):
    run = tiny_run(files[0], files[1], epochs=2, selection="published_iou", val_threshold=threshold, val_prompts="p1")
    train(run, files[2], place / "out", place / "out.json")
    rows = history(place / "out")
    model = predict.load_model(run, place / "out").cpu()
    dataset = PreparedDataset.read(files[2])
    values = []
    for sample in dataset.split("val"):
        (map_,) = predict.predict_probabilities(model, [dataset.image(sample)], sample.prompts["p1"])
        found, truth = map_ > threshold, dataset.mask(sample)
        values.append(np.logical_and(found, truth).sum() / np.logical_or(found, truth).sum())
    assert max(row["val_iou"] for row in rows) == pytest.approx(np.mean(values), abs=1e-5)


def test_a_cut_at_another_probability_gives_another_dsc(files, place):
    low, half = (trained(files, place, str(cut), epochs=1, val_threshold=cut)[0][0] for cut in (0.1, 0.5))
    assert low["loss"] == half["loss"] and low["val_dsc"] != half["val_dsc"]


def test_a_short_last_batch_is_kept_or_dropped_as_published(files, place, monkeypatch):
    fetch, seen = SegmentationObjective.fetch, []
    monkeypatch.setattr(SegmentationObjective, "fetch", lambda self, batch: seen.append(batch) or fetch(self, batch))
    sizes = {}
    for last_batch in ("kept", "published_dropped"):
        seen.clear()
        trained(files, place, last_batch, epochs=1, last_batch=last_batch)
        sizes[last_batch] = [len(batch) for batch in seen]
    assert sizes == {"kept": [4, 4, 2], "published_dropped": [4, 4]}
    with pytest.raises(UserError, match="10 training samples are less than one batch of 11, .* set train.last_batch"):
        trained(files, place, "none", batch_size=11, last_batch="published_dropped")


@pytest.mark.parametrize(("where", "rate"), [("tower_rate", 1e-5), ("published_full_rate", 1e-4)])
def test_positional_embeddings_of_cris_train_at_the_towers_or_the_heads_rate(where, rate):
    model = adapters.apply(build(ModelConfig(name="cris", weights="random-small")), {"name": "full"})
    config = SegmentationTrain(lr=1e-4, tower_lr_factor=0.1, tower_positions=where)
    learned = adapters.trainable(model)
    optimizer = make_optimizer(config, list(learned.values()), engine.tower_parameters(model, config))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(rates) == len(learned)
    for name, parameter in learned.items():
        inside = name.startswith("net.backbone")
        wanted = rate if "positional_embedding" in name else 1e-5 if inside else 1e-4
        assert rates[id(parameter)] == pytest.approx(wanted), name
    assert sum("positional_embedding" in name for name in learned) == 2


@pytest.mark.parametrize(("shrink", "offset"), [("nearest_exact", 2), ("published_nearest", 0)])
def test_the_heads_grid_learns_a_cells_centre_or_as_published_its_first_pixel(shrink, offset):
    """4 input pixels a cell: pixel 4 i + 2 lies nearest to its centre, pixel 4 i at its corner."""
    targets = (torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    logits = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    config = LossConfig(lambda_dice=0, lambda_ce=1, grid="head", shrink=shrink)
    losses = mask_losses(None, logits, targets, config)
    chosen = targets[:, 0, offset::4, offset::4]
    wanted = (logits.clamp(min=0) - logits * chosen + (-logits.abs()).exp().log1p()).mean(dim=(1, 2))
    torch.testing.assert_close(losses, wanted)


@pytest.mark.parametrize(("start", "rates"), [(1, [1e-3, 1e-3, 5e-4]), (2, [1e-2, 1e-3, 5e-4])])
def test_the_towers_have_a_rate_of_their_own_from_the_first_or_the_second_epoch(files, place, monkeypatch, start,
                                                                               rates):
    plain, seen = engine.Trainer._train, []

    def watched(self, epoch, bar):
        seen.append({group["towers"]: group["lr"] for group in self.optimizer.param_groups})
        inside = {id(p) for name, p in self.model.named_parameters() if p.requires_grad and ".decoder." not in name}
        assert inside == {id(p) for group in self.optimizer.param_groups if group["towers"] for p in group["params"]}
        return plain(self, epoch, bar)

    monkeypatch.setattr(engine.Trainer, "_train", watched)
    rows, _ = trained(files, place, adapter={"name": "full"}, lr=0.01, tower_lr_factor=0.1, tower_lr_from=start,
                      schedule="multistep", milestones=(2,), factor=0.5)
    assert [rate[True] for rate in seen] == pytest.approx(rates)
    assert [row["lr"] for row in rows] == [rate[False] for rate in seen] == pytest.approx([0.01, 0.01, 0.005])


def test_without_another_rate_there_is_one_group(files, place):
    model = adapters.apply(build(tiny_run(*files[:2]).model), {"name": "full"})
    learned = list(adapters.trainable(model).values())
    (group,) = make_optimizer(SegmentationTrain(lr=0.01), learned, learned[:3]).param_groups
    assert group["lr"] == 0.01 and list(map(id, group["params"])) == list(map(id, learned))


@pytest.mark.parametrize(("kind", "decoupled"), [("adamw", True), ("adam", False)])
def test_optimisers(kind, decoupled):
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer(SegmentationTrain(optimizer=kind, lr=0.1, weight_decay=0.5), [weight])
    weight.grad = torch.tensor([1e-3])
    optimizer.step()
    assert weight.item() == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1 if decoupled else 1 - 0.1, abs=1e-3)


@pytest.mark.parametrize(("scores", "settings", "stops_after"), [
    ([0.5, 0.4, 0.4, 0.4], {"early_stop_patience": 2, "min_epochs": 0}, 3),
    ([0.5, 0.4, 0.4, 0.4], {"early_stop_patience": 2, "min_epochs": 4}, 4),
    ([0.50, 0.54, 0.59, 0.9], {"early_stop_patience": 2, "min_epochs": 0, "early_stop_min_delta": 0.1}, 3),
    ([0.1, 0.2, 0.3, 0.4], {"early_stop_patience": 1, "min_epochs": 0}, None),
    ([0.5, 0.4, 0.6, 0.5], {"early_stop_patience": 2, "min_epochs": 0}, None),
    ([0.5, 0.4, 0.4, 0.4], {"early_stop_patience": None}, None),
])
def test_early_stopping(scores, settings, stops_after):
    config = SegmentationTrain(**settings)
    stops = [n for n in range(len(scores) + 1) if should_stop(scores[:n], config)]
    assert (stops[0] if stops else None) == stops_after


def test_training_stops_early_and_keeps_the_best_epoch(files, place, monkeypatch):
    scores, weights = iter([0.2, 0.6, 0.4, 0.6, 0.3]), []

    def validate(self, epoch: int) -> dict[str, float]:
        weights.append(engine.changing_tensors(self.model))
        return {"val_dsc": next(scores)}

    monkeypatch.setattr(engine.Trainer, "_validate", validate)
    rows, folder = trained(files, place, epochs=9, early_stop_patience=3, min_epochs=1)
    assert [row["val_dsc"] for row in rows] == [0.2, 0.6, 0.4, 0.6, 0.3]
    kept = load_file(folder / "checkpoint.safetensors")
    assert kept and all(torch.equal(tensor, weights[1][name]) for name, tensor in kept.items())
    assert not all(torch.equal(tensor, weights[3][name]) for name, tensor in kept.items())


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(files, place, monkeypatch):
    forward, calls = SegmentationObjective.forward, []

    def poisoned(self, batch):
        losses = forward(self, batch)
        calls.append(batch)
        return losses.index_fill(0, torch.tensor([1]), float("nan")) if len(calls) == 5 else losses

    monkeypatch.setattr(SegmentationObjective, "forward", poisoned)
    with pytest.raises(UserError, match=r"tiny-squares-1: .*in epoch 2, batch 2, for squares/\S+; lower"):
        trained(files, place)
    assert not (place / "out").exists()


def as_on_an_accelerator(monkeypatch, ahead: list[int] | None = None) -> None:
    """Read values every third step, and fetch a batch ahead; `ahead` takes in how far fetching is before forward."""
    prepare, fetch, forward, waiting = engine.Trainer.__init__, SegmentationObjective.fetch, \
        SegmentationObjective.forward, []

    def prepared(self, *arguments):
        prepare(self, *arguments)
        self.read_every, self.batches_ahead = 3, 1

    def fetched(self, batch):
        waiting.append(batch)
        return fetch(self, batch)

    def forwarded(self, batch):
        if ahead is not None:
            ahead.append(len(waiting))
        waiting.pop()
        return forward(self, batch)

    monkeypatch.setattr(engine.Trainer, "__init__", prepared)
    monkeypatch.setattr(SegmentationObjective, "fetch", fetched)
    monkeypatch.setattr(SegmentationObjective, "forward", forwarded)


@pytest.mark.parametrize("adapter", [{"name": "decoder"}, {"name": "full"}], ids=lambda adapter: adapter["name"])
def test_reading_seldom_and_fetching_ahead_change_no_byte(files, place, monkeypatch, adapter):
    ahead: list[int] = []
    rows, folder = trained(files, place, adapter=adapter)
    as_on_an_accelerator(monkeypatch, ahead)
    assert trained(files, place, "ahead", adapter=adapter)[0] == rows
    assert ahead == [2, 2, 1] * 3  # ten samples are three batches, of which the last has none after it
    for name in ("checkpoint.safetensors", "history.csv"):
        assert (place / "ahead" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_loss_that_is_read_late_names_its_own_batch(files, place, monkeypatch, number):
    as_on_an_accelerator(monkeypatch)
    forward, calls = SegmentationObjective.forward, []

    def poisoned(self, fetched):
        calls.append(fetched)
        return forward(self, fetched) * (float("nan") if len(calls) == 3 + number else 1)

    monkeypatch.setattr(SegmentationObjective, "forward", poisoned)
    with pytest.raises(UserError, match=rf"the loss is not finite in epoch 2, batch {number}, for squares/\S+"):
        trained(files, place)
    assert not (place / "out").exists()


def test_a_compiled_step_reaches_the_losses_of_a_plain_one(files, place, monkeypatch):
    settings = {"adapter": {"name": "decoder"}, "epochs": 1, "batch_size": 5}
    plain, graphs = trained(files, place, **settings)[0], []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_module(self, backend=backend))
    compiled = trained(files, place, "compiled", compile=True, **settings)[0]
    assert graphs
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in plain], rel=1e-4)


@pytest.mark.slow  # the compiler of kernels starts; the test before covers what of the step is compiled
def test_the_default_compiler_reaches_the_losses_of_none(files, place):
    settings = {"adapter": {"name": "decoder"}, "epochs": 2}
    plain = trained(files, place, **settings)[0]
    compiled = trained(files, place, "compiled", compile=True, **settings)[0]
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in plain], rel=1e-3)


def test_compiling_is_off_and_no_part_of_a_plan_unless_asked_for():
    assert "compile" not in SegmentationTrain().knobs()
    assert SegmentationTrain(compile=True).knobs()["compile"] is True


@pytest.mark.parametrize(("device", "fused"), [("cpu", None), ("meta", True)])
def test_an_accelerator_steps_with_one_kernel(monkeypatch, device, fused):
    given = {}
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **settings: given.update(settings))
    make_optimizer(SegmentationTrain(), [torch.nn.Parameter(torch.ones(2, device=device))])
    assert given["fused"] is fused


@pytest.mark.parametrize("clip_norm", [0.5, None])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(files, place, monkeypatch, clip_norm):
    prepare, steps = engine.Trainer.__init__, []

    def poisoned(self, *arguments):
        prepare(self, *arguments)
        self.learned[0].register_hook(lambda gradient: gradient * (float("nan") if len(steps) == 4 else 1))
        self.optimizer.register_step_pre_hook(lambda *_: steps.append(self))

    monkeypatch.setattr(engine.Trainer, "__init__", poisoned)
    with pytest.raises(UserError, match=r"the gradient is not finite in epoch 2, batch 2, for squares/\S+, ") as error:
        trained(files, place, clip_norm=clip_norm)
    assert str(error.value).count("squares/") == 4
    assert len(steps) == 4 and all(tensor.isfinite().all() for tensor in steps[0].learned)
    assert not (place / "out").exists()


def test_weights_that_explode_in_the_last_step_are_not_kept(files, place):
    with pytest.raises(UserError, match="not finite in validation after epoch 1, for squares/"):
        trained(files, place, epochs=1, batch_size=16, lr=1e30, clip_norm=None, adapter={"name": "decoder"})
    assert not (place / "out").exists()


@pytest.mark.parametrize("form", ["logits", "published_dice_only", "published_second_sigmoid"])
def test_loss_forms_and_grids_train(files, place, form):
    losses = set()
    for grid in ("input", "head"):
        rows, _ = trained(files, place, f"{form}-{grid}", epochs=1, loss={"form": form, "grid": grid})
        losses.add(rows[0]["loss"])
    assert len(losses) == 2


def test_zero_shot_has_a_status_only(files, place):
    run = tiny_run(files[0], files[1], {"name": "zero_shot"}).model_copy(update={"train": None})
    train(run, files[2], place / "out", place / "out.json")
    assert [path.name for path in (place / "out").iterdir()] == ["status.json"]
    assert read_json(place / "out/status.json") == {"status": "ok", "reason": None}
    assert "hardware" in read_json(place / "out.json")


@pytest.mark.parametrize("where", ["run", "data"])
def test_not_run_is_a_result(files, place, where):
    run, data = tiny_run(files[0], files[1]), files[2]
    if where == "run":
        run = run.model_copy(update={"not_run": "no weights here"})
    else:
        data = place / "data"
        data.mkdir()
        write_status(data, "no data here")
    train(run, data, place / "out", place / "out.json")
    reason = {"run": "no weights here", "data": "no data here"}[where]
    assert read_json(place / "out/status.json") == {"status": "not_run", "reason": reason}
    assert [path.name for path in (place / "out").iterdir()] == ["status.json"]


def test_a_split_that_is_scored_after_training_is_asked_for_before(files, place, monkeypatch):
    monkeypatch.setattr(Segmentation, "build", lambda *_: pytest.fail("a model was built"))
    run = tiny_run(files[0], files[1]).model_copy(update={"evaluate": SegmentationEvaluate(splits=("fold3",))})
    with pytest.raises(UserError, match="no samples in split 'fold3', which evaluate.splits names"):
        train(run, files[2], place / "out", place / "out.json")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_samples_is_refused_before_a_model_is_built(files, place, monkeypatch, split):
    data = tiny_data(place / "data", **{split: 0})
    monkeypatch.setattr(Segmentation, "build", lambda *_: pytest.fail("a model was built"))
    with pytest.raises(UserError, match=f"no samples in split '{split}'"):
        train(tiny_run(files[0], files[1]), data, place / "out", place / "out.json")
    assert not (place / "out").exists()


def test_random_choices_depend_on_seed_epoch_and_sample_alone():
    indices = list(range(50))
    assert shuffled(indices, 1, 1) == shuffled(indices, 1, 1)
    assert shuffled(indices, 1, 1) != shuffled(indices, 1, 2) != shuffled(indices, 2, 2)
    assert sorted(shuffled(indices, 1, 1)) == indices == list(range(50))
    assert rng_of(1, 2, "a").random() == rng_of(1, 2, "a").random() != rng_of(12, "a").random()


def test_precision_is_what_the_hardware_has(capfd):
    if torch.cuda.is_available():
        pytest.skip("says what a machine without a GPU does")
    assert precision_here("auto") == "no"
    assert precision_here("fp16") == "no"
    assert "fp16 needs a GPU" in capfd.readouterr().err
    assert precision_here("bf16") == "bf16"


# both launchers start the same processes with the same variables, so that one of them covers the other
@pytest.mark.parametrize(("adapter", "launcher"), [
    pytest.param({"name": "full"}, ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"],
                 marks=pytest.mark.slow),
    ({"name": "vlsm_shallow", "dim": 4}, [
        "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]),
], ids=["torchrun", "accelerate"])
def test_two_processes_reach_the_losses_of_one(files, place, adapter, launcher):
    # 9 samples in batches of 4: the last batch has one sample, and one of the processes has none of it
    data = tiny_data(place / "data", train=9)
    run = tiny_run(files[0], files[1], adapter)
    train(run, data, place / "one", place / "one.json")
    forget(place / "one")
    (place / "run.json").write_text(run.model_dump_json())
    script = [tiny.__file__, str(place / "run.json"), str(data), str(place / "two")]
    done = subprocess.run([sys.executable, "-m", *launcher, *script], env=tiny_environment(),
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((place / "two.json").read_text())["processes"] == 2
    one, two = history(place / "one"), history(place / "two")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["val_dsc"] == pytest.approx(theirs["val_dsc"], abs=1e-4)
