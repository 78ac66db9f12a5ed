"""How recipes that follow released code differ from the correct ones, and where an audit shows it.

A paper's module `audit` says in `EVIDENCE` which fields of such recipes it examines, and below which heading.
"""

import pandas as pd

from featherseg.papers.modules import offering
from featherseg.recipes import declared, recipe_names


def differences() -> pd.DataFrame:
    """One line per recipe and field in which it follows released code.

    Returns:
        recipe, field, what the released code does, and where the evidence is.
    """
    evidence: dict[str, str] = {}
    for audit in offering("audit", "EVIDENCE"):
        evidence |= audit.EVIDENCE
    lines = []
    for name in recipe_names():
        for field, what in declared(name).published.items():
            place = f"{evidence[field]}, below" if field in evidence else "named, not measured here"
            lines.append({"recipe": name, "field": field, "what the released code does": what, "evidence": place})
    return pd.DataFrame(lines)
