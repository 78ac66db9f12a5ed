"""What may be named as a predictor, and what is said of the rest."""

import sys
from pathlib import Path

import numpy as np
import pytest

from featherseg.core.errors import UserError
from featherseg.reliance.predictor import load

MODULE = """
import functools

def above(level, image, prompt): return image[..., 0] > level

bound, short = functools.partial(above, 100), lambda image, prompt: image[..., 0] > 100

class Model:
    def __call__(self, image, prompt): return above(100, image, prompt)
    predict = __call__

model = Model()
"""
FILES = {"mine.py": MODULE, "pack/__init__.py": "",
         "pack/inner.py": "from .other import short", "pack/other.py": MODULE,
         "alone.py": "from .other import short", "wrong.py": "def f(image, prompt) return 0",
         "absent_too.py": "import absent", "pack/lacking.py": "import pack.absent"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    yield
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in {Path(file).parts[0].removesuffix(".py") for file in FILES}:
            del sys.modules[name]


@pytest.mark.parametrize("name", ["mine:bound", "mine:short", "mine:model", "mine:model.predict", "pack.inner:short",
                                  "pack:inner.short"])
def test_anything_that_can_be_called_with_an_image_and_a_prompt_will_do(name):
    if name == "pack:inner.short":  # a module that nothing has imported is no attribute of its package
        Path("pack/__init__.py").write_text("from . import inner")
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    [mask] = load(name)([image], ["prompt"])
    assert np.array_equal(mask, image[..., 0] > 100)


@pytest.mark.parametrize(("name", "said"), [
    ("mine.py:short", "write it as module:function"), ("./mine:short", "write it as module:function"),
    ("mine:Model", "is a class; make an object of it in the module, and name that"),
    ("mine:model.predic", "unknown function in mine 'model.predic': .*valid values are above, bound, model, short"),
    ("alone:short", "importing alone fails with ImportError: attempted relative import"),
    ("wrong:f", r"importing wrong fails with SyntaxError: .*\(wrong.py, line 1\)"),
    ("absent_too:f", "importing absent_too fails with ModuleNotFoundError: No module named 'absent'"),
    ("pack.lacking:f", "importing pack.lacking fails with ModuleNotFoundError: No module named 'pack.absent'"),
    ("pack.absent:f", "there is no module 'pack.absent' in "), ("absent.inner:f", "there is no module 'absent' in "),
])
def test_what_cannot_be_used_is_one_sentence(name, said):
    with pytest.raises(UserError, match=said) as raised:
        load(name)
    assert "\n" not in str(raised.value)
