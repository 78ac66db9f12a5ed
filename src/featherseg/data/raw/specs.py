"""Every published source by name: each module of `official` holds one as `SPEC`."""

import importlib
import pkgutil

from featherseg.data import official
from featherseg.data.raw.spec import RawSpec


def _discover() -> dict[str, RawSpec]:
    names = sorted(module.name for module in pkgutil.iter_modules(official.__path__))
    return {name: importlib.import_module(f"{official.__name__}.{name}").SPEC for name in names}


SPECS: dict[str, RawSpec] = _discover()
