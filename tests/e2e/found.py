"""What clients were told, what is there, and whether the two agree.

Guaranteed by :func:`judge`: each acknowledged reading is there once, with its value, its time and its time of
recording; no request is half there; nothing is there that nobody sent, or that was erased; each metric's current and
last reading are those of its readings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True)
class Told:
    """Row i is a request: its readings have the numbers ``first[i]`` and following, ``count[i]`` of them.

    ``places[number]`` is the metric's place in ``codes``; ``given`` has (number, time) of those with a single answer.
    ``own_time`` is the place of the metric whose times the server gives.
    """

    codes: tuple[str, ...]
    places: Any
    own_time: int
    begin_us: int
    first: Any
    count: Any
    acknowledged: Any
    recorded_us: Any
    erase: Any
    given: Any
    made: set[str]


@dataclass(slots=True)
class Found:
    """Readings as columns, a part for each call of :meth:`add`; newest two (µs, number) of each metric."""

    metrics: set[str] = field(default_factory=set)
    states: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    parts: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, place, numbers, at_us, recorded_us):
        """``recorded_us`` of 0 is not known."""
        self.parts.append((np.full(len(numbers), place, np.int64), numbers, at_us, recorded_us))


def judge(found, told):
    places, numbers, at_us, recorded_us = (
        np.concatenate([part[n] for part in found.parts] or [np.zeros(0, np.int64)]) for n in range(4)
    )
    end = len(told.places)
    none(numbers[(numbers < 1) | (numbers >= end)], "sent by nobody")
    none(numbers[told.places[numbers] != places], "in another metric")
    times = np.bincount(numbers, minlength=end)
    none(np.flatnonzero(times > 1), "there more than once")
    by_clock = places == told.own_time
    none(numbers[~by_clock & (at_us != told.begin_us + numbers)], "at another time")
    requests(times, told)
    recorded(numbers, at_us, recorded_us, told)
    states(found, told, places, numbers, at_us)
    assert told.made <= found.metrics, f"metrics lost: {told.made - found.metrics}"


def none(numbers, what):
    assert not len(numbers), f"{what}: {len(numbers)} readings, numbers {numbers[:10].tolist()}"


def requests(times, told):
    """Whole or not at all."""
    before = np.concatenate(([0], np.cumsum(times)))
    there = before[told.first + told.count] - before[told.first]
    none(told.first[(there != 0) & (there != told.count)], "half there")
    none(told.first[told.acknowledged & (told.erase == 0) & (there != told.count)], "acknowledged and lost")
    none(told.first[(told.erase == 2) & (there != 0)], "erased and there")


def recorded(numbers, at_us, recorded_us, told):
    """As the answers said."""
    for column, numbers_told, values in (
        (recorded_us, *_spread(told)),
        (at_us, told.given[:, 0], told.given[:, 1]),
    ):
        is_at = np.zeros(len(told.places), np.int64)
        is_at[numbers] = column
        is_at = is_at[numbers_told]
        none(numbers_told[(is_at != 0) & (is_at != values)], "with another time than it was answered")


def _spread(told):
    """(number, time of recording) of each reading of the answered requests."""
    known = told.recorded_us != 0
    counts = told.count[known]
    starts = np.cumsum(counts) - counts
    numbers = np.arange(counts.sum()) - np.repeat(starts, counts) + np.repeat(told.first[known], counts)
    return numbers, np.repeat(told.recorded_us[known], counts)


def states(found, told, places, numbers, at_us):
    """Current and last are the two newest."""
    order = np.lexsort((at_us, places))
    ends = np.searchsorted(places[order], np.arange(len(told.codes)), "right")
    starts = np.searchsorted(places[order], np.arange(len(told.codes)), "left")
    for code, start, end in zip(told.codes, starts.tolist(), ends.tolist(), strict=True):
        newest = order[max(start, end - 2) : end][::-1]
        expected = list(zip(at_us[newest].tolist(), numbers[newest].tolist(), strict=True))
        assert found.states[code] == expected, (
            f"{code}'s current and last are {found.states[code]}, not {expected}"
        )
