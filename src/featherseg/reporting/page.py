"""Self-contained HTML pages: no script, nothing fetched, readable on paper and on a phone.

Text is escaped where it becomes markup (`featherseg.core.markup`). Behind that stands a policy in every page, under
which a browser runs no script and fetches nothing, but for pictures beside a page that has some
(`reporting.pictures`).
"""

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from featherseg.core.errors import UserError
from featherseg.core.markup import html_text
from featherseg.core.terminal import shortened
from featherseg.reporting.pictures import folder_of

if TYPE_CHECKING:
    from jinja2.runtime import Context
    from nbformat import NotebookNode

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
BESIDE = "'self' file:"  # browsers differ in whether 'self' covers the files beside a page that is a file

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
    """HTML of an executed notebook: its prose, tables and figures, without code; images are inside, but for those that
    its folder of pictures holds."""
    from traitlets.config import Config

    content = read_notebook(notebook)
    exporter = _exporter()(
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
    code = f'<a href="../../notebooks/{quote(notebook.name)}">notebook with code</a>'
    links = f'<nav><a href="../index.html">all reports</a> · {code}</nav>'
    linked = any(folder_of(notebook).glob("*"))
    return page(title, f"{links}\n{body}", summary, BESIDE if linked else "")


def read_notebook(path: Path) -> "NotebookNode":
    """A Jupyter notebook.

    Raises:
        UserError: the file is none, or is damaged.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # nbformat raises whatever its parsers do
        cause = shortened(" ".join(str(error).split()), 120)
        raise UserError(f"{path} is not a Jupyter notebook ({cause}); restore it from git, or execute it again: "
                        "featherseg notebook.") from None
    return notebook


def _exporter() -> type:
    """nbconvert's HTML exporter, with the HTML in Markdown shown as text, in cells and in their outputs."""
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class TextRenderer(IPythonRenderer):
        def inline_html(self, html: str) -> str:
            return html_text(html)

        def block_html(self, html: str) -> str:
            return f"<p>{html_text(html)}</p>\n"

    class PageExporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context: "Context", source: str) -> str:
            renderer = TextRenderer(escape=False, allow_harmful_protocols=False,
                                    anchor_link_text=self.anchor_link_text)
            return MarkdownWithMath(renderer=renderer).render(source)

    return PageExporter


def title_and_summary(notebook: Path) -> tuple[str, str]:
    """The first heading of a notebook and the first paragraph below it."""
    prose = "\n".join(cell.source for cell in read_notebook(notebook).cells if cell.cell_type == "markdown")
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n") if paragraph.strip()]
    title = paragraphs[0].lstrip("# ") if paragraphs else notebook.stem
    return title, paragraphs[1] if len(paragraphs) > 1 else ""


def page_title_and_summary(path: Path) -> tuple[str, str]:
    """The title and the description that `page` wrote into an HTML page; empty where it has none."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = (re.search(pattern, text) for pattern in ("<title>(.*?)</title>", '"description" content="(.*?)">'))
    title, summary = (html.unescape(match[1]) if match else "" for match in found)
    return title or path.stem, summary


def page(title: str, body: str, summary: str = "", images: str = "") -> str:
    """A whole HTML page around a body.

    Args:
        title: of the page.
        body: HTML.
        summary: one paragraph of text.
        images: where images may be loaded from, as sources of the policy, beside those inside.
    """
    policy = f"{POLICY} {images}".rstrip()
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(title)}</title>\n"
        f'<meta name="description" content="{html_text(summary)}">\n<style>{CSS}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )
