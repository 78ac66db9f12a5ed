"""A process of its own for each measurement, so that its peak memory is its own."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from featherseg.core.errors import NotRun


def in_process(function: Callable, *arguments: Any, cache_dir: Path, loaded: tuple[str, ...] = ()) -> Any:
    """The result of `function(*arguments)` in a new process.

    Args:
        function: of a module that may be imported there.
        cache_dir: the process's cache folder.
        loaded: modules that the process should find imported. It is then forked from one that has done
            nothing else, since importing takes longer than most measurements. Not where a GPU is used.

    Raises:
        NotRun: the process was killed.
    """
    context = multiprocessing.get_context("forkserver" if loaded else "spawn")
    if loaded:
        context.set_forkserver_preload([__name__, *loaded])
    with ProcessPoolExecutor(1, context, _use_cache, (cache_dir,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise NotRun("the process was killed, most likely for lack of memory") from None


def _use_cache(cache_dir: Path) -> None:
    os.environ["FEATHERSEG_CACHE"] = str(cache_dir)
