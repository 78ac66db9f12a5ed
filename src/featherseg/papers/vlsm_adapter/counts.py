"""Exact parameter counts of the full-size models, recipe by recipe."""

import pandas as pd

from featherseg.describe import parameter_groups, without_weights
from featherseg.recipes import recipe_names
from featherseg.reporting.published import AS_RELEASED


def full_size(model: str = "clipseg") -> pd.DataFrame:
    """Trainable and total parameters of the full-size model of each of a model's recipes, by recipe name.

    Recipes that only train otherwise (`-published`) have the counts of the correct one and are left out.
    """
    counts = {}
    for name in recipe_names():
        if name.startswith(f"{model}-") and not name.endswith(AS_RELEASED):
            groups = parameter_groups(without_weights(name)).values()
            counts[name] = {key: sum(group[key] for group in groups) for key in ("trainable", "total")}
    return pd.DataFrame.from_dict(counts, orient="index")
