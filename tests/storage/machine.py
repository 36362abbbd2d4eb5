"""A store and a plain dict that is told the same things, and a machine that tells them anything.

Neither knows a backend: see ``place.py``.
"""

from __future__ import annotations

import itertools
import math
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meterite.model.metric import ConflictPolicy, Metric, MetricSpec
from meterite.storage.interface import Append
from storage.place import DAY, EVERYTHING, YEAR_2030, batch_of, version_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from meterite.storage.interface import Store
    from storage.place import Place

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
            return old + new if math.isfinite(old) else old


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
    """The store at a place, and the dict."""

    def __init__(self, place: Place):
        self.place = place
        self.ticks = itertools.count(YEAR_2030, 1_000_000)
        self.others: list[Store] = []
        self.store = self.opened()
        self.recorded = set()
        self.org_ids = {name: self.store.catalog.org_id(name) for name in ("here", "there")}
        self.known: dict[tuple[str, str], Known] = {}

    def opened(self) -> Store:
        store = self.place.store(lambda: next(self.ticks))
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
        version = version_of(self.store)
        for org, mine in itertools.groupby(sorted(rows, key=lambda r: r[0]), key=lambda r: r[0]):
            resolved = []
            for _, code, number, at, value in mine:
                known = self.known[org, code]
                key = known.series[number], at
                old = known.readings.get(key)
                policy = known.metric.spec.on_conflict
                known.readings[key] = value if old is None else combined(policy, old, value)
                resolved.append((*key, value))
            appends.append(Append(self.org_ids[org], version, batch_of(resolved)))
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
            with closing(self.store.view(org_id)) as view:
                chunks = list(view.scan(EVERYTHING))
                found = [
                    ((s, t), v)
                    for c in chunks
                    for s, t, v in zip(c.series.tolist(), c.at_us.tolist(), c.values.tolist(), strict=True)
                ]
                seqs = np.concatenate([c.seq for c in chunks]) if chunks else np.empty(0, np.int64)
                recorded = view.recorded_at(seqs) if len(seqs) else seqs
            assert repr(found) == repr(sorted(expected.items()))
            assert set(recorded.tolist()) <= self.recorded
            states = self.store.states(org_id, np.array([k.metric.id for k in mine], np.int64))
            for known, state in zip(mine, states, strict=True):
                points = [(p.at_us, p.value) for p in (state.current, state.last) if p is not None]
                assert repr(points) == repr(known.newest()), known.metric.code


def filled(place: Place) -> Pair:
    """Two orgs, five metrics, four months, some erased; nothing compacted."""
    pair = Pair(place)
    for org in ("here", "there"):
        for policy in ConflictPolicy:
            pair.create(org, policy)
    rng = np.random.default_rng(3)
    codes = [policy.value for policy in ConflictPolicy]
    for _ in range(30):
        pair.push(
            [
                (
                    ("here", "there")[rng.integers(2)],
                    codes[rng.integers(5)],
                    int(rng.integers(3)),
                    YEAR_2030 - int(rng.integers(100)) * DAY,
                    float(np.round(rng.normal(20, 5), 2)),
                )
                for _ in range(20)
            ]
        )
    pair.erase("here", "sum", YEAR_2030 - 30 * DAY, YEAR_2030, None)
    pair.erase("there", "min", YEAR_2030 - 60 * DAY, YEAR_2030, 1)
    pair.check()
    return pair


CODES = [policy.value for policy in ConflictPolicy]
orgs = st.sampled_from(["here", "there"])
codes = st.sampled_from(CODES)
numbers = st.integers(0, len(HOSTS) - 1)
MONTHS = (-800 * DAY * 30, YEAR_2030 - 70 * DAY, YEAR_2030 + 3 * DAY)
times = st.builds(lambda base, n: base + n * 1000, st.sampled_from(MONTHS), st.integers(0, 2))
values = st.sampled_from([0.1, 0.7, 1e16, -3.3, 1.7e308, math.nan, math.inf, -math.inf])
rows = st.tuples(orgs, codes, numbers, times, values)
ways = st.runner().flatmap(lambda machine: st.sampled_from(machine.pair.place.ways))


class StoreAgainstDict(RuleBasedStateMachine):
    """Any sequence of writes, deletes, restarts and steps of compaction leaves what a dict would hold.

    A backend may add rules.
    """

    def __init__(self, new_place: Callable[[], AbstractContextManager[Place]]):
        super().__init__()
        self.stack = ExitStack()
        self.pair = Pair(self.stack.enter_context(new_place()))
        for org in ("here", "there"):
            for policy in ConflictPolicy:
                self.pair.create(org, policy)
        self.compactions = {}

    def compaction(self, way):
        if way not in self.compactions:
            self.compactions[way] = self.pair.place.compaction(self.pair.store, way)
        return self.compactions[way]

    def drop_compactions(self):
        for compaction in self.compactions.values():
            compaction.close()
        self.compactions = {}

    @rule(rows=st.lists(rows, min_size=1, max_size=8))
    def push(self, rows):
        self.pair.push(rows)

    @rule(
        code=st.sampled_from([*CODES, "sum", "sum"]),
        commits=st.lists(st.lists(st.tuples(times, values), min_size=1, max_size=4), min_size=1, max_size=3),
    )
    def pile(self, code, commits):
        """Many readings of one series, many of them at one time."""
        for readings in commits:
            self.pair.push([("here", code, 0, at, value) for at, value in readings])

    @rule(
        org=orgs, code=codes, at=times, span=st.sampled_from([0, 2000, DAY * 40]), number=st.none() | numbers
    )
    def erase(self, org, code, at, span, number):
        self.pair.erase(org, code, at, at + span, number)

    @rule(org=orgs, code=codes)
    def delete(self, org, code):
        self.pair.delete(org, code)

    @rule(way=ways, steps=st.integers(1, 6))
    def compact(self, way, steps):
        for _ in range(steps):
            self.compaction(way).run_once()

    @rule(way=ways)
    def compact_to_the_end(self, way):
        assert any(not self.compaction(way).run_once() for _ in range(1000))

    @rule()
    def restart(self):
        self.drop_compactions()
        self.pair.restart()

    @rule()
    def forget(self):
        """Another worker, one that has everything yet to read."""
        self.drop_compactions()
        self.pair.switch()

    @invariant()
    def holds(self):
        self.pair.check()

    def teardown(self):
        with self.stack:
            self.pair.check()
            faults = self.pair.place.faults()
            assert not faults, faults
            self.drop_compactions()
            self.pair.close()
