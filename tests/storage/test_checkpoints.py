"""The write-ahead log: how much of it is left to move, and what a large one costs those who write."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from meterite.model.errors import UnavailableError
from meterite.model.metric import MetricSpec
from meterite.storage import database as database_module
from meterite.storage import journal, work
from meterite.storage import store as store_module
from meterite.storage.compaction import Compactor
from meterite.storage.database import PAGE_BYTES
from meterite.storage.maintenance import verify
from meterite.storage.work import Limits
from storage.place import AT, Clock, push, read
from storage.sqlite_place import sqlite_place

FRAME_BYTES = PAGE_BYTES + 24
SMALL_BYTES = 6 * PAGE_BYTES  # a commit of MANY readings writes more
MANY = 10_000


class Workers:
    """Two workers on one file, one metric, and how many readings they pushed."""

    def __init__(self, place):
        self.place = place
        self.one, self.two = place.store(Clock()), place.store(Clock())
        for store in (self.one, self.two):
            store.open()
        self.org_id = self.one.catalog.org_id("here")
        self.series = self.one.catalog.create("here", MetricSpec(code="m", name="m")).series_first
        self.pushed = 0
        self.one.database.checkpoint(truncate=True)

    def push(self, store=None, count=MANY):
        rows = [(self.series, AT + self.pushed + n, 0.1 * n) for n in range(count)]
        push(store or self.one, self.org_id, *rows)
        self.pushed += count

    def is_whole(self):
        assert len(read(self.two, self.org_id)) == self.pushed

    @property
    def database(self):
        return self.one.database

    @contextlib.contextmanager
    def reader(self):
        """Another program, which reads for long."""
        with closing(sqlite3.connect(self.place.path, isolation_level=None)) as conn:
            conn.execute("BEGIN")
            conn.execute("SELECT seq FROM clock").fetchone()
            yield

    def header(self):
        """Of the log: another one each time that it is begun anew."""
        return self.place.path.with_name("m.db-wal").read_bytes()[:32]

    def left_by_the_index(self):
        """Frames that aren't moved, as SQLite's own index of the log says (sqlite.org/walformat.html, 2.1).

        Read by another process: closing it in this one would drop SQLite's locks.
        """
        index = subprocess.run(["cat", f"{self.place.path}-shm"], capture_output=True, check=True).stdout
        frames, moved = (int.from_bytes(index[at : at + 4], sys.byteorder) for at in (16, 96))
        return frames - moved


@pytest.fixture
def workers():
    with sqlite_place() as place:
        workers = Workers(place)
        yield workers
        workers.one.close()
        workers.two.close()
        report = verify(place.url)
        assert report.ok, report.lines
        with closing(sqlite3.connect(place.path)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_the_log_is_what_sqlite_says(workers, seed):
    """After any commits, checkpoints and readers of two workers, without asking SQLite; and in each of them."""
    choice = random.Random(seed)
    with contextlib.ExitStack() as readers:
        for _ in range(40):
            match choice.randrange(8):
                case 0:
                    readers.enter_context(workers.reader())
                case 1:
                    readers.pop_all().close()
                case 2:
                    choice.choice((workers.one, workers.two)).database.checkpoint(
                        truncate=choice.random() < 0.3
                    )
                case 3:
                    workers.database._checkpoint_beside()
                case _:
                    workers.push(choice.choice((workers.one, workers.two)), choice.choice((1, MANY)))
            left = workers.left_by_the_index() * FRAME_BYTES
            assert workers.one.database.wal_bytes_left() == workers.two.database.wal_bytes_left() == left
    workers.is_whole()


def test_without_a_note_all_of_the_log_is_left(workers):
    """Too much is told rather than too little, whatever stands in the lock file."""
    workers.push()
    workers.database.checkpoint()
    assert workers.database.wal_bytes_left() == 0
    lock = workers.place.path.with_name("m.db.lock")
    for note in (b"", b"short", bytes(16), bytes(8) + b"\xff" * 8):
        lock.write_bytes(note)
        assert workers.database.wal_bytes_left() == workers.database.wal_bytes() - 32


def test_a_large_log_that_is_moved_is_in_nobodys_way(workers, monkeypatch):
    """The log's file keeps its size; commits of every worker go on, and nothing is reported."""
    monkeypatch.setattr(journal, "WAL_BYTES_MAX", SMALL_BYTES)
    monkeypatch.setattr(store_module, "WAL_REPORTED_BYTES", SMALL_BYTES)
    workers.push()
    assert workers.one.problems()
    with pytest.raises(UnavailableError, match="write-ahead log"):
        workers.push(workers.two)
    workers.database.checkpoint()
    for _ in range(3):
        assert workers.database.wal_bytes() > SMALL_BYTES
        assert not workers.two.problems()
        workers.push(workers.two)
        workers.database.checkpoint()
    workers.is_whole()


