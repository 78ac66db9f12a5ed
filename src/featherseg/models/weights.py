"""Base weights: a local folder or file, or random ones; read safely and checked by key."""

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from featherseg.config import ModelConfig, Strict, parse
from featherseg.core.errors import UserError
from featherseg.core.files import open_file, read_object, read_text, sha256_file
from featherseg.core.terminal import first_names, printable, shortened
from featherseg.data.raw.extract import open_zip

if TYPE_CHECKING:
    from torch import Tensor

RANDOM = "random"
RANDOM_SMALL = "random-small"
SMALL_SIZE = 64  # side in pixels of the input of a small model, unless a run says another
OWN_FILE = "model.safetensors"
FILES = (OWN_FILE, "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin",
         "best_model.pth")
_POINTER = b"version https://git-lfs"
ArchitectureT = TypeVar("ArchitectureT", bound=Strict)


def architecture_beside(config: ModelConfig, kind: type[ArchitectureT], full: ArchitectureT) -> ArchitectureT:
    """What `config.json` beside the package's own weights says; `full` for all other weights."""
    if is_random(config.weights) or weights_file(config.weights).name != OWN_FILE:
        return full
    file = config_file(config.weights)
    return parse(kind, read_object(file), str(file))


def is_random(weights: str) -> bool:
    """Whether `weights` names none: `random` is the full-size architecture, `random-small` the embedded one."""
    return weights in (RANDOM, RANDOM_SMALL)


def weights_file(folder: Path | str) -> Path:
    """The weights file of a folder, or the file itself where one is named.

    Raises:
        UserError: the folder holds none of the known files.
    """
    if Path(folder).is_file():
        return Path(folder)
    for name in FILES:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    if parts := sorted(Path(folder).glob("*.index.json")):
        raise UserError(f"the weights in {folder} are in several files ({parts[0].name}); save them as one: "
                        "save_pretrained(folder, max_shard_size='50GB').")
    raise UserError(f"no weights in {folder}: expected config.json and one of {', '.join(FILES)}.")


def weights_sha256(folder: Path | str) -> str:
    """SHA-256 of a folder's weights file, which must be the one in its `SHA256` file where there is one.

    Raises:
        UserError: there are no weights, or they are not those that the folder names.
    """
    file, pinned = weights_file(folder), Path(folder) / "SHA256"
    with open_file(file) as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise UserError(f"{file} only says where git-lfs keeps the weights; fetch them with `git lfs pull`, or "
                            "download the file itself.")
    sha256 = sha256_file(file)
    wanted = read_text(pinned, errors="replace").strip()[:64] if pinned.exists() else sha256
    if wanted != sha256:
        raise UserError(f"{file} has sha256 {sha256[:12]}..., but {pinned} names {wanted[:12] or 'nothing'}...; "
                        "restore the file or retrain the weights.")
    return sha256


def config_file(weights: Path | str) -> Path:
    """The `config.json` beside the weights.

    Raises:
        UserError: there are no weights, or no such file is beside them.
    """
    file = weights_file(weights).parent / "config.json"
    if not file.is_file():
        raise UserError(f"{file} does not exist; it says which model the weights belong to. Put it beside them.")
    return file


def read_state(folder: Path | str) -> dict[str, "Tensor"]:
    """Tensors by name, in float32, of a folder's weights file, without executing anything in it.

    Of a training's checkpoint it is the entry `state_dict`, and `module.`, which distributed training puts before
    every name, is left out.

    Raises:
        UserError: the file cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = weights_file(folder)
    if _is_torchscript(file):
        raise UserError(f"{file} is a TorchScript archive, which only executing it would read; use the same weights as "
                        "open_clip_model.safetensors (featherseg weights clip-rn50, clip-rn101 or clip-vit-b16).")
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, json.JSONDecodeError, ValueError) as error:
        raise UserError(f"{file} is not a readable weights file ({printable(shortened(str(error), 200))}); fetch it "
                        "again.") from None
    except Exception as error:  # what torch's unpickler meets in a file that is no pickle can be anything
        raise UserError(f"{file} is no file of tensors ({type(error).__name__}) and is not loaded; "
                        "use a safetensors file.") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(tensor, torch.Tensor)
                                              for name, tensor in state.items()):
        raise UserError(f"{file} is no map from names to tensors, nor a checkpoint with one in it; "
                        "use a safetensors file.")
    # a file of a few bytes may name tensors of any size, which a copy in float32 would fill
    if repeated := [name for name, tensor in state.items() if tensor.layout is torch.strided and not tensor.is_meta
                    and tensor.untyped_storage().nbytes() < tensor.nbytes]:
        raise UserError(f"{file}: tensors repeat fewer values than they have places ({first_names(repeated)}); save "
                        "them as dense ones.")
    return {name.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in state.items() if not name.endswith("position_ids")}


def _is_torchscript(file: Path) -> bool:
    with open_file(file) as opened:
        if not zipfile.is_zipfile(opened):
            return False
    with open_zip(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def check_keys(found: dict[str, "Tensor"], expected: dict[str, "Tensor"], source: str) -> None:
    """Compare tensors by name and shape, and refuse those that hold no plain finite numbers.

    Raises:
        UserError: names the missing, the unexpected, the misshapen and the unusable ones, the first three of each.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
                 for name in found if name in expected and found[name].shape != expected[name].shape]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    phrases = [f"{len(names)} {kind} ({first_names(names)})" for kind, names in faults.items() if names]
    if phrases:
        raise UserError(f"{source} does not fit the model: {'; '.join(phrases)}.")
    check_values(found, source)


def check_values(tensors: dict[str, "Tensor"], source: str) -> None:
    """Refuse tensors that are not dense or not finite.

    Raises:
        UserError: names the first three of each kind.
    """
    import torch

    plain = {name: tensor for name, tensor in tensors.items()
             if tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized}
    if odd := [name for name in tensors if name not in plain]:
        raise UserError(f"{source}: tensors are sparse, quantised or without values ({first_names(odd)}); save them "
                        "as dense ones.")
    if wrong := [name for name, tensor in plain.items() if not tensor.isfinite().all()]:
        raise UserError(f"{source}: tensors hold NaN or infinity ({first_names(wrong)}), so that every mask would be "
                        "empty; take other weights, or train at a lower train.lr.")
