"""The first of many cases in `make test`, all of them in `make test-faults`."""

from collections.abc import Iterable

import pytest


def first_of(cases: Iterable, count: int) -> list:
    """The cases, of which those behind the first `count` are slow."""
    return [
        case if place < count else pytest.param(case, marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]