def test_a_log_that_a_reader_held_is_moved_when_it_leaves(workers, monkeypatch):
    """Over its bound commits get an error that says to try again; with the reader gone they go on by themselves,
    though nothing came into the log meanwhile.
    """
    monkeypatch.setattr(journal, "WAL_BYTES_MAX", SMALL_BYTES)
    monkeypatch.setattr(work, "CHECKPOINT_BYTES", 1)
    monkeypatch.setattr(work, "CHECKPOINT_AGAIN_S", 0.0)
    compactor = Compactor(workers.one, Limits(idle_s=0))
    with workers.reader():
        workers.push()
        for _ in range(3):
            compactor.run_once()
            with pytest.raises(UnavailableError, match="write-ahead log") as caught:
                workers.push()
            assert caught.value.retry_after_s
        workers.is_whole()
    compactor.run_once()
    workers.push()
    compactor.close()
    workers.is_whole()


@pytest.fixture
def _much_is_little(monkeypatch):
    monkeypatch.setattr(database_module, "LOCKED_CHECKPOINT_BYTES", SMALL_BYTES)


def in_the_midst(workers, monkeypatch, act):
    """``act`` while the log is moved, and then it is moved once more: so it would go wrong."""
    database, move = workers.database, workers.database._move

    def twice(mode):
        move(mode)
        monkeypatch.setattr(database, "_move", move)
        act()
        move(mode)

    monkeypatch.setattr(database, "_move", twice)


@pytest.mark.usefixtures("_much_is_little")
@pytest.mark.parametrize("moved_before", [False, True])
def test_a_large_log_is_moved_beside_the_writers(workers, monkeypatch, moved_before):
    """Others commit meanwhile, and none begins the log anew, be all of it moved; afterwards the next one does.

    What was moved is brought to the disk before the lock is taken for the rest.
    """
    workers.push()
    if moved_before:
        workers.database._checkpoint_locked(truncate=False)
        assert not workers.database.wal_bytes_left()
    seen = []

    def commit():
        seen.append(workers.header())
        workers.push(workers.two)
        seen.append(workers.header())

    in_the_midst(workers, monkeypatch, commit)
    synced = []
    monkeypatch.setattr(database_module.os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    workers.database._checkpoint_beside() if moved_before else workers.database.checkpoint()
    assert seen[0] == seen[1] == workers.header()
    assert synced == [workers.place.path.stat().st_ino]
    workers.database.checkpoint()
    assert workers.database.wal_bytes_left() == 0
    workers.push(workers.two)
    assert workers.header() != seen[0]
    workers.is_whole()


@pytest.mark.usefixtures("_much_is_little")
def test_what_a_reader_holds_is_not_moved_while_writers_wait(workers, monkeypatch):
    """The reader could leave in the midst of it."""
    locked = []
    monkeypatch.setattr(workers.database, "_checkpoint_locked", lambda **_: locked.append(1))
    with workers.reader():
        workers.push()
        workers.database.checkpoint()
    assert not locked
    assert workers.database.wal_bytes_left()


@pytest.mark.usefixtures("_much_is_little")
def test_on_a_full_disk_a_large_log_is_moved_all_the_same(workers, monkeypatch):
    """Where no page can be added to it, while writers wait."""

    def full(_conn):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database_module, "_write_a_page", full)
    workers.push()
    workers.database.checkpoint()
    assert workers.database.wal_bytes_left() == 0
    workers.push()
    workers.is_whole()
