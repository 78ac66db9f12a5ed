"""Arithmetic that does not depend on what a processor could do: instruction sets, reduction orders and threads.

PyTorch, oneDNN and MKL choose their code by the processor's instructions, and divide sums by the number of threads;
both change the last digits. They read the environment when they are loaded, so it is set before torch is imported.
"""

import os
import sys
from typing import TypedDict

from featherseg.core.errors import UserError

SWITCH = "FEATHERSEG_PINNED"
THREADS = "2"  # those of the committed results
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2,STRICT",  # AUTO,STRICT on processors that are not Intel's, where MKL has no other strict branch
    "MKL_DYNAMIC": "FALSE",
    "OMP_DYNAMIC": "FALSE",
    "OMP_NUM_THREADS": THREADS,
    "MKL_NUM_THREADS": THREADS,
}


class Arithmetic(TypedDict):
    """What the digits of a run depend on beside its code.

    Attributes:
        instructions: the instruction set that PyTorch's own code uses, such as `AVX2`.
        pinned: the settings of `PINNED` where they were set, else none.
    """

    instructions: str
    pinned: dict[str, str]


def pin() -> None:
    """Set `PINNED` in the environment of this process and of those that it starts, where FEATHERSEG_PINNED is 1.

    Raises:
        UserError: the switch has another value than 0 and 1, or torch is imported already with other settings.
    """
    if not _is_pinned():
        return
    set_already = all(os.environ.get(name) == value for name, value in PINNED.items())
    if "torch" in sys.modules and not set_already:
        raise UserError(f"{SWITCH}=1 comes too late: torch is imported already and has chosen its code; start a new "
                        "process.")
    os.environ.update(PINNED)


def arithmetic() -> Arithmetic:
    """The instruction set in use, and the settings that pin it."""
    import torch

    return {"instructions": torch.backends.cpu.get_cpu_capability(), "pinned": dict(PINNED) if _is_pinned() else {}}


def _is_pinned() -> bool:
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", "1"):
        raise UserError(f"{SWITCH} is '{value}'; valid values are 0 and 1.")
    return value == "1"
