"""Reading a pickle that somebody else made, without running anything in it."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from featherseg.core.errors import UserError
from featherseg.core.files import check_nesting, read_bytes
from featherseg.core.terminal import shortened

LONGEST = 128 << 20  # bytes; the largest file of references has 50 MB
MOST_STEPS = 12_000_000  # instructions, each of which may take 200 bytes of memory; 5 million are in that file
MOST_VALUES = 4_000_000  # counted as often as they are referred to; 2 million are in it
_PLAIN = [
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2,
    pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BINFLOAT,
    pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES, pickle.SHORT_BINBYTES, pickle.BINBYTES8,
    pickle.UNICODE, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8,
    pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM,
    pickle.SETITEMS, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.GET, pickle.BINGET, pickle.LONG_BINGET, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE,
]
_NAMES = [pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.INST]  # known only so that the refusal can say the name


def _counted(step: Callable[[Any], None]) -> Callable[[Any], None]:
    def counted(self: "_PlainUnpickler") -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise UserError(f"holds more than {MOST_STEPS:,} instructions")
        step(self)

    return counted


class _PlainUnpickler(pickle._Unpickler):
    """Python's own unpickler in Python, because in that one the instructions are a table from which those that make
    objects can be left out, and a damaged number cannot make it allocate memory.
    """

    dispatch = {code[0]: _counted(pickle._Unpickler.dispatch[code[0]]) for code in (*_PLAIN, *_NAMES)}
    steps = 0

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(f"names {shortened(f'{module}.{name}')}, but a pickle of plain data needs no code; nothing of "
                        "it was run")


def read_plain_pickle(path: Path) -> Any:
    """Content of a pickle of any protocol that holds dict, list, tuple, text, bytes, numbers and None only.

    Byte strings of Python 2 become text, read as UTF-8.

    Raises:
        UserError: the file cannot be read, is damaged or too large, or names a class or function.
    """
    content = read_bytes(path, LONGEST)
    try:
        value = _PlainUnpickler(io.BytesIO(content), encoding="utf-8", errors="replace").load()
    except UserError as fault:
        raise UserError(f"{path} {fault}; do not use this file.") from None
    except Exception as error:
        raise UserError(f"{path} is damaged or no pickle of plain data ({type(error).__name__}: "
                        f"{shortened(str(error), 100)}); get the archive again.") from None
    check_nesting(value, path, MOST_VALUES)
    return value
