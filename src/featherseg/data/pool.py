"""Pooled sets: one prepared dataset made of others, so that a training regime is the name of a set.

The train and val rows are those of the sets to train on, the rows of every other split those of the sets to test on;
the two need not be the same, so that sets for testing only, another domain, and a domain that is left out are pools as
well. Every row keeps its id and the name of its dataset, so that scores are known by member.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from featherseg.config import PoolParams
from featherseg.core.errors import UserError
from featherseg.core.files import not_run_reason, refuse_own_source, write_not_run
from featherseg.core.locks import exclusive, lock_of
from featherseg.core.paths import PROCESSED
from featherseg.core.registry import unknown
from featherseg.data.card import About, summary, write_card
from featherseg.data.prepared import UNNAMED, PreparedWriter, Sample, read_samples

TRAINING = ("train", "val")


def pool_dataset(name: str, pools: dict[str, PoolParams]) -> None:
    """Write `data/processed/<name>` of its members there, or why they are not there; none is replaced meanwhile.

    Raises:
        UserError: no such pool, a member that is not prepared, has no row to give or is the pool itself, or ids that
            clash.
    """
    if name not in pools:
        raise unknown("pool in params.yaml: data.pooled", name, list(pools))
    pool, out_dir = pools[name], PROCESSED / name
    refuse_own_source(out_dir, *(PROCESSED / member for member in pool.members))
    with contextlib.ExitStack() as locks:
        for used in (name, *sorted(pool.members)):
            locks.enter_context(exclusive(lock_of("processed", used), f"Another process is preparing {used}."))
        _write(name, pool, out_dir)


def _write(name: str, pool: PoolParams, out_dir: Path) -> None:
    if reason := lacking(pool):
        write_not_run(out_dir, reason)
        print(f"not run: {reason}")
        return
    about = About(title=f"{name} (pooled)", source=_told(pool), licence="those of its members, as their cards say")
    with PreparedWriter(out_dir, dataset=name, finish=partial(write_card, about=about)) as writer:
        for sample, folder in _samples(name, pool):
            writer.take(sample, folder)
    print(summary(out_dir, name))


def lacking(pool: PoolParams) -> str | None:
    """Which members of a pool are missing, and why; None where all are there.

    Raises:
        UserError: a member was not prepared.
    """
    reasons: dict[str, list[str]] = {}
    for member in pool.members:
        if reason := not_run_reason(PROCESSED / member):
            reasons.setdefault(reason, []).append(member)
    return "; ".join(f"{', '.join(members)}: {reason}" for reason, members in reasons.items()) or None


def pool_faults(name: str, pool: PoolParams) -> list[str]:
    """What keeps a pool from being made of its members, as far as these are there; one sentence each."""
    members = {member for member in pool.members if (PROCESSED / member / "samples.parquet").is_file()}
    train = [member for member in pool.train if member in members]
    test = [member for member in pool.test if member in members]
    prepared = pool.model_copy(update={"train": train, "test": test})
    try:
        for _ in _samples(name, prepared):
            pass
    except UserError as error:
        return [str(error)]
    return []


def _samples(name: str, pool: PoolParams) -> Iterator[tuple[Sample, Path]]:
    """The rows of a pool with the folders that their files lie in, member by member.

    Raises:
        UserError: an id occurs in two members, or a member has no row for what it was named for.
    """
    owner: dict[str, str] = {}
    for member in pool.members:
        folder = PROCESSED / member
        counts: Counter[str] = Counter()
        for sample in read_samples(folder):
            trained = sample.split in TRAINING
            if sample.split == UNNAMED or member not in (pool.train if trained else pool.test):
                continue
            if (first := owner.setdefault(sample.sample_id, member)) != member:
                raise UserError(f"pool '{name}': sample id {sample.sample_id!r} is in '{first}' and in '{member}'; "
                                f"take one of the two out of data.pooled.{name}, or prepare it under its own name.")
            counts[sample.split if trained else "test"] += 1
            yield sample, folder
        for part, split in (("train", "train"), ("test", "test")):
            if member in getattr(pool, part) and not counts[split]:
                raise UserError(f"pool '{name}': its member '{member}' has no samples to {split}; "
                                f"take it out of data.pooled.{name}.{part}.")


def _told(pool: PoolParams) -> str:
    return f"train and val of {', '.join(pool.train)}; test of {', '.join(pool.test)}"
