"""Executing a notebook with papermill, on this checkout's own code, and turning it into a page."""

import contextlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from featherseg.core import paths
from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path, cache_root, make_folder
from featherseg.core.registry import unknown
from featherseg.reporting import pictures
from featherseg.reporting.compact import with_smaller_pictures
from featherseg.reporting.page import notebook_page, read_notebook
from featherseg.reporting.study import find_root

KERNEL = "featherseg"


def execute(name: str, study: str, parameters: Mapping[str, Any] | None = None) -> Path:
    """Execute `notebooks/<name>.ipynb` into `reports/<study>/`, turn it into HTML and return the page's path.

    Pictures of datasets that are not public are in the folder `pictures/<name>` beside it, which may be empty.

    Raises:
        UserError: no such notebook or parameter, the notebook is damaged, or a cell failed; the message has the cell's
            error and the path of the partly executed notebook. An earlier report is then left as it was.
    """
    source = paths.NOTEBOOKS / f"{name}.ipynb"
    if not source.is_file():
        raise unknown("notebook", name, [path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")])
    read_notebook(source)
    import papermill  # which takes the nbformat that is imported by now
    from papermill.exceptions import PapermillExecutionError

    known, given = papermill.inspect_notebook(str(source)), dict(parameters or {})
    if "study" in given:
        raise UserError("the study of a notebook is no parameter; name it by --study.")
    for parameter in ("study", *given):
        if parameter not in known:
            raise unknown(f"parameter of notebook '{name}'", parameter, list(known))
    partial = cache_root() / "notebooks" / f"{study}-{os.getpid()}" / f"{name}.ipynb"
    own_pictures = paths.pictures(partial.resolve())
    make_folder(own_pictures)
    try:
        with _kernel_of_this_checkout({pictures.PLACE: str(own_pictures)}):
            papermill.execute_notebook(str(source), str(partial), {"study": study} | given, kernel_name=KERNEL,
                                       cwd=str(find_root()), progress_bar=False, start_timeout=300)
    except PapermillExecutionError as error:
        raise UserError(f"notebook '{name}' failed in its cell {error.exec_count}: {error.ename}: "
                        f"{' '.join(error.evalue.split())} (the partly executed notebook is {partial}).") from None
    except RuntimeError:  # DeadKernelError, or a kernel that does not answer
        raise UserError(f"the kernel of notebook '{name}' died, perhaps because memory ran out (the partly executed "
                        f"notebook is {partial}); free memory and run it again.") from None
    target = paths.reports(study) / f"{name}.ipynb"
    _forget_this_machine(partial, target)
    to_html(partial)
    with atomic_path(paths.pictures(target)) as beside:
        shutil.copytree(own_pictures, beside)
    for suffix in (".ipynb", ".html"):  # both are made before the first is replaced
        with atomic_path(target.with_suffix(suffix)) as beside:
            shutil.copyfile(partial.with_suffix(suffix), beside)
    shutil.rmtree(partial.parent)
    return target.with_suffix(".html")


def to_html(notebook: Path) -> Path:
    """Turn an executed notebook into a page beside it, without code, and return the page's path."""
    target = notebook.with_suffix(".html")
    with atomic_path(target) as beside:
        beside.write_text(with_smaller_pictures(notebook_page(notebook)), encoding="utf-8")
    return target


@contextlib.contextmanager
def _kernel_of_this_checkout(environment: Mapping[str, str]) -> Iterator[None]:
    """Offer a kernel that is this interpreter with this package's source first, whatever else is registered.

    A kernel `python3` that somebody registered for another environment would win over the running one.
    """
    import featherseg

    source = str(Path(featherseg.__file__).resolve().parent.parent)
    python_path = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    spec = {"argv": command, "display_name": KERNEL, "language": "python",
            "env": {"PYTHONPATH": os.pathsep.join(python_path), **environment}}
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
    """Name `python3` as an executed notebook's kernel, so that it opens anywhere, `target` as its place, and no folder
    of this machine in what its cells wrote (a warning names the file that it comes from)."""
    import nbformat

    notebook = read_notebook(path)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text" in output:
            output["text"] = _without_folders(output["text"])
        for kind, text in output.get("data", {}).items():
            if kind.startswith("text/"):
                output["data"][kind] = _without_folders(text)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["papermill"]["output_path"] = target.as_posix()
    nbformat.write(notebook, path)


def _without_folders(text: str) -> str:
    """The text with the folders of this machine taken off its paths."""
    import featherseg

    folders = {find_root(), Path(featherseg.__file__).resolve().parent.parent, Path(sysconfig.get_path("purelib")),
               Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir()), Path.home()}
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(f"{folder}{os.sep}", "").replace(folder, ".") if len(folder) > 1 else text
    return text
