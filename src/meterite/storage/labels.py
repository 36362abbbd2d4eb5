"""Which of a metric's series carry some labels: kept in memory by metric, and grown by what was made since.

Series are only ever added, with growing ids, so that a look at the table beyond the last id known suffices. A metric
that was deleted and made again is another metric, with another id.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.check import parse_labels
from meterite.storage.journal import driver

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meterite.model.columns import Labels, type_i64
    from meterite.model.metric import Metric

SERIES_KEPT: Final = 400_000


class _Known:
    """A metric's series by label: ids ascending."""

    __slots__ = ("by_pair", "count", "last")

    def __init__(self, last: int) -> None:
        self.last = last
        self.count = 0
        self.by_pair: dict[tuple[str, str], list[int]] = {}

    def learn(self, conn: Connection, metric_id: int) -> None:
        rows = driver(conn).execute(
            "SELECT id, labels FROM series WHERE metric = ? AND id > ? ORDER BY id", (metric_id, self.last)
        )
        for series, text in rows:
            for pair in parse_labels(text):
                self.by_pair.setdefault(pair, []).append(series)
            self.last = series
            self.count += 1

    def find(self, labels: Labels) -> list[int]:
        lists = sorted((self.by_pair.get(pair, []) for pair in labels), key=len)
        if len(lists) == 1:
            return list(lists[0])
        return sorted(set(lists[0]).intersection(*lists[1:]))


class LabelIndex:
    """Least recently asked metrics go first, once more than ``SERIES_KEPT`` series are kept."""

    def __init__(self) -> None:
        self._metrics: OrderedDict[int, _Known] = OrderedDict()
        self._guard = threading.Lock()

    def find(self, conn: Connection, metric: Metric, labels: Labels) -> type_i64:
        """Ids, ascending, of the metric's series that carry all of the labels (at least one is named)."""
        with self._guard:
            known = self._metrics.setdefault(metric.id, _Known(metric.series_first))
            self._metrics.move_to_end(metric.id)
            known.learn(conn, metric.id)
            while len(self._metrics) > 1 and sum(k.count for k in self._metrics.values()) > SERIES_KEPT:
                self._metrics.popitem(last=False)
            return np.array(known.find(labels), np.int64)
