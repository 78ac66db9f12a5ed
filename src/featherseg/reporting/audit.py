"""Findings on released code, as notebooks show them: evidence that is computed on the spot, and a verdict.

Each trap is measured on both sides by the same code, and its verdict is read off the measurement: if a library is
repaired one day, the verdict says so. The traps themselves are in the papers' folders.
"""

from typing import Any

OURS = "featherseg"  # as tables call this package beside other code


def shown(title: str, prose: str, table: Any, verdict: str) -> list:
    """What a notebook shows of a trap: a heading with its prose, a table, and the verdict."""
    from IPython.display import Markdown

    return [Markdown(f"### {title}\n\n{prose}"), table, Markdown(f"**Verdict.** {verdict}")]
