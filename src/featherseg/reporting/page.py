"""Self-contained HTML pages: no script, nothing fetched, readable on paper and on a phone."""

import html
import re
from pathlib import Path

CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  color: #1c1c1c; background: #fff; margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 80rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #ddd; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 46rem; }
a { color: #0b5cad; }
a.anchor-link { display: none; }
code { background: #f3f3f3; padding: .1em .3em; border-radius: 3px; font-size: .9em; }
.output, .scroll { overflow-x: auto; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0 1.2rem;
  font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; color: #555; padding: .2rem 0 .5rem; }
th { text-align: right; vertical-align: bottom; border-bottom: 2px solid #444; padding: .3rem .7rem;
  font-weight: 600; }
td { text-align: right; vertical-align: top; padding: .28rem .7rem; border-bottom: 1px solid #e6e6e6; }
tr:hover td { background: #f7fafd; }
nav { font-size: .9rem; margin-bottom: 1.5rem; }
.muted { color: #666; font-size: .9rem; }
@media print { body { max-width: none; padding: 0; } }
"""


def notebook_page(notebook: Path) -> str:
    """HTML of an executed notebook: its prose, tables and figures, without code; images are inside."""
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    content = nbformat.read(notebook, as_version=4)
    exporter = HTMLExporter(
        config=Config(
            {
                "TemplateExporter": {
                    "exclude_input": True,
                    "exclude_input_prompt": True,
                    "exclude_output_prompt": True,
                }
            }
        ),
        template_name="basic",
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(content)
    title, summary = title_and_summary(notebook)
    code = f'<a href="{notebook.name}">notebook with code</a>'
    links = f'<nav><a href="../index.html">all reports</a> · {code}</nav>'
    return page(title, f"{links}\n{body}", summary)


def title_and_summary(notebook: Path) -> tuple[str, str]:
    """The first heading of a notebook and the first paragraph below it."""
    import nbformat

    prose = "\n".join(
        cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "markdown"
    )
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n") if paragraph.strip()]
    title = paragraphs[0].lstrip("# ") if paragraphs else notebook.stem
    return title, paragraphs[1] if len(paragraphs) > 1 else ""


def page_title_and_summary(path: Path) -> tuple[str, str]:
    """The title and the description that `page` wrote into an HTML page; empty where it has none."""
    text = path.read_text(encoding="utf-8")
    found = (re.search(pattern, text) for pattern in ("<title>(.*?)</title>", '"description" content="(.*?)">'))
    title, summary = (html.unescape(match[1]) if match else "" for match in found)
    return title or path.stem, summary


def page(title: str, body: str, summary: str = "") -> str:
    """A whole HTML page around a body."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(title)}</title>\n"
        f'<meta name="description" content="{html.escape(summary)}">\n<style>{CSS}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )
