"""When to try again: pure, on a clock and a source of chance that are given.

What this file guarantees: the first retry comes within :data:`FIRST_S`; a receiver that fails now and then opens no
breaker; one that fails always is asked once per pause, and the pauses end at :data:`PAUSE_LAST_S`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

FIRST_S: Final = 3.0
"""Five were promised: looking for what is due, and the try itself, take some."""
LAST_S: Final = 900.0
RETRY_AFTER_LAST_S: Final = 86400.0
_DOUBLINGS: Final = 20
_JITTER: Final = 0.1

FAILURES_IN_A_ROW: Final = 10
FAILURES_SHARE: Final = 0.5
WINDOW: Final = 100
WINDOW_S: Final = 60.0
PAUSE_FIRST_S: Final = 1.0
PAUSE_LAST_S: Final = 60.0


def delay_s(attempts: int, random: Random, after_s: float | None = None) -> float:
    """How long to wait after so many tries (1 and more): exponential with full jitter.

    What the receiver asked for is waited for at least, and a little more, so that not all come back at once.
    """
    backoff = random.uniform(0, min(LAST_S, FIRST_S * 2 ** min(attempts - 1, _DOUBLINGS)))
    if after_s is None:
        return backoff
    asked = min(after_s, RETRY_AFTER_LAST_S)
    return max(backoff, asked + random.uniform(0, asked * _JITTER))


class Breaker:
    """Opens after :data:`FAILURES_IN_A_ROW` failures, more than half of the recent tries; then lets one try through."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._recent: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        self._row = 0
        self._pauses = 0
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Also while a single try is let through."""
        return self._open_until is not None

    def allows(self, now_s: float, in_flight: int) -> int | None:
        """How many tries may begin: 0, 1 or (None) as many as there is room for."""
        if self._open_until is None:
            return None
        return int(now_s >= self._open_until and not in_flight)

    def wakes_in_s(self, now_s: float) -> float | None:
        """When it will let a try through; None where it lets all through."""
        return None if self._open_until is None else max(0.0, self._open_until - now_s)

    def success(self, now_s: float) -> bool:
        """Answers whether this closed it."""
        self._recent.append((now_s, True))
        self._row = 0
        closed = self._open_until is not None
        self._open_until = None
        self._pauses = 0
        return closed

    def failure(self, now_s: float) -> bool:
        """Answers whether this opened it."""
        self._recent.append((now_s, False))
        self._row += 1
        if self._open_until is not None:
            if now_s >= self._open_until:  # the one try; those that were under way before don't count
                self._pause(now_s)
            return False
        while self._recent and self._recent[0][0] < now_s - WINDOW_S:
            self._recent.popleft()
        failures = sum(not good for _, good in self._recent)
        if min(self._row, failures) < FAILURES_IN_A_ROW or failures <= FAILURES_SHARE * len(self._recent):
            return False
        self._pause(now_s)
        return True

    def _pause(self, now_s: float) -> None:
        length = min(PAUSE_LAST_S, PAUSE_FIRST_S * 2**self._pauses)
        self._pauses = min(self._pauses + 1, _DOUBLINGS)
        self._open_until = now_s + length * self._random.uniform(0.5, 1.0)
