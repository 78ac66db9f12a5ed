"""How the rows of a study are drawn: the colour says the method, the marker says the model.

A method's own file declares its colours, so that they are the same in every study. Markers go to a study's models in
the order in which it declares them. Rows that differ in neither, such as the widths of one adapter, get shades.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

MARKERS = "os^DvPXph*<>d8H"
UNDECLARED = "#333333"  # of a method whose file names no colour
FURTHEST = 0.7  # of the way to black or white, for a shade


class Row(NamedTuple):
    """What decides how a recipe is drawn.

    Attributes:
        recipe: its name.
        model: the model's name.
        adapter: the method's name.
        variant: the direction or the positions of the method, where it has such.
    """

    recipe: str
    model: str
    adapter: str
    variant: str = ""


class Look(NamedTuple):
    """Colour and marker, as matplotlib names them."""

    colour: str
    marker: str


def rows_of(results: "pd.DataFrame") -> list[Row]:
    """One row for each recipe of a study's results, in their order."""
    first = results.drop_duplicates("recipe")
    return [Row(run.recipe, run.model, run.adapter, run.direction or run.positions) for run in first.itertuples()]


def looks(rows: Iterable[Row]) -> dict[str, Look]:
    """The look of each recipe; no two are equal.

    Args:
        rows: in the order in which the study declares them, each recipe once.
    """
    rows = list(rows)
    models = list(dict.fromkeys(row.model for row in rows))
    alike: dict[Look, list[str]] = {}
    for row in rows:
        marker = MARKERS[models.index(row.model) % len(MARKERS)]
        alike.setdefault(Look(colour(row.adapter, row.variant), marker), []).append(row.recipe)
    drawn: dict[str, Look] = {}
    for look, recipes in alike.items():
        for recipe, shade in zip(recipes, _shades(look.colour, len(recipes)), strict=True):
            drawn[recipe] = Look(shade, look.marker)
    return drawn


def colour(adapter: str, variant: str = "") -> str:
    """The colour that a method's file declares for one of its variants.

    Args:
        adapter: the method's name.
        variant: its positions or its direction, where it has such.
    """
    from featherseg.adapters import METHODS

    declared = METHODS[adapter].colours if adapter in METHODS else {}
    return declared.get(variant, declared.get("", UNDECLARED))


def _shades(colour: str, count: int) -> list[str]:
    """A colour, then shades of it from dark to light, `count` in all."""
    darker, lighter = count // 2, (count - 1) // 2
    shades = [colour]
    shades += [_mixed(colour, 0, FURTHEST * step / darker) for step in range(darker, 0, -1)]
    shades += [_mixed(colour, 1, FURTHEST * step / lighter) for step in range(1, lighter + 1)]
    return shades


def _mixed(colour: str, end: float, share: float) -> str:
    """A colour with a share of black (`end` 0) or white (`end` 1)."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = (part + share * (end - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))
