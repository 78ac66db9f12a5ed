"""The stage that turns any source of data into a prepared dataset with a card."""

from functools import partial
from pathlib import Path

from featherseg.config import DataParams, FolderParams
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason, refuse_own_source, write_not_run
from featherseg.core.locks import exclusive, lock_of
from featherseg.core.paths import PROCESSED, RAW
from featherseg.core.registry import unknown
from featherseg.data.card import About, summary, write_card
from featherseg.data.folder.own_folder import prepare_folder
from featherseg.data.folder.privacy import keep_out_of_git
from featherseg.data.raw.label_maps import prepare_label_maps
from featherseg.data.raw.published import prepare_published
from featherseg.data.raw.refer import prepare_referring
from featherseg.data.raw.spec import DatasetSpec, LabelMapSpec, ReferringSpec
from featherseg.data.raw.specs import SPECS


def prepare_dataset(name: str, params: DataParams) -> None:
    """Write `data/processed/<name>`: a synthetic set, an own folder, or a published dataset of `data/raw`.

    Raises:
        UserError: an unknown name, or data that cannot be worked with.
    """
    out_dir = PROCESSED / name
    with exclusive(lock_of("processed", name), f"Another process is preparing {name}."):
        _prepare(name, params, out_dir)
    print(summary(out_dir, name))


def _prepare(name: str, params: DataParams, out_dir: Path) -> None:
    if name in params.synthetic:
        settings = params.synthetic[name]
        prepare_synthetic_set(name, settings.images, settings.size, settings.seed, out_dir)
    elif name in params.folders:
        prepare_own_folder(name, params.folders[name], out_dir)
    elif name in params.as_published:
        official = params.as_published[name]
        prepare_official(official, RAW / official, out_dir, keep_published_faults=True, as_published=name)
    elif name in SPECS:
        prepare_official(name, RAW / name, out_dir, params.keep_published_faults)
    else:
        raise unknown("dataset", name, [*params.synthetic, *params.folders, *params.as_published, *SPECS])


def prepare_own_folder(name: str, own: FolderParams, out_dir: Path) -> None:
    """Prepare a folder of the user's as `data.folders` declares it, keep it out of git unless it is public, and print
    what is skipped.

    Raises:
        UserError: as `prepare_folder`.
    """
    if not own.public:
        keep_out_of_git(Path(own.path))
    for note in prepare_folder(name, own.path, out_dir, own.class_name, own.threshold, own.field, own.descriptions):
        print(f"note: {name}: {note}")


def prepare_synthetic_set(name: str, images: int, size: int, seed: int, out_dir: Path) -> None:
    """Draw a synthetic set and write its card."""
    from featherseg.data.synthetic import DESCRIPTIONS, prepare_synthetic

    about = About(title=f"{name} (synthetic stand-in)", licence="MIT, as the package",
                  source=f"drawn by featherseg: {images} images of {size} px, seed {seed}",
                  notes=(DESCRIPTIONS[name], "No figure from it says anything about real images."))
    prepare_synthetic(name, images, size, seed, out_dir, finish=partial(write_card, about=about))


def prepare_official(name: str, raw_dir: Path, out_dir: Path, keep_published_faults: bool = False,
                     as_published: str | None = None) -> None:
    """Prepare a downloaded dataset; where it, or what it shows, is missing, hand the reason on.

    Args:
        as_published: name of the dataset where it is prepared by the released code's rule for masks; None for the
            dataset itself.

    Raises:
        UserError: it is no dataset of its own, or its data cannot be worked with.
    """
    spec = SPECS[name]
    if as_published and isinstance(spec, DatasetSpec):
        spec = spec.as_published(as_published)
    images = getattr(spec, "images", None)
    sources = [raw_dir, *([raw_dir.parent / images] if images else [])]
    refuse_own_source(out_dir, *sources)
    reason = next(filter(None, map(not_run_reason, sources)), None)
    if reason:
        write_not_run(out_dir, reason)
    elif isinstance(spec, ReferringSpec):
        prepare_referring(spec, raw_dir, sources[-1], out_dir)
    elif isinstance(spec, DatasetSpec):
        prepare_published(spec, raw_dir, out_dir, keep_published_faults, sources[-1])
    elif isinstance(spec, LabelMapSpec):
        prepare_label_maps(spec, raw_dir, out_dir)
    else:
        users = [user.name for user in SPECS.values() if getattr(user, "images", None) == name]
        raise UserError(f"{name} holds images only, for {', '.join(users)}; prepare one of these.")
