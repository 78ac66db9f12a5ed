"""Public weights: fetched once from the model hub, or taken from the inbox or the mirror.

The revision that a first download meets is recorded in data/checksums.json with the sha256 of each file, and
later downloads ask for that revision and are checked against it.

What nobody publishes as one file, BiomedCLIPSeg-D and DETRIS before its training, is put together from the two that
it is made of.
"""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featherseg.core import paths
from featherseg.core.errors import NotRun
from featherseg.core.files import (
    atomic_path,
    not_run_reason,
    refuse_own_source,
    write_json,
    write_status,
)
from featherseg.core.locks import exclusive, lock_of
from featherseg.core.registry import unknown
from featherseg.data.raw.checksums import Checksums
from featherseg.models.towers.word_pieces import FILE as VOCABULARY
from featherseg.models.weights import OWN_FILE, read_state

if TYPE_CHECKING:
    from torch import Tensor

    from featherseg.config import Strict


@dataclass(frozen=True)
class PublicWeights:
    """A repository of the model hub and the files that are needed of it; without one, `elsewhere` says where they are.
    """

    repository: str | None
    files: tuple[str, ...]
    licence: str
    elsewhere: str = ""


WEIGHTS = {
    "clipseg-rd64-refined": PublicWeights(
        "CIDAS/clipseg-rd64-refined", ("config.json", "model.safetensors"), "Apache-2.0"),
    # what open_clip fetches for its tag `openai`
    "clip-rn50": PublicWeights("timm/resnet50_clip.openai", ("open_clip_model.safetensors",), "MIT"),
    "clip-rn101": PublicWeights("timm/resnet101_clip.openai", ("open_clip_model.safetensors",), "MIT"),
    "clip-vit-b16": PublicWeights("timm/vit_base_patch16_clip_224.openai", ("open_clip_model.safetensors",),
                                  "Apache-2.0"),
    "biomedclip": PublicWeights("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
                                ("open_clip_pytorch_model.bin", VOCABULARY), "MIT"),
    # DINOv2 with four registers under timm's names
    "dinov2-b14-reg": PublicWeights("timm/vit_base_patch14_reg4_dinov2.lvd142m", (OWN_FILE,), "Apache-2.0"),
    "dinov2-l14-reg": PublicWeights("timm/vit_large_patch14_reg4_dinov2.lvd142m", (OWN_FILE,), "Apache-2.0"),
    # what segmentation-models-pytorch fetches for its encoder: torchvision's weights
    "resnet50-imagenet": PublicWeights("smp-hub/resnet50.imagenet", ("model.safetensors",), "BSD-3-Clause"),
    "cris": PublicWeights(None, ("best_model.pth",), "MIT", elsewhere="the checkpoint that the authors of CRIS share "
                          "as a file (issue 3 of github.com/DerrickWang005/CRIS.pytorch)"),
}


# both towers, then what the decoder is taken from; or the vision tower, then what the text tower is taken from
ASSEMBLED = {"biomedclipseg-d": ("biomedclip", "clipseg-rd64-refined"),
             "detris-b": ("dinov2-b14-reg", "clip-vit-b16"), "detris-l": ("dinov2-l14-reg", "clip-vit-b16")}
PUBLIC = (*WEIGHTS, *ASSEMBLED)


def fetch_weights(name: str, mirror: str | None = None) -> None:
    """Write data/weights/<name>: the files and `status.json`, or only that with the reason.

    Files are looked for in `<mirror>/<name>/`, in `data/inbox/<name>/`, then on the hub.

    Raises:
        UserError: an unknown name, or a file that differs from what was recorded at the first download.
    """
    if name not in PUBLIC:
        raise unknown("weights", name, list(PUBLIC))
    with exclusive(lock_of("weights", name), f"Another process is fetching the weights {name}."):
        if name in ASSEMBLED:
            _assemble(name, mirror)
        else:
            _fetch_all(name, mirror)


def _fetch_all(name: str, mirror: str | None) -> None:
    """Write the files of one repository."""
    weights, inbox = WEIGHTS[name], paths.INBOX / name
    refuse_own_source(paths.WEIGHTS / name, inbox, *([Path(mirror) / name] if mirror else []))
    known, reason = Checksums(paths.CHECKSUMS), None
    with atomic_path(paths.WEIGHTS / name) as folder:
        folder.mkdir()
        try:
            for file in weights.files:
                _fetch(weights, file, [Path(mirror) / name] if mirror else [], inbox, folder / file, known)
                known.check(f"weights/{name}/{file}", folder / file)
        except NotRun as error:
            reason = str(error)
            shutil.rmtree(folder)
            folder.mkdir()
        write_status(folder, reason)
    if reason is None:
        known.record()
    print(reason or f"weights of {name} are in {paths.WEIGHTS / name}")


def _assemble(name: str, mirror: str | None) -> None:
    """Write one file out of two; both are fetched first where they are not there."""
    first, second = (paths.WEIGHTS / part for part in ASSEMBLED[name])
    for part in (first, second):
        if not part.is_dir():
            fetch_weights(part.name, mirror)
    reason = "; ".join(filter(None, map(not_run_reason, (first, second)))) or None
    with atomic_path(paths.WEIGHTS / name) as folder:
        folder.mkdir()
        if reason is None:
            _join(name, first, second, folder)
        write_status(folder, reason)
    print(reason or f"weights of {name} are in {paths.WEIGHTS / name}")


def _join(name: str, first: Path, second: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    join = _biomedclipseg_d if name == "biomedclipseg-d" else _detris
    state, architecture = join(name, read_state(first), read_state(second))
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / OWN_FILE)
    write_json(folder / "config.json", architecture.model_dump(mode="json"))
    if (first / VOCABULARY).is_file():
        shutil.copyfile(first / VOCABULARY, folder / VOCABULARY)


def _biomedclipseg_d(name: str, towers: dict[str, "Tensor"],
                     clipseg: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], "Strict"]:
    from featherseg.models.biomedclipseg.config import FULL

    decoder = {key: tensor for key, tensor in clipseg.items() if key.startswith("decoder.")}
    return {f"clip.{key}": tensor for key, tensor in towers.items()} | decoder, FULL


def _detris(name: str, vision: dict[str, "Tensor"],
            clip: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], "Strict"]:
    from featherseg.models.detris.config import FULL
    from featherseg.models.towers.clip import NOT_TENSORS_OF_THE_MODEL

    text = {f"backbone.{key}": tensor for key, tensor in clip.items()
            if not key.startswith("visual.") and key not in NOT_TENSORS_OF_THE_MODEL}
    return {f"backbone.visual.{key}": tensor for key, tensor in vision.items()} | text, FULL[name.replace("-", "_")]


def _fetch(weights: PublicWeights, file: str, mirrors: list[Path], inbox: Path, target: Path,
           known: Checksums) -> None:
    for local in (*mirrors, inbox):
        if (local / file).is_file():
            shutil.copyfile(local / file, target)
            return
    if weights.repository is None:
        raise NotRun(f"{file} is on no model hub; put {weights.elsewhere} into {inbox}/ under this name.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    revision = f"weights/{inbox.name}/revision"
    try:
        path = Path(hf_hub_download(weights.repository, file, revision=known.get(revision)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise  # the disk's, of the hub's own cache
        raise NotRun(f"{file} of {weights.repository} could not be fetched from the model hub; put "
                     f"{' and '.join(weights.files)} into {inbox}/.") from None
    if known.get(revision) is None:
        known.note(revision, path.parent.name)  # the hub's cache names a snapshot's folder by its commit
    shutil.copyfile(path, target)
