"""Findings on released code: evidence that is computed on the spot, and what each recipe does that follows such code.

Each trap is measured on both sides by the same code, and its verdict is read off the measurement: if a library is
repaired one day, the verdict says so. The traps themselves stand with the papers.
"""

from typing import TYPE_CHECKING, Any

from featherseg.recipes import declared, recipe_names

if TYPE_CHECKING:
    import pandas as pd

OURS = "featherseg"  # as tables call this package beside other code


def shown(title: str, prose: str, table: Any, verdict: str) -> list:
    """What a notebook shows of a trap: a heading with its prose, a table, and the verdict."""
    from IPython.display import Markdown

    return [Markdown(f"### {title}\n\n{prose}"), table, Markdown(f"**Verdict.** {verdict}")]


def differences() -> "pd.DataFrame":
    """How each recipe that follows released code differs from the correct one: one line per difference."""
    import pandas as pd

    sections = {"towers": "trap 1, below", "loss": "trap 2, below",
                "selection": "trap 5 and which epoch is kept, below",
                "threshold": "trap 6, below", "rate": "trap 7, below",
                "batchnorm": "trap 9, below", "taps": "trap 4, below",
                "fusion": "SAN, below", "recognition": "SAN, below",
                "padding": "trap 13, below", "prompts": "trap 8 and one level of prompts, below",
                "upsampling": "targets and logits, below", "targets": "targets and logits, below",
                "resize": "pictures, below", "way_back": "the way back, below", "schedule": "the plateau, below",
                "positions": "positional embeddings, below", "last_batch": "the last batch, below",
                "count": "a parameter that is counted, below", "dropout": "frozen, and dropping out, below"}
    lines = []
    for name in recipe_names():
        for field, what in declared(name).published.items():
            evidence = sections.get(field, "named, not measured here")
            lines.append({"recipe": name, "field": field, "what the released code does": what,
                          "evidence": evidence})
    return pd.DataFrame(lines)
