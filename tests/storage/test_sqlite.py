"""The store on one SQLite file, held to the interface; crashes in the midst of compaction on top."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from meterite.storage import journal_sort, run_writer
from storage.contract.store import StoreTests
from storage.machine import StoreAgainstDict, ways
from storage.sqlite_place import sqlite_place


class CrashError(BaseException):  # nothing that the program could take for an error
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


class SqliteAgainstDict(StoreAgainstDict):
    """Crashes among all else."""

    @rule(way=ways, after=st.integers(1, 6), committed=st.booleans())
    def crash(self, way, after, committed):
        with crashing(self.pair.store, after, committed=committed):
            for _ in range(6):
                self.compaction(way).run_once()
        self.drop_compactions()
        self.pair.restart()


class TestSqliteStore(StoreTests):
    """Four readings a row group, so that few of them make many."""

    machine = SqliteAgainstDict

    def new_place(self):
        return sqlite_place()

    @pytest.fixture(autouse=True)
    def _small_row_groups(self, monkeypatch):
        monkeypatch.setattr(journal_sort, "ROW_GROUP_READINGS", 4)
        monkeypatch.setattr(run_writer, "ROW_GROUP_READINGS", 4)
        monkeypatch.setattr(run_writer, "FLUSH_BYTES", 200)
        monkeypatch.setattr(run_writer, "_GROUP_LAST", 6)
