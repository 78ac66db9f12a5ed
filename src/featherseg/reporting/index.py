"""reports/index.html: one line for every page and table."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path
from featherseg.core.paths import REPORTS, verification
from featherseg.reporting.page import page_title_and_summary, render

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
    entries: list[Entry]


def write_index() -> Path:
    """Link every page and every table in reports/, by study, each with one line; return the page.

    The study `study`, which `dvc repro` runs, comes first.

    Raises:
        UserError: there is no reports/.
    """
    if not REPORTS.is_dir():
        raise UserError(f"there is no folder {REPORTS}/ to link; collect a study first: featherseg collect.")
    folders = [path for path in REPORTS.iterdir() if path.is_dir()]
    folders.sort(key=lambda path: (path.name != "study", path))
    sections = [Section(_name(folder), [*_pages(folder), *_tables(folder)]) for folder in folders]
    sections.append(Section("Benchmarks", _tables(REPORTS)))
    shown = [section for section in sections if section.entries]
    target = REPORTS / "index.html"
    with atomic_path(target) as beside:
        text = render("reporting/index.html", title="featherseg reports", summary="", sections=shown)
        beside.write_text(text, encoding="utf-8")
    return target


def _name(folder: Path) -> str:
    return f"Study: {folder.name}" if (folder / "results.csv").is_file() else folder.name.replace("_", " ").capitalize()


def _pages(folder: Path) -> list[Entry]:
    pages = set(folder.glob("*.html")) - {verification(folder.name)}  # a clone has none, and the index is committed
    return [Entry(_link(path), *page_title_and_summary(path)) for path in sorted(pages)]


def _tables(folder: Path) -> list[Entry]:
    return [Entry(_link(folder / name), name, what) for name, what in TABLES.items() if (folder / name).is_file()]


def _link(path: Path) -> str:
    return quote(path.relative_to(REPORTS).as_posix())
