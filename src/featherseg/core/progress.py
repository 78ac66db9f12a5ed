"""Progress that a person can watch, and that does not flood a log file."""

import math
import sys
from typing import Any

from tqdm import tqdm

from featherseg.core.terminal import printable


def progress(total: int | None, description: str, unit: str, initial: int = 0, disable: bool = False,
             scale: bool = False) -> tqdm:
    """A progress bar on standard error; where that is no terminal, a line every half minute and at the end.

    Args:
        total: units in all; None where that is not known.
        description: what is being done.
        unit: what is counted, such as "img".
        initial: units done before.
        disable: show nothing.
        scale: write large numbers as 1.2k or 3.4G.
    """
    look: dict[str, Any]
    if sys.stderr.isatty():
        look = {"dynamic_ncols": True}
    else:
        left = "" if total is None else "<{remaining}"
        look = {"file": _Lines(), "mininterval": 30, "maxinterval": math.inf, "miniters": 1,
                "bar_format": f"{{desc}}: {{n_fmt}}/{{total_fmt}} [{{elapsed}}{left}, {{rate_fmt}}{{postfix}}]"}
    return tqdm(total=total, desc=printable(description), unit=unit, initial=initial, disable=disable, unit_scale=scale,
                **look)


class _Lines:
    """A stream that prints each refresh of a bar on a line of its own, except for the first, empty one."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and "<?" not in line:  # no rate yet
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
