"""Self-contained HTML pages: no script, nothing fetched, readable on paper and on a phone.

Text is escaped where it becomes markup: by the templates, and by `featherseg.core.markup` in what notebooks show.
Behind that stands a policy in every page, under which a browser runs no script and fetches nothing, but for
pictures beside a page that has some (`reporting.pictures`).
"""

import html
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from featherseg.core.errors import UserError
from featherseg.core.markup import html_text, one_line
from featherseg.core.paths import pictures
from featherseg.core.terminal import shortened

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context
    from nbformat import NotebookNode

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_GRAMMARS = "rfc3987_syntax"
BESIDE = "'self' file:"  # browsers differ in whether 'self' covers the files beside a page that is a file


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
    linked = any(pictures(notebook).glob("*"))
    return page(title, f"{links}\n{body}", summary, BESIDE if linked else "")


def read_notebook(path: Path) -> "NotebookNode":
    """A Jupyter notebook.

    Raises:
        UserError: the file is not a notebook, or is damaged.
    """
    nbformat = _nbformat()
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
    prose = "\n\n".join(cell.source for cell in read_notebook(notebook).cells if cell.cell_type == "markdown")
    paragraphs = [" ".join(paragraph.split()) for paragraph in prose.split("\n\n") if paragraph.strip()]
    title = paragraphs[0].lstrip("# ") if paragraphs else notebook.stem
    return title, paragraphs[1] if len(paragraphs) > 1 else ""


def page_title_and_summary(path: Path) -> tuple[str, str]:
    """The title and the description that `page` wrote into an HTML page; empty where it has none."""
    text = path.read_text(encoding="utf-8", errors="replace")
    matches = (re.search(pattern, text) for pattern in ("<title>(.*?)</title>", '"description" content="(.*?)">'))
    title, summary = (html.unescape(match[1]) if match else "" for match in matches)
    return title or path.stem, summary


def page(title: str, body: str, summary: str = "", images: str = "") -> str:
    """A whole HTML page around a body.

    Args:
        title: of the page.
        body: HTML.
        summary: one paragraph of text.
        images: where images may be loaded from, as sources of the policy, beside those inside.
    """
    from markupsafe import Markup

    return render("reporting/page.html", title=title, summary=summary, body=Markup(body), images=images)


def render(template: str, images: str = "", **values: Any) -> str:
    """A page from one of the package's templates; text is escaped where it is filled in.

    Args:
        template: its path within the package; it extends `reporting/page.html`.
        images: as in `page`.
        values: what it shows; `title` and `summary` are those of every page. HTML is given as `markupsafe.Markup`.
    """
    return _templates().get_template(template).render(policy=f"{POLICY} {images}".rstrip(), **values)


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(Path(__file__).parents[1]), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_on_one_line)


def _on_one_line(value: Any) -> Any:
    """Text without line breaks and control characters; HTML, and what is not text, as it is."""
    return one_line(value) if type(value) is str else value


def _nbformat() -> ModuleType:
    """The library, without grammars that jsonschema would compile for two seconds: no notebook holds an IRI."""
    absent = sys.modules.setdefault(_GRAMMARS, None) is None  # type: ignore[arg-type]
    import nbformat

    if absent:
        del sys.modules[_GRAMMARS]
    return nbformat
