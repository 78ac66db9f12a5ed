"""A model of the user's own: any function `(image uint8 (H, W, 3), prompt) -> mask (H, W), bool or probabilities`.

A function is anything that can be called so: a lambda, a `functools.partial`, an object with `__call__`, a method.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featherseg.core.errors import UserError
from featherseg.core.registry import unknown
from featherseg.reliance.suite import BadMap, Segment

Predictor = Callable[[np.ndarray, str], np.ndarray]


def load(name: str) -> Segment:
    """The function `module:function`, its module importable from the current folder, as a `Segment`.

    Args:
        name: dots lead into the module's packages and to an object's methods, as in `package.module:model.predict`.

    Raises:
        UserError: the name has another form, the module is absent or fails on import, or has no such function.
    """
    module_name, separator, function_name = name.partition(":")
    if not (separator and module_name and function_name) or module_name.endswith(".py") or "/" in module_name:
        raise UserError(f"the predictor is {name!r}; write it as module:function, such as my_model:predict.")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's module raises; a script may exit
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"predictor {name!r}: there is no module {error.name!r} in {folder} or among the installed "
                            "packages; go to its folder, or correct the name.") from None
        raise UserError(f"predictor {name!r}: importing {module_name} fails with {_said(error)}; correct "
                        "the module.") from error
    function: Any = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if isinstance(function, type):
        raise UserError(f"predictor {name!r} is a class; make an object of it in the module, and name that.")
    if not callable(function):
        functions = [known for known, value in vars(module).items()
                     if callable(value) and not isinstance(value, type) and not known.startswith("_")]
        raise unknown(f"function in {module_name}", function_name, functions)
    return segment_with(function)


def segment_with(function: Predictor) -> Segment:
    """A function of one image and one prompt as a `Segment`; each call gets a copy of the image."""

    def segment(images: Sequence[np.ndarray], prompts: Sequence[str]) -> Iterator[np.ndarray]:
        for image, prompt in zip(images, prompts, strict=True):
            try:
                given = function(image.copy(), prompt)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever the user's function raises
                raise BadMap(f"fails with {_said(error)}") from error
            yield given

    return segment


def _said(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(":")
