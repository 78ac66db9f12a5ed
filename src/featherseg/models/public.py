"""Public weights: fetched once from the model hub, or taken from the inbox or the mirror.

The revision that a first download meets is recorded in data/checksums.json with the sha256 of each file, and
later downloads ask for that revision and are checked against it.

BiomedCLIPSeg-D, which nobody publishes as one file, is put together from the two that it is made of.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from featherseg.data.checksums import Checksums
from featherseg.data.download import CHECKSUMS
from featherseg.errors import NotRun
from featherseg.files import atomic_path, not_run_reason, write_json, write_status
from featherseg.models.weights import OWN_FILE, read_state
from featherseg.models.word_pieces import FILE as VOCABULARY
from featherseg.registry import unknown

FOLDER = Path("data/weights")


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
    # what segmentation-models-pytorch fetches for its encoder: torchvision's weights
    "resnet50-imagenet": PublicWeights("smp-hub/resnet50.imagenet", ("model.safetensors",), "BSD-3-Clause"),
    "cris": PublicWeights(None, ("best_model.pth",), "MIT", elsewhere="the checkpoint that the authors of CRIS share "
                          "as a file (issue 3 of github.com/DerrickWang005/CRIS.pytorch)"),
}


# towers, then what the decoder is taken from
ASSEMBLED = {"biomedclipseg-d": ("biomedclip", "clipseg-rd64-refined")}
PUBLIC = (*WEIGHTS, *ASSEMBLED)


def fetch_weights(name: str, mirror: str | None = None) -> None:
    """Write data/weights/<name>: the files and `status.json`, or only that with the reason.

    Files are looked for in `<mirror>/<name>/`, in `data/inbox/<name>/`, then on the hub.

    Raises:
        UserError: an unknown name, or a file that differs from what was recorded at the first download.
    """
    if name not in PUBLIC:
        raise unknown("weights", name, list(PUBLIC))
    if name in ASSEMBLED:
        _assemble(name, mirror)
        return
    weights, inbox = WEIGHTS[name], Path("data/inbox") / name
    known, reason = Checksums(CHECKSUMS), None
    with atomic_path(FOLDER / name) as folder:
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
    print(reason or f"weights of {name} are in data/weights/{name}")


def _assemble(name: str, mirror: str | None) -> None:
    """Write one file of BiomedCLIP's towers and CLIPSeg's decoder; both are fetched first where they are not there."""
    towers, decoder = (FOLDER / part for part in ASSEMBLED[name])
    for part in (towers, decoder):
        if not part.is_dir():
            fetch_weights(part.name, mirror)
    reason = "; ".join(filter(None, map(not_run_reason, (towers, decoder)))) or None
    with atomic_path(FOLDER / name) as folder:
        folder.mkdir()
        if reason is None:
            _join(towers, decoder, folder)
        write_status(folder, reason)
    print(reason or f"weights of {name} are in data/weights/{name}")


def _join(towers: Path, decoder: Path, folder: Path) -> None:
    from safetensors.torch import save_file

    from featherseg.models.biomedclipseg_config import FULL

    state = {f"clip.{key}": tensor.contiguous() for key, tensor in read_state(towers).items()}
    state |= {key: tensor.contiguous() for key, tensor in read_state(decoder).items() if key.startswith("decoder.")}
    save_file(state, folder / OWN_FILE)
    write_json(folder / "config.json", FULL.model_dump(mode="json"))
    shutil.copyfile(towers / VOCABULARY, folder / VOCABULARY)


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
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        raise NotRun(f"{file} of {weights.repository} could not be fetched from the model hub; put "
                     f"{' and '.join(weights.files)} into {inbox}/.") from None
    if known.get(revision) is None:
        known.note(revision, path.parent.name)  # the hub's cache names a snapshot's folder by its commit
    shutil.copyfile(path, target)
