"""Exact parameter counts of the full-size models, recipe by recipe."""

from typing import Any

import pandas as pd

from featherseg.describe import parameter_groups, without_weights
from featherseg.recipes import declared, recipe_names


def full_size(model: str = "clipseg") -> pd.DataFrame:
    """Trainable and total parameters of the full-size model of each of a model's recipes, by recipe name.

    Recipes that follow released code have the counts of the correct ones and are left out, as are those that tune by a
    method that was counted before and differ in training only, such as in the prompts.
    """
    counts: dict[str, dict[str, int]] = {}
    adapters: list[dict[str, Any]] = []
    for name in recipe_names():
        recipe = declared(name)
        if recipe.model == model and not recipe.published and recipe.adapter not in adapters:
            adapters.append(recipe.adapter)
            groups = parameter_groups(without_weights(name)).values()
            trainable = sum(group["trainable"] for group in groups)
            counts[name] = {"trainable": trainable, "total": sum(group["total"] for group in groups)}
    return pd.DataFrame.from_dict(counts, orient="index")
