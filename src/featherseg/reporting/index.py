"""reports/index.html: the root study in one figure, and one line for every page."""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path
from featherseg.core.paths import REPORTS, verification
from featherseg.reporting import style
from featherseg.reporting.compact import with_smaller_pictures
from featherseg.reporting.page import page_title_and_summary, render
from featherseg.reporting.study import Study

ROOT_STUDY = "study"
_SENTENCE_END = re.compile(r"(?<=[a-z)]\.) (?=[A-Z])")
TABLES = {
    "runs.csv": "every declared run: its settings, data, weights, parameters and machine, or why it was not made",
    "results.csv": "every score of every run, one per line",
    "curves.csv": "loss and validation DSC of every epoch",
    "metrics.json": "mean DSC of each recipe, as dvc metrics show prints it",
    "benchmarks.csv": "speed and memory of each method, with hardware and versions",
}


class Entry(NamedTuple):
    """A link with its title and a description of its target."""

    link: str
    title: str
    what: str


class Section(NamedTuple):
    """What one folder of reports/ holds."""

    name: str
    pages: list[Entry]
    tables: list[Entry]


class Picture(NamedTuple):
    """A picture inside the page: its address, and the width in pixels at which it is shown."""

    address: str
    width: int


def write_index() -> Path:
    """Draw the study `study`, which `dvc repro` runs, link every page in reports/ with one line, and the tables; return
    the page. That study comes first.

    Raises:
        UserError: there is no reports/.
    """
    if not REPORTS.is_dir():
        raise UserError(f"there is no folder {REPORTS}/ to link; collect a study first: featherseg collect.")
    folders = [path for path in REPORTS.iterdir() if path.is_dir()]
    folders.sort(key=lambda path: (path.name != ROOT_STUDY, path))
    sections = [Section(_name(folder), _pages(folder), _tables(folder)) for folder in folders]
    sections.append(Section("Benchmarks", [], _tables(REPORTS)))
    shown = [section for section in sections if section.pages or section.tables]
    target = REPORTS / "index.html"
    text = render("reporting/index.html", title="featherseg reports", summary="", sections=shown, headline=_headline())
    with atomic_path(target) as beside:
        beside.write_text(with_smaller_pictures(text), encoding="utf-8")
    return target


def _headline() -> Picture | None:
    """The figure of the root study; None where nothing was scored, or was collected by an older version."""
    study = Study(ROOT_STUDY)
    if not all((study.reports / name).is_file() for name in ("runs.csv", "results.csv")):
        return None
    from featherseg.reporting import headline

    try:
        drawn = headline.figure(study)
    except UserError:  # its tables lack a column; the links are of use without the figure
        return None
    return Picture(style.embedded(drawn), int(96 * drawn.get_figwidth())) if drawn else None


def _name(folder: Path) -> str:
    if folder.name == ROOT_STUDY:
        return "The study that dvc repro runs"
    return f"Study: {folder.name}" if (folder / "results.csv").is_file() else folder.name.replace("_", " ").capitalize()


def _pages(folder: Path) -> list[Entry]:
    pages = set(folder.glob("*.html")) - {verification(folder.name)}  # a clone has none, and the index is committed
    entries = []
    for path in sorted(pages):
        title, summary = page_title_and_summary(path)
        entries.append(Entry(_link(path), title, _SENTENCE_END.split(summary)[0]))
    return entries


def _tables(folder: Path) -> list[Entry]:
    return [Entry(_link(folder / name), name, what) for name, what in TABLES.items() if (folder / name).is_file()]


def _link(path: Path) -> str:
    return quote(path.relative_to(REPORTS).as_posix())
