"""What a kill at this moment would leave: the server stands still while its files are copied and read.

Guaranteed: every thread of the server stands before the first byte is copied, so the copy is what ``kill -9`` at that
moment leaves on disk; it is read without the server, after SQLite's own recovery, and the server never learns of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from e2e.found import Found, judge
from e2e.load import CODES, numbers_of
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.storage.audit import Audit
from meterite.storage.state import everything
from meterite.storage.store import SqliteStore

ORG = "org_01"
STOP_SECONDS = 10


@dataclass(slots=True)
class Seen:
    """In how many copies compaction was between its steps, and how far it had come in the last one."""

    copies: int = 0
    unswept: int = 0
    unfinished: int = 0
    flips: int = 0
    runs_made: int = 0
    runs_left: int = 0


class StoredRows(Audit):
    """All that ``meterite verify`` looks at but the states: :func:`judge` compares them, too, and does so at once."""

    def _states(self, org_id):
        return iter(())


class Moments:
    """Looks at moments of one server, one after the other."""

    def __init__(self, server, load):
        self._server = server
        self._load = load
        self._copy = server.path / "copy"
        self.seen = Seen()

    def look(self, *others):
        """All that was acknowledged until now is there; the server goes on afterwards, and so do ``others``."""
        with frozen(self._server.process.pid, *others):
            self.judge()

    def judge(self):
        """Of a server that stands still, or is dead."""
        told = self._load.told()
        database = copy(self._server, self._copy)
        self._count(database)
        found, faults = found_in(database)
        judge(found, told)
        assert not faults

    def _count(self, database):
        seen = self.seen
        with closing(sqlite3.connect(database)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            made = dict(conn.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
            counts = conn.execute("SELECT count(*), count(live_at), count(dead_at) FROM run").fetchone()
            (flips,) = conn.execute("SELECT count(*) FROM flip").fetchone()
        seen.copies += 1
        seen.unswept += bool(flips or counts[2])
        seen.unfinished += counts[0] > counts[1]
        seen.flips, seen.runs_made, seen.runs_left = made.get("flip", 0), made.get("run", 0), counts[0]


def copy(server, folder):
    """The file and its log as they lie there, anew each time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in (server.database.name, f"{server.database.name}-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(server.path / name, folder / name)
    return folder / server.database.name


def found_in(database):
    """Read by the program's own store, what the next start would answer; and what verify finds."""
    store = SqliteStore(database)
    store.open()
    found = Found()
    try:
        org_id = store.catalog.org_id(ORG)
        metrics = store.catalog.page(ORG, 100_000)
        codes = {metric.id: metric.code for metric in metrics}
        found.metrics.update(codes.values())
        states = store.states(org_id, np.array(list(codes), np.int64))
        for metric, state in zip(metrics, states, strict=True):
            points = [point for point in (state.current, state.last) if point is not None]
            numbers = numbers_of([point.value for point in points]).tolist()
            found.states[metric.code] = [(p.at_us, n) for p, n in zip(points, numbers, strict=True)]
        _read(store, org_id, codes, found)
        return found, list(StoredRows(store).faults())
    finally:
        store.close()


def _read(store, org_id, codes, found):
    ids = {code: metric_id for metric_id, code in codes.items()}
    view = store.view(org_id)
    assert not view.gaps(everything())
    for columns in view.scan(everything()):
        metric_ids = columns.series >> SERIES_ORDINAL_BITS
        recorded_us = view.recorded_at(columns.seq)
        for metric_id in np.unique(metric_ids).tolist():
            rows = metric_ids == metric_id
            place = CODES.index(codes[metric_id])
            found.add(place, numbers_of(columns.values[rows]), columns.at_us[rows], recorded_us[rows])
    view.close()
    assert set(CODES) <= ids.keys()


@contextlib.contextmanager
def frozen(*groups):
    """All processes of the groups stand still."""
    _send(groups, signal.SIGSTOP)
    try:
        until = time.monotonic() + STOP_SECONDS
        while not all(_stands(pid) for pid in _members(groups)):
            assert time.monotonic() < until, "it doesn't stand still"
            time.sleep(0.0005)
        yield
    finally:
        _send(groups, signal.SIGCONT)


def _send(groups, number):
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)


def gone(*groups):
    """Wait until nobody of killed groups runs any more; the leader of one may be gone before the others."""
    until = time.monotonic() + STOP_SECONDS
    while any(_states(pid) - {"Z", "X"} for pid in _members(groups)):
        assert time.monotonic() < until, "it doesn't end"
        time.sleep(0.0005)


def _members(groups):
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(process.name)) in groups:
                yield int(process.name)


def _stands(pid):
    return not _states(pid) - {"T", "Z", "X"}


def _states(pid):
    """Of its threads."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            found.add(task.read_text().rpartition(")")[2].split()[0])
    return found


@contextlib.contextmanager
def turn(server):
    """The writer's turn is ours, as if another worker had it: nothing can be committed meanwhile."""
    with Path(f"{server.database}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
