"""Sorted inputs become one sorted, resolved stream of chunks, in bounded memory.

An input is a list of pieces in the order of their keys (series, at), each loaded when its turn comes; pieces of one
input don't overlap. A piece that no other input overlaps passes through as it is. Used by reading and by compaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meterite.model.columns import Columns
from meterite.storage.resolve import Policies, resolve
from meterite.storage.tombstones import mask_erased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meterite.storage.tombstones import Tombstones

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Readings sorted by (series, at): the keys of the first and the last one, and how to get them."""

    first: Key
    last: Key
    load: Callable[[], Columns]


class _Input:
    """One list of pieces, and where in it we are."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._next = 0
        self._rest: Columns | None = None

    @property
    def done(self) -> bool:
        return self._rest is None and self._next >= len(self._pieces)

    @property
    def first(self) -> Key:
        if self._rest is not None:
            return int(self._rest.series[0]), int(self._rest.at_us[0])
        return self._pieces[self._next].first

    @property
    def last(self) -> Key:
        """The last key of the piece at hand."""
        if self._rest is not None:
            return int(self._rest.series[-1]), int(self._rest.at_us[-1])
        return self._pieces[self._next].last

    def take_all(self) -> Columns:
        """The piece at hand, to its end."""
        columns, self._rest = self._rest, None
        if columns is None:
            columns = self._pieces[self._next].load()
            self._next += 1
        return columns

    @property
    def runs_on(self) -> bool:
        """Whether the next piece begins with the key with which the piece at hand ends (a very frequent key)."""
        after = self._next + (self._rest is None)
        return after < len(self._pieces) and self._pieces[after].first == self.last

    def take_until(self, key: Key) -> list[Columns]:
        """The rows from the piece at hand on, up to and including ``key``."""
        parts = []
        while not self.done and self.first <= key:
            columns = self.take_all()
            place = _rows_until(columns, key)
            if place < len(columns):
                self._rest = columns.take(slice(place, None))
            parts.append(columns.take(slice(0, place)))
        return parts


def _rows_until(columns: Columns, key: Key) -> int:
    series, at_us = key
    low = int(columns.series.searchsorted(series, "left"))
    high = int(columns.series.searchsorted(series, "right"))
    return low + int(columns.at_us[low:high].searchsorted(at_us, "right"))


def merge(
    inputs: Sequence[Sequence[Piece]],
    policies: Policies,
    tombstones: Tombstones,
    *,
    complete: bool = True,
) -> Iterator[Columns]:
    """Chunks in the order of (series, at), erased rows left out, equal keys resolved. Never an empty chunk."""
    waiting = [i for i in (_Input(pieces) for pieces in inputs) if not i.done]
    while waiting:
        waiting.sort(key=lambda i: i.first)
        head = waiting[0]
        if (len(waiting) == 1 or head.last < waiting[1].first) and not head.runs_on:
            chunk = head.take_all()
        else:
            until = min(i.last for i in waiting if i.first <= head.last)
            chunk = Columns.concat([part for i in waiting for part in i.take_until(until)])
        chunk = resolve(mask_erased(chunk, tombstones), policies, complete=complete)
        if len(chunk):
            yield chunk
        waiting = [i for i in waiting if not i.done]


def sorted_piece(columns: Columns) -> list[Piece]:
    """One input of columns that are in memory and sorted by (series, at)."""
    if not len(columns):
        return []
    first = int(columns.series[0]), int(columns.at_us[0])
    last = int(columns.series[-1]), int(columns.at_us[-1])
    return [Piece(first, last, lambda: columns)]


def sort_unresolved(columns: Columns) -> Columns:
    """Sorted by (series, at, seq), equal keys kept, their order of arrival too."""
    order = np.lexsort((columns.seq, columns.at_us, columns.series))
    return columns.take(order)
