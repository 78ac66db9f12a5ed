"""A recipe's counts beside those that its paper prints and its released code builds.

Each paper that has such counts offers them in its module `published`: `printed_parameters(recipe)`, as text, or None
for a recipe that is not of this paper; `released_parameters(recipe)`, by group or module, or nothing.
"""

from featherseg.config import Params, parse, read_yaml
from featherseg.describe import Described, describe
from featherseg.papers.modules import offering
from featherseg.plan import read_recipe, resolve_adapter, resolve_model


def describe_with(recipe: str, params_file: str | None) -> Described:
    """`describe.describe`, of the full-size model with published counts beside it (`published`, `released_code`), or
    of the model that a params file chooses for this recipe."""
    if params_file is None:
        return {**describe(recipe), "published": printed_parameters(recipe), "released_code": released_code(recipe)}
    params = parse(Params, read_yaml(params_file), params_file)
    settings = read_recipe(recipe)
    model, _ = resolve_model(settings, params, params_file)
    described = describe(recipe, model, resolve_adapter(settings, params, params_file))
    return {**described, "published": None, "released_code": {}}


def printed_parameters(recipe: str) -> str | None:
    """Trainable parameters of a recipe's row in its paper's table, as printed there; None without a row."""
    printed = (paper.printed_parameters(recipe) for paper in offering("published", "printed_parameters"))
    return next(filter(None, printed), None)


def released_code(recipe: str) -> dict[str, int]:
    """Trainable parameters of the released code by group or module, for the recipes whose model it builds."""
    released = (paper.released_parameters(recipe) for paper in offering("published", "released_parameters"))
    return next(filter(None, released), {})
