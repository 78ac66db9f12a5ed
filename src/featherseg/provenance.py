"""Where a number came from: machine, versions, commit."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from featherseg import __version__

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "numpy")


def provenance() -> dict[str, Any]:
    """Hardware, library versions and git commit of this process; `commit` is None outside of a repository.

    A commit with changes on top reads `<hash>+changes`.
    """
    return {"hardware": hardware(), "threads": torch.get_num_threads(), "python": platform.python_version(),
            "featherseg": __version__, "versions": {name: version(name) for name in LIBRARIES},
            "commit": commit()}


def hardware() -> str:
    """The accelerator's name, or the processor's with its number of cores in use."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def commit() -> str | None:
    """Hash of the checked-out commit, `+changes` where tracked files differ from it."""
    head = _git("rev-parse", "HEAD")
    return head and head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def peak_memory_mib() -> dict[str, int]:
    """Highest resident memory of this process so far, and of its accelerator, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    found = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit}
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
