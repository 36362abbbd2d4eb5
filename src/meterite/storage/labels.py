"""Which of a metric's series carry some labels: kept in memory by metric, and grown by what was made since.

Series are only ever added, with growing ids, so that a look at the table beyond the last id known suffices. A metric
that was deleted and made again is another metric, with another id.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.check import parse_labels
from meterite.storage.journal import driver

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meterite.model.columns import Labels, type_i64
    from meterite.model.metric import Metric

BYTES_KEPT: Final = 64 << 20
_PAIR_BYTES: Final = 260
"""Of memory for a label that is met for the first time, beside its letters: texts, tuple, array, place in the dict."""
_PLACE_BYTES: Final = 10
"""For a series that carries it: an id, and the room that an array leaves to grow."""


class _Known:
    """A metric's series by label: ids ascending."""

    __slots__ = ("by_pair", "last", "nbytes")

    def __init__(self, last: int) -> None:
        self.last = last
        self.nbytes = 0
        self.by_pair: dict[tuple[str, str], array[int]] = {}

    def learn(self, conn: Connection, metric_id: int) -> None:
        rows = driver(conn).execute(
            "SELECT id, labels FROM series WHERE metric = ? AND id > ? ORDER BY id", (metric_id, self.last)
        )
        for series, text in rows:
            for pair in parse_labels(text):
                ids = self.by_pair.get(pair)
                if ids is None:
                    ids = self.by_pair[pair] = array("q")
                    self.nbytes += _PAIR_BYTES + 4 * (len(pair[0]) + len(pair[1]))
                ids.append(series)
                self.nbytes += _PLACE_BYTES
            self.last = series

    def find(self, labels: Labels) -> type_i64:
        columns = [np.array(self.by_pair.get(pair, ()), np.int64) for pair in labels]
        columns.sort(key=len)
        found = columns[0]
        for other in columns[1:]:
            found = np.intersect1d(found, other, assume_unique=True)
        return found


class LabelIndex:
    """Least recently asked metrics go first, once more than ``BYTES_KEPT`` are kept; the one at hand stays."""

    def __init__(self) -> None:
        self._metrics: OrderedDict[int, _Known] = OrderedDict()
        self.nbytes = 0
        self._guard = threading.Lock()

    def find(self, conn: Connection, metric: Metric, labels: Labels) -> type_i64:
        """Ids, ascending, of the metric's series that carry all of the labels (at least one is named)."""
        with self._guard:
            known = self._metrics.setdefault(metric.id, _Known(metric.series_first))
            self._metrics.move_to_end(metric.id)
            before = known.nbytes
            known.learn(conn, metric.id)
            self.nbytes += known.nbytes - before
            while len(self._metrics) > 1 and self.nbytes > BYTES_KEPT:
                _, gone = self._metrics.popitem(last=False)
                self.nbytes -= gone.nbytes
            return known.find(labels)
