"""CNNs behind the seam of text-prompted models: counts, the library's own forward, what is stored, what is refused."""

import json
import warnings

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featherseg import adapters, checkpoint, cli, models
from featherseg.adapters import METHODS
from featherseg.config import ModelConfig, Run
from featherseg.core.errors import UserError
from featherseg.core.files import sha256_file
from featherseg.describe import describe
from featherseg.engine import train
from featherseg.models import small_model
from featherseg.models.cnn import config as cnn_config
from featherseg.models.cnn.config import NAMES, Architecture, small_config
from featherseg.models.cnn.model import CNN, NETS
from featherseg.models.towers.batchnorm import BatchNorm1d, BatchNorm2d
from featherseg.papers.counts import describe_with
from featherseg.resume import forget
from featherseg.tasks.segmentation.config import SegmentationTrain
from featherseg.tasks.segmentation.predict import load_model, predict_probabilities

# segmentation-models-pytorch 0.6, one class, ResNet-50 or EfficientNet-Lite0: encoder, decoder with its head
COUNTS = {"unet": (23_508_032, 9_013_073), "unet_lite": (2_958_848, 828_305), "unetplusplus": (23_508_032, 25_477_713),
          "deeplabv3plus": (23_508_032, 3_169_553)}
NETS_OF_RESNET = [name for name, architecture in cnn_config.FULL.items() if architecture.encoder == "resnet50"]
FULL = {"name": "full"}


def tiny_cnn(name: str) -> CNN:
    torch.manual_seed(3)
    return small_model(name, 64).eval()


def run_of(name: str, weights: str = "random-small", batch_size: int = 4) -> Run:
    sha256 = None if weights == "random-small" else sha256_file(f"{weights}/model.safetensors")
    return Run(study="tests", recipe="tiny", dataset="squares", seed=1, adapter=FULL,
               train=SegmentationTrain(epochs=2, batch_size=batch_size, schedule="constant", lr=1e-3),
               model=ModelConfig(name=name, weights=weights, sha256=sha256, image_size=64),
               evaluate={"splits": ("val",)})


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_described_at_full_size(name, capsys):
    described = describe(f"{name}-full")
    encoder, decoder = COUNTS[name]
    groups = {group: (numbers["total"], numbers["trainable"]) for group, numbers in described["groups"].items()
              if numbers["total"]}
    assert groups == {"vision": (encoder, encoder), "decoder": (decoder, decoder)}
    assert described["image_size"] == 256 and described["prompt_tokens"] == 0
    if name in NETS_OF_RESNET:
        with torch.device("meta"):
            whole = NETS[name]("resnet50", encoder_weights=None)
        assert encoder + decoder == sum(parameter.numel() for parameter in whole.parameters())
    cli.main(["describe", f"{name}-full"])
    printed = capsys.readouterr().out
    assert f"{encoder + decoder:,}" in printed and "multiply-adds per image: " in printed and "tokens" not in printed


def test_multiply_adds_are_the_convolutions():
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    with torch.device("meta"), torch.no_grad():
        net = smp.Unet("resnet50", encoder_weights=None).eval()
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(count)
        net(torch.empty(1, 3, 256, 256))
    assert describe("unet-full")["multiply_adds"] == total


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_librarys_whatever_the_prompt(name):
    model, pixels = tiny_cnn(name), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        own, other = (model(pixels, model.tokenize(prompts)) for prompts in (["a", "b", "c"], ["", "d e", "f"]))
        assert torch.equal(own, model.net(pixels).squeeze(1)) and torch.equal(own, other)
        shared = model.decode(model.encode_image(pixels[:1]), model.encode_text(model.tokenize(["a", "b"])))
    assert shared.shape == (2, 64, 64) and not model.reads_text
    torch.testing.assert_close(shared, own[:1].expand(2, -1, -1))


def test_every_prompt_of_an_image_gets_one_map():
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    maps = predict_probabilities(tiny_cnn("unet"), [image] * 3, ["left lung", "", "heart"])
    assert [found.shape for found in maps] == [(40, 70)] * 3
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])


