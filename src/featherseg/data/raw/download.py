"""Raw data: a published dataset's archives and lists, from a mirror, the inbox or their address."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from featherseg.core.errors import NotRun, UserError
from featherseg.core.files import (
    atomic_path,
    cache_root,
    not_run_reason,
    read_bytes,
    refuse_own_source,
    write_not_run,
    write_status,
)
from featherseg.core.locks import exclusive, lock_of
from featherseg.core.paths import CHECKSUMS, INBOX, RAW
from featherseg.core.registry import unknown
from featherseg.data.raw.checksums import Checksums
from featherseg.data.raw.extract import NoRoom, extract, is_archive
from featherseg.data.raw.fetch import Unreachable, fetch, is_open_to_change
from featherseg.data.raw.spec import DatasetSpec, RawSpec, Resource
from featherseg.data.raw.specs import SPECS


def download_dataset(dataset: str, mirror: str | None = None) -> None:
    """Fill `data/raw/<dataset>`, or say there in `status.json` why it is missing.

    Raises:
        UserError: an unknown dataset, an absent mirror, a wrong checksum, a bad archive, a full disk.
    """
    if dataset not in SPECS:
        raise unknown("dataset", dataset, list(SPECS))
    download(SPECS[dataset], RAW / dataset, INBOX / dataset, Path(mirror) if mirror else None)
    reason = not_run_reason(RAW / dataset)
    print(f"{dataset}: not run: {reason}" if reason else f"{dataset}: downloaded")


def download(spec: RawSpec, raw_dir: Path, inbox_dir: Path, mirror: Path | None = None,
             checksums: Path = CHECKSUMS) -> None:
    """Fill `raw_dir` with a dataset's archives, unpacked where the spec says so, and, in `anns/`, its lists.

    Each file is looked for in the mirror, then in the inbox, then at its address. Downloads stay in the cache
    root, so that a repeated stage asks no server again. A file whose checksum nobody publishes gets it
    recorded in `checksums` once it has been unpacked, and is checked from then on.

    Missing data is a result: `raw_dir` then holds a `status.json` with the reason.

    Several processes that download one set at the same time do so one after the other.

    Raises:
        UserError: an absent mirror, a wrong checksum, a bad archive, a full disk; `raw_dir` stays as it was.
    """
    if mirror is not None and not mirror.is_dir():
        raise UserError(f"data.mirror: the folder {mirror} does not exist; name an existing one or null.")
    with exclusive(lock_of("download", spec.name), f"Another process is downloading {spec.name}."):
        _download(spec, raw_dir, inbox_dir, mirror, Checksums(checksums))


def _download(spec: RawSpec, raw_dir: Path, inbox_dir: Path, mirror: Path | None, known: Checksums) -> None:
    try:
        archives = _archives(spec, inbox_dir, mirror, known)
        lists = [_find(spec, resource, inbox_dir, mirror, known) for resource in spec.lists]
    except NotRun as reason:
        write_not_run(raw_dir, str(reason))
        return
    refuse_own_source(raw_dir, *archives, *lists)
    with atomic_path(raw_dir) as folder:
        (folder / "anns" if lists else folder).mkdir(parents=True)
        for archive in archives:
            with _kept_only_if_good(spec, archive):
                if spec.unpack:
                    extract(archive, folder)
                else:
                    _keep(spec, archive, folder)
        for path in lists:
            (folder / "anns" / path.name).write_bytes(read_bytes(path))
        write_status(folder)
    known.record()


def _archives(spec: RawSpec, inbox_dir: Path, mirror: Path | None, known: Checksums) -> list[Path]:
    opens = bool(spec.archives) or (isinstance(spec, DatasetSpec) and spec.images is not None)
    if not opens or spec.any_edition:
        for folder in filter(None, (mirror and mirror / spec.name, inbox_dir)):
            archives = [path for path in sorted(folder.glob("*")) if path.is_file() and is_archive(path)]
            for path in archives:
                known.check(f"{spec.name}/{path.name}", path)
            if archives:
                return archives
    if opens:
        return [_find(spec, resource, inbox_dir, mirror, known) for resource in spec.archives]
    others = sorted(path.name for path in inbox_dir.glob("[!.]*"))
    hint = f" (what lies there, {', '.join(others[:3])}, is no zip or tar archive; pack it as one)" if others else ""
    raise NotRun(f"{spec.title} {spec.how} and put the archive, unchanged, into {inbox_dir}/{hint}.")


def _find(spec: RawSpec, resource: Resource, inbox_dir: Path, mirror: Path | None,
          known: Checksums) -> Path:
    """One file of a dataset, its checksum checked."""
    places = [mirror / place for place in resource.mirror] if mirror else []
    path = next((path for path in (*places, inbox_dir / resource.file) if path.is_file()), None)
    if path is None:
        path = _downloads(spec) / resource.file
        if not path.is_file():
            if resource.sha256 is None and is_open_to_change(resource.url):
                raise NotRun(f"{resource.url} is not encrypted and nobody publishes a checksum of it, so that anybody "
                             f"on the way could change it; get {resource.file} from a source that you trust and put it "
                             f"into {inbox_dir}/.")
            try:
                fetch(resource.url, path)
            except Unreachable as cause:
                raise NotRun(f"{resource.url} cannot be had ({cause}); force this download stage when it "
                             f"can, or put {resource.file} into {inbox_dir}/.") from None
    with _kept_only_if_good(spec, path):
        known.check(f"{spec.name}/{resource.file}", path, resource.sha256)
    return path


def _downloads(spec: RawSpec) -> Path:
    return cache_root() / "downloads" / spec.name


def _keep(spec: RawSpec, archive: Path, folder: Path) -> None:
    """Put an archive into a folder as it is, without a second copy of our own download where links work."""
    if not is_archive(archive):
        raise UserError(f"{archive} is neither a zip nor a tar archive; get it again.")
    if archive.is_relative_to(_downloads(spec)):
        with contextlib.suppress(OSError):
            os.link(archive, folder / archive.name)
            return
    shutil.copyfile(archive, folder / archive.name)


@contextlib.contextmanager
def _kept_only_if_good(spec: RawSpec, path: Path) -> Iterator[None]:
    """Remove our own download where it proves bad, so that the next run gets it again."""
    try:
        yield
    except NoRoom:
        raise
    except UserError:
        if path.is_relative_to(_downloads(spec)):
            path.unlink()
        raise
