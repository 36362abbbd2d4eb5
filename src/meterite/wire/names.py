"""Names of series by what they were written as, kept from request to request.

What this file guarantees: what is kept makes the next request faster and changes nothing of what it says, and dropping
it is always right. Equal names are one object, whatever they were written as and in whatever format, until what is kept
costs more than ``bytes_max``: then all of it is dropped, and only the requests that are under way hold on to it. So
within a request names can be told apart without looking into them. Nothing here says whose a name is. Several threads
may decode at a time.

What is kept costs what Python says that it occupies, and what dictionaries take for it at most.
"""

from __future__ import annotations

from sys import getsizeof
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from meterite.model.columns import SeriesKey

    Kept = Mapping[Hashable, SeriesKey]

NAMES_BYTES_MAX: Final = 128 * 1024 * 1024
"""About 130,000 series with three labels. Who sends more of them in turn finds none of them known."""

_ENTRY_BYTES: Final = 110
"""Of a dictionary that has just grown."""
_CONTEXT_BYTES: Final = 450
"""A dictionary with one entry, and its place."""


class Names:
    """Those of a process."""

    def __init__(self, bytes_max: int = NAMES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._known = Known(self)

    def known(self) -> Known:
        """To be asked for once in a request."""
        return self._known

    def drop_if_full(self, known: Known) -> None:
        if known.size > self._bytes_max and known is self._known:
            self._known = Known(self)


class Known:
    """What a request may know, and adds to."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = Lock()
        self._one: dict[SeriesKey, SeriesKey] = {}
        self._within: dict[Hashable, dict[Hashable, SeriesKey]] = {}
        self.size = 0

    def within(self, context: Hashable) -> Kept:
        """Names by what they were written as, where all else that their meaning depends on is the context."""
        kept = self._within.get(context)
        if kept is None:
            with self._lock:
                kept = self._within.setdefault(context, {})
                self.size += _CONTEXT_BYTES + _size(context)
            self._names.drop_if_full(self)
        return kept

    def keep(self, context: Hashable, raw: Hashable, key: SeriesKey) -> SeriesKey:
        """The object that stands for a name, known by ``raw`` in the context from now on."""
        self.within(context)
        with self._lock:
            one, kept = self._stand_for(key), self._within[context]
            if raw not in kept:
                kept[raw] = one
                self.size += _ENTRY_BYTES + _size(raw)
        self._names.drop_if_full(self)
        return one

    def one(self, key: SeriesKey) -> SeriesKey:
        """The object that stands for a name."""
        with self._lock:
            one = self._stand_for(key)
        self._names.drop_if_full(self)
        return one

    def _stand_for(self, key: SeriesKey) -> SeriesKey:
        one = self._one.setdefault(key, key)
        if one is key:
            self.size += _ENTRY_BYTES + getsizeof(key) + getsizeof(key.code) + _size(key.labels)
        return one


def _size(written: object) -> int:
    """In bytes, what it consists of included."""
    size = getsizeof(written)
    return size + sum(map(_size, written)) if isinstance(written, tuple) else size
