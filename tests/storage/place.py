"""Where a database of a backend's lies, and short ways to write to a store and to read it.

Nothing here knows a backend: stores come from a :class:`Place` and are used by ``storage/interface.py`` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from meterite.model.columns import Batch
from meterite.model.errors import DamagedError
from meterite.storage.interface import Append, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meterite.model.metric import MetricState
    from meterite.storage.interface import Compaction, Store, View

YEAR_2030 = 1_893_456_000_000_000
DAY = 86_400_000_000
INT64 = np.iinfo(np.int64)
EVERYTHING = Span(INT64.min, INT64.max, INT64.min, INT64.max)
AT = YEAR_2030 - 100 * DAY


class Place(ABC):
    """Where one database lies: all that the tests need of a backend beside its stores."""

    ways: Sequence[str]
    """Names of ways to compact. Of all backends: "everything", which takes what there is, however new."""

    @abstractmethod
    def store(self, clock: Callable[[], int]) -> Store:
        """A store on it, to be opened. Several at a time are several workers."""

    @abstractmethod
    def compaction(self, store: Store, way: str = "everything") -> Compaction:
        """A compaction of the store's."""

    @abstractmethod
    def damage(self, org_id: int) -> None:
        """Spoil one stored piece of the org's readings; no store is open."""

    @abstractmethod
    def faults(self) -> list[str]:
        """Sentences: what a check of all that is stored finds."""


def to_the_end(compaction: Compaction) -> None:
    """All steps."""
    assert any(not compaction.run_once() for _ in range(1000))
    compaction.close()


def batch_of(rows: Sequence[tuple[int, int, float]]) -> Batch:
    """Of (series id, at, value), in their order."""
    ids, at_us, values = zip(*rows, strict=True)
    series, index = np.unique(np.array(ids, np.int64), return_inverse=True)
    return Batch(series, index.astype(np.uint32), np.array(at_us, np.int64), np.array(values, np.float64))


def version_of(store: Store) -> int:
    """The catalogue's, now."""
    return store.catalog.changed(0)[0]


def scan(view: View, span: Span = EVERYTHING) -> list[tuple[int, int, float]]:
    columns = [(c.series.tolist(), c.at_us.tolist(), c.values.tolist()) for c in view.scan(span)]
    return [row for c in columns for row in zip(*c, strict=True)]


def read(store: Store, org_id: int, span: Span = EVERYTHING) -> list[tuple[int, int, float]]:
    with closing(store.view(org_id)) as view:
        return scan(view, span)


def read_around_damage(store: Store, org_id: int) -> tuple[list[tuple[int, int, float]], list[str]]:
    """The readings, and the sentences about gaps, as a reader sees them who tries again after a new damage."""
    for _ in range(20):
        with closing(store.view(org_id)) as view:
            try:
                return scan(view), view.gaps(EVERYTHING)
            except DamagedError:
                continue
    raise AssertionError


class Clock:
    """A second later each time it is read; it may be set."""

    def __init__(self) -> None:
        self.now_us = YEAR_2030

    def __call__(self) -> int:
        self.now_us += 1_000_000
        return self.now_us


def push(store: Store, org_id: int, *rows: tuple[int, int, float], compare: bool = False) -> Append:
    """One commit of (series id, at, value)."""
    append = Append(org_id, version_of(store), batch_of(rows), compare=compare)
    store.commit([append])
    assert append.error is None
    return append


def state_of(store: Store, org_id: int, metric_id: int) -> MetricState:
    (state,) = store.states(org_id, np.array([metric_id], np.int64))
    return state
