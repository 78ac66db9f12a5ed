"""Free text on its way into a page, a Markdown file or a CSV file, where it must stay text.

Titles, notes, prompts, names and reasons come from users' files and from servers. Tables, cards and pages write them
through these functions.
"""

import html
import re
from typing import Any

from featherseg.core.terminal import printable

_BREAKS = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]")
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_BLOCK = re.compile(r"^(\d*)([#+\-=.)])")  # what opens a heading, a list or a rule at the start of a line
_FORMULA = ("=", "+", "-", "@")


def one_line(text: str) -> str:
    """The text on one line: breaks as spaces, control characters as their escapes, `\\x1b`."""
    whole = text.encode("utf-8", errors="backslashreplace").decode()  # a lone surrogate is no text
    return printable(_BREAKS.sub(" ", whole))


def elided(text: str, letters: int = 36) -> str:
    """A label of at most so many letters; a longer one is cut in its middle, since names that begin alike differ at
    their ends."""
    half = (letters - 1) // 2
    return text if len(text) <= letters else f"{text[:half]}…{text[-half:]}"


def html_text(text: str) -> str:
    """The text as HTML that shows it."""
    return html.escape(one_line(text))


def markdown_text(text: str) -> str:
    """The text as Markdown that shows it, in a paragraph, a heading, a list or a cell of a table."""
    escaped = _MARKDOWN.sub(lambda match: f"\\{match[0]}", one_line(text))
    return _BLOCK.sub(r"\1\\\2", html.escape(escaped, quote=False))


def csv_cell(value: Any) -> Any:
    """A value as a cell of a CSV file: a text with an apostrophe in front where a spreadsheet would run it."""
    if not isinstance(value, str):
        return value
    shown = one_line(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def from_csv_cell(value: Any) -> Any:
    """The value that `csv_cell` was given, control characters apart."""
    guarded = isinstance(value, str) and value.startswith("'") and value[1:].lstrip().startswith(_FORMULA)
    return value[1:] if guarded else value
