"""One rule for everything that is drawn: a generator of its own for each thing, from names alone."""

import random


def rng_of(*names: object) -> random.Random:
    """A generator of its own for each sequence of names, the same in every process and on every machine.

    Example:
        prompt = rng_of(seed, epoch, sample_id).choice(prompts)
    """
    return random.Random("/".join(map(str, names)))
