"""Where the pictures of a page are: in the page where they may be published, else in files that git ignores."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherseg.config import read_params
from featherseg.core import paths
from featherseg.core.files import atomic_path
from featherseg.core.markup import html_text, markdown_text
from featherseg.data.folder.privacy import is_public
from featherseg.reporting import style
from featherseg.reporting.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLACE = "FEATHERSEG_PICTURES"  # environment variable of a notebook's kernel: the folder of its pictures


def shown(figure: "Figure", study: Study, dataset: str, name: str) -> list[Any]:
    """What a notebook displays of a figure with pictures of a dataset.

    Args:
        figure: the figure.
        study: the study of the notebook.
        dataset: whose pictures it shows; only those of a public one are put into the notebook.
        name: of the figure, as a file's name; used once per notebook and dataset.

    Returns:
        The picture, or a line that says that it stays on this machine, and a link to the file that holds it.
    """
    image = style.picture(figure)
    if is_public(dataset, read_params("study").data):
        return [image]
    folder, link = _place(study)
    file = f"{name}-{dataset}.jpg"
    with atomic_path(folder / file) as beside:
        beside.write_bytes(image.data)
    return [_why(dataset), _Link({"src": f"{link}/{file}", "width": image.width,
                                  "alt": f"Pictures of {dataset}, which stay on the machine that made this page"})]


class _Link:
    """A picture that a notebook displays by its address."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._attributes = attributes

    def _repr_html_(self) -> str:
        written = " ".join(f'{name}="{html_text(str(value))}"' for name, value in self._attributes.items())
        return f"<img {written}>"


def _why(dataset: str) -> Any:
    return style.note(f"The pictures of {markdown_text(dataset)} stay on this machine: git ignores them. "
                      "`public: true` in `data.folders` puts them into the page.")


def _place(study: Study) -> tuple[Path, str]:
    """The folder of the notebook's pictures, and its address from the notebook: for one that is executed into
    reports/, and for one that is opened by hand in notebooks/."""
    if place := os.environ.get(PLACE):
        folder = Path(place)
        return folder, f"{folder.parent.name}/{folder.name}"
    folder = paths.pictures(study.reports / "by_hand")
    return folder, f"../{folder.as_posix()}"
