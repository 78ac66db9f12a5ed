"""Free text on its way into a page, a Markdown file or a CSV file, where it must stay text.

Titles, notes, prompts, names and reasons come from users' files and from servers. Tables, cards and pages write them
through these functions.
"""

import html
import re
from typing import Any

# C0 and C1 controls, line and paragraph separators, lone surrogates, and marks that turn the reading direction round
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_BLOCK = re.compile(r"^(\d*)([#+\-=.)])")  # what opens a heading, a list or a rule at the start of a line
_FORMULA = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """The text on one line: white space as spaces, control characters as their escapes, `\\x1b`."""
    return _CONTROL.sub(lambda match: " " if match[0].isspace() else repr(match[0])[1:-1], text)


def html_text(text: str) -> str:
    """The text as HTML that shows it."""
    return html.escape(printable(text))


def markdown_text(text: str) -> str:
    """The text as Markdown that shows it, in a paragraph, a heading, a list or a cell of a table."""
    escaped = _MARKDOWN.sub(lambda match: f"\\{match[0]}", printable(text))
    return _BLOCK.sub(r"\1\\\2", html.escape(escaped, quote=False))


def csv_cell(value: Any) -> Any:
    """A value as a cell of a CSV file: a text with an apostrophe in front where a spreadsheet would run it."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def from_csv_cell(value: Any) -> Any:
    """The value that `csv_cell` was given, control characters apart."""
    guarded = isinstance(value, str) and value.startswith("'") and value[1:].lstrip().startswith(_FORMULA)
    return value[1:] if guarded else value
