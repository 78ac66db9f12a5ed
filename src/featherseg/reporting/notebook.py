"""Executing a notebook with papermill, on this checkout's own code, and turning it into a page."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from featherseg.errors import UserError
from featherseg.files import atomic_path, cache_root
from featherseg.registry import unknown
from featherseg.reporting.page import notebook_page
from featherseg.reporting.study import find_root

FOLDER = Path("notebooks")
KERNEL = "featherseg"


def execute(name: str, study: str, parameters: Mapping[str, Any] | None = None) -> Path:
    """Execute `notebooks/<name>.ipynb` into `reports/<study>/`, turn it into HTML and return the page's path.

    Raises:
        UserError: no such notebook or parameter, or a cell failed; the message has the cell's error and the
            path of the partly executed notebook. Nothing is written to reports/ then.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source = FOLDER / f"{name}.ipynb"
    if not source.is_file():
        raise unknown("notebook", name, [path.stem for path in FOLDER.glob("*.ipynb")])
    known = papermill.inspect_notebook(str(source))
    given = {"study": study, **(parameters or {})}
    for parameter in given:
        if parameter not in known:
            raise unknown(f"parameter of notebook '{name}'", parameter, list(known))
    partial = cache_root() / "notebooks" / f"{study}-{name}-{os.getpid()}.ipynb"
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _kernel_of_this_checkout():
            papermill.execute_notebook(str(source), str(partial), given, kernel_name=KERNEL, cwd=str(find_root()),
                                       progress_bar=False, start_timeout=300)
    except PapermillExecutionError as error:
        raise UserError(f"notebook '{name}' failed in its cell {error.exec_count}: {error.ename}: "
                        f"{' '.join(error.evalue.split())} (the partly executed notebook is {partial}).") from None
    except DeadKernelError:
        raise UserError(f"the kernel of notebook '{name}' died, perhaps for want of memory (the partly executed "
                        f"notebook is {partial}); free memory and run it again.") from None
    target = Path("reports") / study / f"{name}.ipynb"
    _forget_this_machine(partial, target)
    with atomic_path(target) as beside:
        shutil.copyfile(partial, beside)
    partial.unlink()
    return to_html(target)


def to_html(notebook: Path) -> Path:
    """Turn an executed notebook into a page beside it, without code, and return the page's path."""
    target = notebook.with_suffix(".html")
    with atomic_path(target) as beside:
        beside.write_text(notebook_page(notebook), encoding="utf-8")
    return target


@contextlib.contextmanager
def _kernel_of_this_checkout() -> Iterator[None]:
    """Offer a kernel that is this interpreter with this package's source first, whatever else is registered.

    A kernel `python3` that somebody registered for another environment would win over the running one.
    """
    import featherseg

    source = str(Path(featherseg.__file__).resolve().parent.parent)
    paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    spec = {"argv": command, "display_name": KERNEL, "language": "python",
            "env": {"PYTHONPATH": os.pathsep.join(paths)}}
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernels" / KERNEL / "kernel.json"
        kernel.parent.mkdir(parents=True)
        kernel.write_text(json.dumps(spec))
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


def _forget_this_machine(path: Path, target: Path) -> None:
    """Name `python3` as an executed notebook's kernel, so that it opens anywhere, and `target` as its place."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["papermill"]["output_path"] = target.as_posix()
    nbformat.write(notebook, path)
