"""Reading a pickle that somebody else made, without running anything in it."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from featherseg.errors import UserError

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


class _PlainUnpickler(pickle._Unpickler):
    """Python's own unpickler in Python, because in that one the instructions are a table from which those that make
    objects can be left out, and a damaged number cannot make it allocate memory.
    """

    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in (*_PLAIN, *_NAMES)}

    def find_class(self, module: str, name: str) -> NoReturn:
        raise UserError(f"names {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """Content of a pickle of any protocol that holds dict, list, tuple, text, bytes, numbers and None only.

    Byte strings of Python 2 become text, read as UTF-8.

    Raises:
        UserError: the file is absent or damaged, or names a class or function.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; get the archive again.") from None
    try:
        return _PlainUnpickler(io.BytesIO(content), encoding="utf-8", errors="replace").load()
    except UserError as found:
        raise UserError(f"{path} {found}, but a pickle of plain data needs no code; nothing of it was run, do not use "
                        "this file.") from None
    except Exception as error:
        raise UserError(f"{path} is damaged or no pickle of plain data ({type(error).__name__}: {error}); "
                        "get the archive again.") from None
