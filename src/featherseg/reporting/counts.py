"""Exact parameter counts of the full-size models, recipe by recipe."""

from featherseg.describe import describe
from featherseg.plan import recipe_names
from featherseg.reporting.published import AS_RELEASED


def full_size() -> dict[str, dict]:
    """What `describe` says of every recipe, except those that only train otherwise (`-published`)."""
    return {name: describe(name) for name in recipe_names() if not name.endswith(AS_RELEASED)}
