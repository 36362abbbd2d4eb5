"""Work in steps, between which others have their turn.

What takes long is a generator: it stops where it holds nothing that others wait for, and yields for how many seconds
it has nothing to do; 0 where it could go on. Who closes it early ends it there, with all that it holds let go.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Steps: TypeAlias = Generator[float, None, T]


def run_through(steps: Steps[T]) -> T:
    """All of it, one step after the other; blocks."""
    while True:
        try:
            pause_s = next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        if pause_s:
            time.sleep(pause_s)