@pytest.mark.parametrize("name", NAMES)
def test_training_is_stored_with_its_statistics_and_nothing_is_cached(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    run, data = run_of(name, batch_size=5), tiny.tiny_data(tmp_path / "data", train=6, val=2)  # 5 samples, then 1
    train(run, data, tmp_path / "train", tmp_path / "info.json")
    assert not (tmp_path / "cache" / "features").exists()
    trained, start = load_model(run, tmp_path / "train"), models.build(run.model, run.seed)
    saved = load_file(tmp_path / "train" / "checkpoint.safetensors")
    assert saved.keys() == start.state_dict().keys()
    for key, tensor in start.state_dict().items():
        assert torch.equal(saved[key], trained.state_dict()[key])
        assert not torch.equal(saved[key], tensor), key


@pytest.mark.parametrize("name", NAMES)
def test_the_same_run_gives_the_same_bytes(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATHERSEG_CACHE", str(tmp_path / "cache"))
    data = tiny.tiny_data(tmp_path / "data", train=4, val=2)
    for out in ("one", "two"):
        train(run_of(name), data, tmp_path / out, tmp_path / f"{out}.json")
        forget(tmp_path / out)
    files = [tmp_path / out / "checkpoint.safetensors" for out in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_batch_of_one_place_takes_the_running_statistics_and_leaves_them():
    for layer, one, many in ((BatchNorm1d(3), torch.randn(1, 3), torch.randn(4, 3)),
                             (BatchNorm2d(3), torch.randn(1, 3, 1, 1), torch.randn(1, 3, 2, 2))):
        plain = (nn.BatchNorm1d if one.ndim == 2 else nn.BatchNorm2d)(3)
        torch.testing.assert_close(layer(many), plain(many))
        before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
        torch.testing.assert_close(layer(one), plain.eval()(one))
        assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
        with pytest.raises(ValueError, match="more than 1 value"):
            plain.train()(one)


def own_folder(folder, model: CNN) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.architecture()))
    save_file({key: tensor.contiguous() for key, tensor in model.net.state_dict().items()},
              folder / "model.safetensors")
    return str(folder)


def test_a_folder_of_whole_weights(tmp_path):
    source = tiny_cnn("unet")
    run = run_of("unet", own_folder(tmp_path / "weights", source))
    model = models.build(run.model)
    assert all(torch.equal(tensor, source.net.state_dict()[key]) for key, tensor in model.net.state_dict().items())
    adapters.apply(model, FULL).train()
    model(torch.randn(2, 3, 64, 64), model.tokenize(["a", "b"]))  # moves the statistics
    checkpoint.save(tmp_path / "checkpoint.safetensors", model, run)
    other = adapters.apply(models.build(run.model), FULL)
    checkpoint.load(tmp_path / "checkpoint.safetensors", other, run)
    statistics = [key for key in model.state_dict() if "running" in key]
    for key in statistics:
        assert torch.equal(model.state_dict()[key], other.state_dict()[key])
        assert not torch.equal(model.state_dict()[key], source.state_dict()[key])
    assert len(statistics) > 20


def test_imagenets_encoder_leaves_the_decoder_to_the_seed(tmp_path, monkeypatch):
    monkeypatch.setitem(cnn_config.FULL, "unet", small_config("unet"))
    source = tiny_cnn("unet")
    encoder = {key.removeprefix("model."): tensor.contiguous()  # as timm publishes it
               for key, tensor in source.net.encoder.state_dict().items() if "num_batches_tracked" not in key}
    classifier = {f"{layer}.weight": torch.zeros(10, 128) for layer in ("fc", "classifier", "conv_head", "bn2")}
    save_file(encoder | classifier, tmp_path / "model.safetensors")
    first, again, other = (models.build(ModelConfig(name="unet", weights=str(tmp_path)), seed) for seed in (1, 1, 2))
    loaded = {key.removeprefix("model."): tensor for key, tensor in first.net.encoder.state_dict().items()}
    assert all(torch.equal(tensor, loaded[key]) for key, tensor in encoder.items())
    decoders = [model.net.decoder.state_dict() for model in (first, again, other)]
    assert all(torch.equal(tensor, decoders[1][key]) for key, tensor in decoders[0].items())
    assert any(not torch.equal(tensor, decoders[2][key]) for key, tensor in decoders[0].items())


def test_weights_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(cnn_config.FULL, "unet", small_config("unet"))
    state = dict(tiny_cnn("unet").net.state_dict())
    state["surplus"] = torch.zeros(1)
    del state["segmentation_head.0.bias"]
    state["decoder.blocks.0.conv1.1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"1 missing \(segmentation_head\.0\.bias\); 1 unexpected \(surplus\); "
                                        r"1 misshapen \(decoder\.blocks\.0\.conv1\.1\.bias \(3,\) instead of \(64,\)"):
        models.build(ModelConfig(name="unet", weights=str(tmp_path / "model.pth")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "full"])
def test_every_other_method_is_refused_and_full_is_named(name, method):
    with pytest.raises(UserError, match=f"'{method}' does not support model '{name}'.*model '{name}' takes full.$"):
        adapters.apply(tiny_cnn(name), {"name": method})


def test_an_input_below_the_encoders_five_stages_is_refused():
    assert models.build(ModelConfig(name="unet", weights="random-small", image_size=64)).image_size == 64
    with pytest.raises(UserError, match="'unet': image_size 63 is below 64"):
        models.build(ModelConfig(name="unet", weights="random-small", image_size=63))


@pytest.mark.parametrize("name", NAMES)
def test_an_input_of_any_side_is_filled_up_with_zeros_and_cut_again(name):
    torch.manual_seed(3)
    model = small_model(name, 84).eval()
    pixels = torch.randn(2, 3, 84, 84)
    filled = torch.zeros(2, 3, 96, 96)
    filled[:, :, :84, :84] = pixels
    with torch.no_grad():
        logits = model(pixels, model.tokenize(["a", "b"]))
        assert torch.equal(logits, model.net(filled).squeeze(1)[:, :84, :84])
    assert logits.shape == (2, 84, 84)


def test_an_encoder_that_is_not_known_is_one_sentence(tmp_path):
    folder = own_folder(tmp_path / "weights", tiny_cnn("unet"))
    (tmp_path / "weights" / "config.json").write_text(json.dumps({"encoder": "resnet5000"}))
    with pytest.raises(UserError, match="resnet5000"):
        models.build(ModelConfig(name="unet", weights=folder))
    with pytest.raises(ValueError, match="encoder_layers"):
        Architecture(encoder_layers=(1, 1, 1, 1))


def test_the_small_model_of_a_params_file_is_described(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "study: {datasets: [lesions], recipes: [unet-full], seeds: [0]}\n"
        "model: {weights: {unet: random-small}, image_size: 64}\n")
    described = describe_with("unet-full", str(tmp_path / "params.yaml"))
    assert described["image_size"] == 64 and described["total"] < 1_000_000


def test_building_one_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_model("unetplusplus", 64)
