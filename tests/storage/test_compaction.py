"""Compaction changes what lies on disk and nothing that anybody reads."""

from __future__ import annotations

import contextlib
import math
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meterite.model.metric import ConflictPolicy
from meterite.storage import journal_sort, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.maintenance import verify
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING, Limits
from storage.machine import DAY, HOSTS, YEAR_2030, Pair

CODES = [policy.value for policy in ConflictPolicy]
orgs = st.sampled_from(["here", "there"])
codes = st.sampled_from(CODES)
numbers = st.integers(0, len(HOSTS) - 1)
MONTHS = (-800 * DAY * 30, YEAR_2030 - 70 * DAY, YEAR_2030 + 3 * DAY)
times = st.builds(lambda base, n: base + n * 1000, st.sampled_from(MONTHS), st.integers(0, 2))
values = st.sampled_from([0.1, 0.7, 1e16, -3.3, 1.7e308, math.nan, math.inf])
rows = st.tuples(orgs, codes, numbers, times, values)
SMALL = {"journal_readings": 1, "fan_in": 2, "inputs_max": 3}
SMALL |= dict.fromkeys(("tombstone_delay_s", "quiet_s", "look_s", "idle_s"), 0)
LIMITS = {
    "small": Limits(**SMALL),
    "prefixes": Limits(**SMALL, prefix_readings=3, prefix_rows=2),
    "late": Limits(**SMALL | {"tombstone_delay_s": 1e9, "fan_in": 100}, late_s=1e9),
    "everything": EVERYTHING,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "empty.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    return path


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    """Four readings a row group, so that few of them make many."""
    small_row_groups(monkeypatch.setattr)


def small_row_groups(setattr_):
    setattr_(journal_sort, "ROW_GROUP_READINGS", 4)
    setattr_(run_writer, "ROW_GROUP_READINGS", 4)
    setattr_(run_writer, "FLUSH_BYTES", 200)
    setattr_(run_writer, "_GROUP_LAST", 6)


MEMORY = Path("/dev/shm")  # so many commits take their time on a disk


class CrashError(Exception):
    pass


@contextlib.contextmanager
def crashing(store, after, *, committed):
    """The nth write transaction is the last: rolled back, or committed and nobody told."""
    writing = store.database.writing
    left = [after]

    @contextlib.contextmanager
    def until_then(**options):
        left[0] -= 1
        with writing(**options) as conn:
            yield conn
            if left[0] == 0 and not committed:
                raise CrashError
        if left[0] == 0:
            raise CrashError

    store.database.writing = until_then
    try:
        with contextlib.suppress(CrashError):
            yield
    finally:
        store.database.writing = writing


class StoreAgainstDict(RuleBasedStateMachine):
    """Any sequence of writes, deletes, restarts, crashes and steps of compaction leaves what a dict would hold."""

    template: Path

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None)
        self.pair = Pair(Path(self.folder.name) / "m.db", self.template)
        for org in ("here", "there"):
            for policy in ConflictPolicy:
                self.pair.create(org, policy)
        self.compactors = {}

    def compactor(self, name):
        if name not in self.compactors:
            self.compactors[name] = Compactor(self.pair.store, LIMITS[name])
        return self.compactors[name]

    def drop_compactors(self):
        for compactor in self.compactors.values():
            compactor.close()
        self.compactors = {}

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

    @rule(name=st.sampled_from(sorted(LIMITS)), steps=st.integers(1, 6))
    def compact(self, name, steps):
        for _ in range(steps):
            self.compactor(name).run_once()

    @rule(name=st.sampled_from(sorted(LIMITS)))
    def compact_to_the_end(self, name):
        assert any(not self.compactor(name).run_once() for _ in range(1000))

    @rule(name=st.sampled_from(sorted(LIMITS)), after=st.integers(1, 6), committed=st.booleans())
    def crash(self, name, after, committed):
        with crashing(self.pair.store, after, committed=committed):
            for _ in range(6):
                self.compactor(name).run_once()
        self.drop_compactors()
        self.pair.restart()

    @rule()
    def restart(self):
        self.drop_compactors()
        self.pair.restart()

    @rule()
    def forget(self):
        """Another worker, one that has everything yet to read."""
        self.drop_compactors()
        self.pair.switch()

    @invariant()
    def holds(self):
        self.pair.check()

    def teardown(self):
        self.pair.check()
        report = verify(f"sqlite:///{self.pair.path}")
        assert report.ok, report.lines
        self.drop_compactors()
        self.pair.close()
        self.folder.cleanup()


def test_against_a_dict(template, monkeypatch):
    """See StoreAgainstDict: every step is followed by a look at all readings, current and last."""
    StoreAgainstDict.template = template
    case = StoreAgainstDict.TestCase
    case.settings = settings(
        max_examples=40,
        stateful_step_count=20,
        deadline=timedelta(seconds=20),
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()
