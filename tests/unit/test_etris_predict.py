"""A trained ETRIS run gives masks from the command line, and scores, as any other run does."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import tiny_data

from featherseg import adapters, checkpoint, cli, models
from featherseg.config import ModelConfig, Run, read_run, write_run
from featherseg.core.errors import UserError
from featherseg.core.files import sha256_file, write_status
from featherseg.data.prepared import PreparedWriter
from featherseg.engine import train
from featherseg.evaluate import evaluate
from featherseg.models.etris.config import small_config
from featherseg.models.etris.model import build_etris
from featherseg.tasks.segmentation.config import SegmentationEvaluate, SegmentationTrain
from featherseg.tasks.segmentation.predict import load_model, predict_probabilities

PROMPTS = ["the left one", "", "a word " * 250]
ADAPTERS = [{"name": "bridger", "dim": 8, "heads": 2}, {"name": "lora", "rank": 2}, {"name": "prompt"}]


def make_run(tmp_path, adapter: dict, **model) -> Run:
    """A planned and trained run on a tiny ETRIS, its trainable weights moved at random; we are in its project."""
    torch.manual_seed(0)
    source = build_etris("etris_vit", small_config(32, 32, stages=(1, 2, 3), patch=16, image_size=64))
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(source.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in source.net.state_dict().items()},
              folder / "model.safetensors")
    config = ModelConfig(name="etris_vit", weights=str(folder), sha256=sha256_file(folder / "model.safetensors"),
                         word_length=9, **model)
    run = Run(study="tests", recipe="etris_vit-x", dataset="pairs", model=config, train=SegmentationTrain(),
              adapter=adapters.resolve(adapter).knobs(), evaluate=SegmentationEvaluate(prompts="sentences"))
    write_run(tmp_path / "runs/tests/plan", run)
    built, generator = adapters.apply(models.build(config, 0), adapter, 0), torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in adapters.trainable(built).values():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    train = tmp_path / "runs/tests/train" / run.name
    train.mkdir(parents=True)
    checkpoint.save(train / "checkpoint.safetensors", built, run)
    write_status(train)
    return run


def pictures(tmp_path, count: int = 2) -> list[np.ndarray]:
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        found.append(rng.integers(0, 256, (4, 7, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10 + number, axis=1))
        Image.fromarray(found[-1]).save(tmp_path / f"picture{number}.png")
    return found


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter["name"])
@pytest.mark.parametrize("upsampling", [None, "published_bicubic"])
def test_masks_from_the_command_line_are_the_models(tmp_path, monkeypatch, adapter, upsampling):
    monkeypatch.chdir(tmp_path)
    run, images = make_run(tmp_path, adapter, upsampling=upsampling), pictures(tmp_path)
    model = load_model(run, tmp_path / "runs/tests/train" / run.name)
    assert model.joint is (adapter["name"] == "bridger") and model.upsampling == (upsampling or "bilinear")
    wanted = []
    for prompt in PROMPTS:
        with torch.no_grad():
            pixels = model.normalise(torch.from_numpy(model.resize.image(images[1]))[None])
            logits = model.to_input(model(pixels, model.tokenize([prompt])))
            wanted.append(model.resize.inverse(logits, 40, 77)[0, 0].sigmoid().numpy())
    threshold = str(np.median(wanted[0]))
    cli.main(["predict", "--run", run.name, "--image", "picture1.png", "--prompt", *PROMPTS, "--out", "masks",
              "--overlay", "seen", "--threshold", threshold])
    cli.main(["predict", "--run", f"tests/{run.name}", "--image", "picture0.png", "picture1.png", "--prompt",
              PROMPTS[0], "--out", "both", "--threshold", threshold])
    names = ["picture1_the-left-one", "picture1_empty", "picture1_" + "a-word-" * 8 + "a-wo"]
    shown = []
    for name, probabilities in zip(names, wanted, strict=True):
        shown.append(np.asarray(Image.open(f"masks/{name}.png")) > 0)
        assert shown[-1].shape == (40, 77) and (shown[-1] == (probabilities > float(threshold))).mean() > 0.99
        assert Image.open(f"seen/{name}.png").size == (77, 40)
    assert 0 < shown[0].mean() < 1 and any((shown[0] != other).any() for other in shown[1:])
    both = np.asarray(Image.open("both/picture1.png")) > 0  # a batch of others moves the last digits
    assert (both == shown[0]).mean() > 0.99
    assert Image.open("both/picture0.png").size == (70, 40)


def test_pairs_have_the_same_maps_whatever_else_is_in_the_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, images = make_run(tmp_path, ADAPTERS[0]), pictures(tmp_path)
    model = load_model(run, tmp_path / "runs/tests/train" / run.name)
    alone = [predict_probabilities(model, [image], [prompt])[0] for image in images for prompt in PROMPTS]
    together = predict_probabilities(model, [image for image in images for _ in PROMPTS], PROMPTS * 2, batch_size=4)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("adapter", ADAPTERS[:2], ids=lambda adapter: adapter["name"])
def test_scores_are_those_of_the_predicted_masks(tmp_path, monkeypatch, adapter):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    run, images = make_run(tmp_path, adapter), pictures(tmp_path)
    with PreparedWriter(tmp_path / "data", dataset="pairs") as writer:
        for number, image in enumerate(images):
            writer.add_image(str(number), image)
            mask = np.zeros(image.shape[:2], bool)
            mask[:, 20:50] = True
            writer.add_sample(image_id=str(number), target="x", mask=mask, split="test",
                              prompts={"sentences": PROMPTS})
    evaluate(run, tmp_path / "data", tmp_path / "runs/tests/train" / run.name, tmp_path / "scores")
    scored = pd.read_parquet(tmp_path / "scores/results.parquet")
    scored = scored[(scored.metric == "mIoU") & (scored.condition == "own")].set_index(["scope", "threshold"])
    assert scored.n["all", 0.5] == 6 and scored.n["first", 0.35] == 2
    model = load_model(run, tmp_path / "runs/tests/train" / run.name)
    ious = []
    for probabilities in predict_probabilities(model, [image for image in images for _ in PROMPTS], PROMPTS * 2):
        truth, found = np.zeros(probabilities.shape, bool), probabilities > 0.5
        truth[:, 20:50] = True
        ious.append((truth & found).sum() / (truth | found).sum())
    assert scored.value["all", 0.5] == pytest.approx(np.mean(ious), abs=2e-3)


@pytest.mark.parametrize(("splits", "words"), [
    (("testC",), "no samples in split 'testC'"), (("test", "tset"), "no samples in split 'tset'")])
def test_a_split_that_does_not_exist_is_one_sentence(tmp_path, monkeypatch, splits, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    run = make_run(tmp_path, ADAPTERS[0])
    with PreparedWriter(tmp_path / "data", dataset="pairs") as writer:
        writer.add_image("0", np.zeros((40, 40, 3), np.uint8))
        writer.add_sample(image_id="0", target="x", mask=np.ones((40, 40), bool), split="test")
    run = run.model_copy(update={"evaluate": SegmentationEvaluate(splits=splits)})
    with pytest.raises(UserError, match=words):
        evaluate(run, tmp_path / "data", tmp_path / "runs/tests/train" / run.name, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_a_head_without_a_part_trains_and_predicts_as_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    tiny_data(tmp_path / "data", train=4, val=2)
    run = make_run(tmp_path, ADAPTERS[0], head_parts=["hierarchical_alignment"], upsampling="published_bicubic")
    assert read_run(tmp_path / f"runs/tests/plan/{run.name}.yaml") == run
    run = run.model_copy(update={"train": SegmentationTrain(epochs=1, batch_size=4, schedule="constant"),
                                 "evaluate": SegmentationEvaluate(splits=("val",))})
    train(run, tmp_path / "data", tmp_path / "trained", tmp_path / "info.json")
    model = load_model(run, tmp_path / "trained")
    assert model.head_parts == ("hierarchical_alignment",) and model.upsampling == "published_bicubic"
    assert predict_probabilities(model, pictures(tmp_path, 1), ["x"])[0].shape == (40, 70)
    whole = run.model_copy(update={"model": run.model.model_copy(update={"head_parts": None})})
    with pytest.raises(UserError, match="missing .*net.decoder.layers"):
        load_model(whole, tmp_path / "trained")
