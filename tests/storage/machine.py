"""A store and a plain dict that is told the same things; used by the tests of compaction and maintenance."""

from __future__ import annotations

import itertools
import math
import shutil
from dataclasses import dataclass, field

import numpy as np

from meterite.model.columns import Batch
from meterite.model.metric import ConflictPolicy, Metric, MetricSpec
from meterite.storage.interface import Append
from meterite.storage.state import everything
from meterite.storage.store import SqliteStore

YEAR_2030 = 1_893_456_000_000_000
DAY = 86_400_000_000
HOSTS = ((), (("host", "a"),), (("host", "b"),))


def combined(policy: ConflictPolicy, old: float, new: float) -> float:
    if math.isnan(new) or math.isnan(old):
        return old if math.isnan(new) else new
    match policy:
        case ConflictPolicy.LAST:
            return new
        case ConflictPolicy.FIRST:
            return old
        case ConflictPolicy.MIN:
            return min(old, new)
        case ConflictPolicy.MAX:
            return max(old, new)
        case ConflictPolicy.SUM:
            return old + new


@dataclass
class Known:
    """A metric as the dict knows it."""

    metric: Metric
    series: list[int]
    readings: dict[tuple[int, int], float] = field(default_factory=dict)

    def newest(self) -> list[tuple[int, float]]:
        finite = sorted(
            ((at, series, v) for (series, at), v in self.readings.items() if math.isfinite(v)), reverse=True
        )
        return [(at, value) for at, _, value in finite[:2]]


class Pair:
    """The store on a file, and the dict."""

    def __init__(self, path, template=None):
        self.path = path
        if template is not None:
            shutil.copy(template, path)
        self.ticks = itertools.count(YEAR_2030, 1_000_000)
        self.others: list[SqliteStore] = []
        self.store = self.opened()
        self.recorded = set()
        self.org_ids = {name: self.store.catalog.org_id(name) for name in ("here", "there")}
        self.known: dict[tuple[str, str], Known] = {}

    def opened(self) -> SqliteStore:
        store = SqliteStore(self.path, clock=lambda: next(self.ticks))
        store.open()
        return store

    def restart(self) -> None:
        self.store.close()
        self.store = self.opened()

    def switch(self) -> None:
        """To another worker, one that has everything yet to read."""
        self.others.append(self.store)
        self.store = self.opened()

    def close(self) -> None:
        for store in (self.store, *self.others):
            store.close()

    def create(self, org: str, policy: ConflictPolicy) -> None:
        code = policy.value
        metric = self.store.catalog.create(org, MetricSpec(code=code, name=code, on_conflict=policy))
        series = self.store.catalog.series(self.org_ids[org], metric, HOSTS)
        self.known[org, code] = Known(metric, series)

    def delete(self, org: str, code: str) -> None:
        self.store.catalog.set_active(org, code, active=False)
        self.store.catalog.delete(org, code)
        self.create(org, self.known.pop((org, code)).metric.spec.on_conflict)

    def push(self, rows: list[tuple[str, str, int, int, float]]) -> None:
        """One commit of (org, code, number of the series, at, value)."""
        appends = []
        for org, mine in itertools.groupby(sorted(rows, key=lambda r: r[0]), key=lambda r: r[0]):
            ids, at_us, values = [], [], []
            for _, code, number, at, value in mine:
                known = self.known[org, code]
                key = known.series[number], at
                old = known.readings.get(key)
                policy = known.metric.spec.on_conflict
                known.readings[key] = value if old is None else combined(policy, old, value)
                ids.append(key[0])
                at_us.append(at)
                values.append(value)
            series, index = np.unique(np.array(ids, np.int64), return_inverse=True)
            batch = Batch(series, index.astype(np.uint32), np.array(at_us, np.int64), np.array(values))
            version, _ = self.store.catalog.changed(0)
            appends.append(Append(self.org_ids[org], version, batch))
        self.store.commit(appends)
        for append in appends:
            assert append.error is None
            self.recorded.add(append.recorded_at_us)

    def erase(self, org: str, code: str, first: int, last: int, number: int | None) -> None:
        known = self.known[org, code]
        labels = () if number is None else HOSTS[number]
        hidden = [s for s, host in zip(known.series, HOSTS, strict=True) if set(labels) <= set(host)]
        known.readings = {
            key: value
            for key, value in known.readings.items()
            if key[0] not in hidden or not first <= key[1] <= last
        }
        self.store.erase(self.org_ids[org], known.metric, first, last, labels)

    def check(self) -> None:
        """All that was told is there, and nothing else; current and last, too."""
        for org, org_id in self.org_ids.items():
            expected = {}
            mine = [known for (name, _), known in self.known.items() if name == org]
            for known in mine:
                expected |= known.readings
            view = self.store.view(org_id)
            try:
                chunks = list(view.scan(everything()))
                found = [
                    ((s, t), v)
                    for c in chunks
                    for s, t, v in zip(c.series.tolist(), c.at_us.tolist(), c.values.tolist(), strict=True)
                ]
                seqs = np.concatenate([c.seq for c in chunks]) if chunks else np.empty(0, np.int64)
                recorded = view.recorded_at(seqs) if len(seqs) else seqs
            finally:
                view.close()
            assert repr(found) == repr(sorted(expected.items()))
            assert set(recorded.tolist()) <= self.recorded
            states = self.store.states(org_id, np.array([k.metric.id for k in mine], np.int64))
            for known, state in zip(mine, states, strict=True):
                points = [(p.at_us, p.value) for p in (state.current, state.last) if p is not None]
                assert repr(points) == repr(known.newest()), known.metric.code
