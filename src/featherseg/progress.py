"""Progress that a person can watch, and that does not flood a log file."""

import math
import sys

from tqdm import tqdm


def progress(total: int, description: str, unit: str, initial: int = 0, disable: bool = False) -> tqdm:
    """A progress bar on standard error; where that is no terminal, a line every half minute and at the end.

    Args:
        total: units in all.
        description: what is being done.
        unit: what is counted, such as "img".
        initial: units done before.
        disable: show nothing.
    """
    if sys.stderr.isatty():
        look = {"dynamic_ncols": True}
    else:
        look = {"file": _Lines(), "mininterval": 30, "maxinterval": math.inf,
                "bar_format": "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"}
    return tqdm(total=total, desc=description, unit=unit, initial=initial, disable=disable, **look)


class _Lines:
    """A stream on which each refresh of a bar is a line of its own, the first, empty one is none."""

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line and "<?" not in line:  # no rate yet
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
