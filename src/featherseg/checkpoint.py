"""Checkpoints: safetensors with every tensor that differs from the base weights or is absent from them.

The resolved run, with the SHA-256 of the base weights, is in the file's metadata, and loading checks both.
"""

from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from featherseg.adapters.base import trainable
from featherseg.config import Run
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path
from featherseg.models.base import within
from featherseg.models.weights import check_keys, check_values, is_random, read_state
from featherseg.tasks.base import TASKS


def changed_tensors(model: nn.Module, run: Run) -> dict[str, Tensor]:
    """Tensors of the model, by name, that are trainable or that the base weights do not hold as they are."""
    learned = trainable(model)
    base_tensors = getattr(model, "base_tensors", None)
    base: dict[str, Tensor] = {}
    if base_tensors is not None and not is_random(run.model.weights):
        base = base_tensors(read_state(run.model.weights))
    changed = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        # peft moves a wrapped layer's own weights into `base_layer`
        original = base.get(name.replace(".base_layer.", "."))
        if name in learned or original is None or not torch.equal(original, tensor):
            changed[name] = tensor
    return changed


def save(path: Path | str, model: nn.Module, run: Run) -> None:
    """Write what was trained, with the run, beside and renamed; equal trainings give equal bytes.

    Raises:
        UserError: a tensor holds NaN or infinity.
    """
    # one entry only, since safetensors writes several in random order
    metadata = {"run": run.model_dump_json(exclude={"evaluate"})}
    tensors = changed_tensors(model, run)
    check_values(tensors, f"the trained model of {run.name}")
    with atomic_path(path) as partial:
        partial.write_bytes(to_bytes(tensors, metadata))


def trained_run(path: Path | str) -> Run:
    """The run that a checkpoint says it is of, with evaluation's defaults.

    Raises:
        UserError: the file is unreadable or no checkpoint of this package.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable checkpoint ({error}); train the run again.") from None
    try:
        return Run.model_validate_json(metadata.get("run", ""))
    except ValidationError:
        raise UserError(f"{path} is not a checkpoint of featherseg: it names no run.") from None


def load(path: Path | str, model: nn.Module, run: Run) -> None:
    """Put a checkpoint into a model that was built for `run`.

    Raises:
        UserError: the file is absent or corrupt, was made on other base weights, for another model or
            method, or its tensors do not fit or are not finite; the message names what differs.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; train the run first: dvc repro train@{run.name}.")
    other, tensors = trained_run(path), load_file(path)
    trained_on, wanted_base = (model.sha256 or "random" for model in (other.model, run.model))
    if trained_on != wanted_base:
        raise UserError(f"{path} was trained on base weights {trained_on[:12]}..., but the run uses "
                        f"{wanted_base[:12]}...; train the run again or restore those weights.")
    for key, found, wanted in (("model", other.model.name, run.model.name),
                               ("adapter", other.adapter, run.adapter)):
        if found != wanted:
            raise UserError(f"{path} is a checkpoint of {key} {found}, not of {wanted}.")
    own = model.state_dict()
    learned = trainable(model)
    expected = {name: tensor for name, tensor in own.items()
                if name in tensors or name in learned or within(name, untrained(model))}
    check_keys(tensors, expected, str(path))
    model.load_state_dict(tensors, strict=False)


def load_model(run: Run, train_dir: Path | str) -> nn.Module:
    """A run's model as it was trained, in eval mode, on the accelerator where there is one.

    Args:
        run: the resolved run.
        train_dir: its folder with `checkpoint.safetensors`; not read where nothing is trained.

    Raises:
        UserError: weights or checkpoint are absent, unreadable or those of another run, or nothing was trained
            although the base weights lack a part of the model.
    """
    model = TASKS[run.task]().build(run)
    if run.train is None and (missing := untrained(model)):
        more = " and more" if len(missing) > 1 else ""
        raise UserError(f"run '{run.name}' trains nothing, but {run.model.weights} does not hold {missing[0]}"
                        f"{more}, which would stay random; train the run, or take weights of the whole model.")
    if run.train is not None:
        load(Path(train_dir) / "checkpoint.safetensors", model, run)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def untrained(model: nn.Module) -> tuple[str, ...]:
    """Dotted names of what a model's base weights do not hold; none of a model that has no base weights."""
    return getattr(model, "untrained", ())
