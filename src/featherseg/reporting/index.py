"""reports/index.html: one line for everything that there is to read."""

from pathlib import Path
from urllib.parse import quote

from featherseg.core.errors import UserError
from featherseg.core.files import atomic_path
from featherseg.core.markup import html_text
from featherseg.reporting.page import page, page_title_and_summary

REPORTS = Path("reports")
TABLES = {
    "results.csv": "every score of every declared run, with its provenance",
    "curves.csv": "loss and validation DSC of every epoch",
    "metrics.json": "mean DSC of each recipe, as dvc metrics show prints it",
    "benchmarks.csv": "speed and memory of each method, with hardware and versions",
}


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
    sections = [_section(folder) for folder in folders]
    if loose := _tables(REPORTS):
        sections.append(f"<h2>Benchmarks</h2>\n<ul>{loose}</ul>")
    body = "\n".join(["<h1>Reports</h1>", *filter(None, sections)])
    target = REPORTS / "index.html"
    with atomic_path(target) as beside:
        beside.write_text(page("featherseg reports", body), encoding="utf-8")
    return target


def _section(folder: Path) -> str:
    pages = [_line(path, *page_title_and_summary(path)) for path in sorted(folder.glob("*.html"))]
    items = "".join(pages) + _tables(folder)
    name = f"Study: {folder.name}" if (folder / "results.csv").is_file() else folder.name.replace("_", " ").capitalize()
    return f"<h2>{html_text(name)}</h2>\n<ul>{items}</ul>" if items else ""


def _tables(folder: Path) -> str:
    found = [(folder / name, name, what) for name, what in TABLES.items() if (folder / name).is_file()]
    return "".join(_line(*entry) for entry in found)


def _line(path: Path, title: str, what: str) -> str:
    link = quote(path.relative_to(REPORTS).as_posix())
    return f'<li><a href="{link}">{html_text(title)}</a>: {html_text(what)}</li>\n'
