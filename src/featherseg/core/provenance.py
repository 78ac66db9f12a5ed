"""Where a number came from: machine, versions, commit."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from featherseg import __version__
from featherseg.core.arithmetic import Arithmetic, arithmetic

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "numpy")


class Provenance(TypedDict):
    """Where a number came from.

    Attributes:
        hardware: the accelerator, or the processor.
        threads: of the processor, that torch uses.
        arithmetic: the instruction set, and what pins it.
        python, featherseg, versions: of the interpreter, this package and `LIBRARIES`.
        commit: `<hash>`, or `<hash>+changes` with changes on top; None outside of a repository.
    """

    hardware: str
    threads: int
    arithmetic: Arithmetic
    python: str
    featherseg: str
    versions: dict[str, str]
    commit: str | None


def provenance() -> Provenance:
    """Hardware, library versions and git commit of this process."""
    import torch

    return {"hardware": hardware(), "threads": torch.get_num_threads(), "arithmetic": arithmetic(),
            "python": platform.python_version(), "featherseg": __version__,
            "versions": {name: version(name) for name in LIBRARIES}, "commit": commit()}


def hardware() -> str:
    """The accelerator's name, or the processor's where there is none."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return processor()


def processor() -> str:
    """The processor's name with its number of cores in use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor_name()}, {cores} cores"


def commit() -> str | None:
    """Hash of the checked-out commit, `+changes` where tracked files differ from it, other than the pipeline's own."""
    head = git("rev-parse", "HEAD")
    made = (":(exclude)reports", ":(exclude,glob)**/dvc.lock")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *made)
    return head and head + ("+changes" if changed else "")


def peak_memory_mib() -> dict[str, int]:
    """Highest resident memory of this process so far, and of its accelerator, in MiB."""
    found = {"process": _peak_resident_mib()}
    torch = sys.modules.get("torch")  # before it is imported, nothing is on an accelerator
    if torch is not None and torch.cuda.is_available():
        found["accelerator"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def _peak_resident_mib() -> int:
    # Linux hands getrusage's value on from the process that started this one, so it comes second
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git(*arguments: str) -> str | None:
    """What a git command prints in the working directory; None where it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
