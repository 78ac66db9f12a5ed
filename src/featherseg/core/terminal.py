"""Text that is safe to print: what files and servers name themselves cannot steer a terminal or forge a line."""

import contextlib
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import IO, Any

_STEERING = {"Cc", "Cf", "Zl", "Zp"}  # control and format characters, separators of lines and paragraphs
_JOINERS = "\u200c\u200d"  # which Persian, Hindi and emoji need


def printable(text: str, kept: str = "") -> str:
    """The text with every control and direction character as an escape such as `\\x1b`, but for those in `kept`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in kept or not _steers(letter) else letter.encode("unicode_escape").decode()
                   for letter in text)


def shortened(text: str, limit: int = 60) -> str:
    """The text, cut to `limit` characters; the last three are dots where something is missing."""
    return text if len(text) <= limit else f"{text[:limit - 3]}..."


def first_names(names: Sequence[str], limit: int = 3) -> str:
    """The first names of many, each shortened, with dots where there are more."""
    return ", ".join([*map(shortened, names[:limit]), *(["..."] if len(names) > limit else [])])


def _steers(letter: str) -> bool:
    return unicodedata.category(letter) in _STEERING and letter not in _JOINERS


class PrintableStream:
    """A text stream to which only printable text, line breaks, tabs and the returns of progress bars get through."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, with escapes for what would steer the terminal."""
        self._stream.write(printable(text, kept="\n\t\r"))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write one line after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Within the block standard output and error print any text: what their encoding lacks comes as an escape."""
    with contextlib.ExitStack() as stack:
        for stream, redirect in ((sys.stdout, contextlib.redirect_stdout), (sys.stderr, contextlib.redirect_stderr)):
            if stream is None:  # closed by the caller
                continue
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
            stack.enter_context(redirect(PrintableStream(stream)))
        yield
