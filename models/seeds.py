"""Where the seeds of initializers and dropout come from."""

import itertools
from collections.abc import Iterator

import numpy as np


def seeds(seed: int) -> Iterator[int]:
    """Derives an endless sequence of distinct seeds from one.

    Every initializer and every `Dropout` takes the next one. A layer left without a seed draws it
    from Python's global `random`, which anything may have moved before (a background thread, a
    library), and two initializers given the *same* seed draw the same numbers. Here the `k`-th
    seed is a hash of `(seed, k)` (`numpy.random.SeedSequence`, fixed by NumPy across versions
    and platforms), so it depends on nothing else.

    Args:
        seed: Non-negative integer.

    Yields:
        Integers in `[0, 2**31)`, no two alike.

    Raises:
        ValueError: If `seed` is negative.

    Example:
    >>> first, again = seeds(0), seeds(0)
    >>> [next(first) for _ in range(3)] == [next(again) for _ in range(3)]
    True
    >>> next(seeds(0)) == next(seeds(1))
    False
    """
    if seed < 0:
        raise ValueError(f"`seed` must not be negative. Received: seed={seed}")
    drawn = set()
    for k in itertools.count():
        value = int(np.random.SeedSequence([seed, k]).generate_state(1)[0] >> 1)
        if value not in drawn:
            drawn.add(value)
            yield value
