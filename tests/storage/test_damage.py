"""Whatever byte of the file is wrong: what can be told is told, what can be read is read, and the other orgs go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from meterite.model.columns import NO_TIME
from meterite.model.errors import DamagedError, MalformedFileError
from meterite.model.metric import ConflictPolicy, MetricSpec
from meterite.storage import compaction, journal_sort, run_writer, work
from meterite.storage.compaction import Compactor
from meterite.storage.database import PAGE_BYTES
from meterite.storage.interface import Append
from meterite.storage.maintenance import compact
from meterite.storage.work import EVERYTHING, AsideError
from storage.place import DAY, YEAR_2030, Clock, batch_of, push, read, read_around_damage, version_of
from storage.place import EVERYTHING as WHOLE
from storage.sqlite_place import sqlite_place

READINGS = 9000
ORGS = ("here", "there")


@pytest.fixture
def place():
    with sqlite_place() as place:
        yield place


class Stored:
    """Two orgs of one metric with readings in one commit each; the file may be changed between two lives."""

    def __init__(self, place):
        self.place = place
        self.store = None
        self.live()
        self.org_ids = {org: self.store.catalog.org_id(org) for org in ORGS}
        self.metrics = {org: self.store.catalog.create(org, MetricSpec(code="m", name="m")) for org in ORGS}
        random = np.random.default_rng(1)
        for org in ORGS:
            self.push(org, YEAR_2030, random.random(READINGS))

    def live(self):
        self.close()
        self.store = self.place.store(Clock())
        self.store.open()

    def close(self):
        if self.store is not None:
            self.store.close()
            self.store = None

    def push(self, org, at, values):
        series = self.metrics[org].series_first
        rows = [(series, at + n, value) for n, value in enumerate(values.tolist())]
        append = Append(self.org_ids[org], version_of(self.store), batch_of(rows))
        self.store.commit([append])
        assert append.error is None

    def change(self, *statement):
        """Somebody else has the file in hands."""
        self.close()
        with closing(sqlite3.connect(self.place.path)) as conn:
            conn.execute(*statement)
            conn.commit()
        self.live()

    def break_page(self, table, column="data"):
        """One page of the blob of the table's first row leads to nowhere."""
        self.close()
        with closing(sqlite3.connect(self.place.path)) as conn:
            (blob,) = conn.execute(f"SELECT {column} FROM {table} ORDER BY rowid LIMIT 1").fetchone()
        content = bytearray(self.place.path.read_bytes())
        middle = len(blob) // 2
        page = content.find(blob[middle : middle + 64]) // PAGE_BYTES * PAGE_BYTES
        assert page > 0
        content[page : page + 4] = b"\xff\xff\xff\xf0"
        self.place.path.write_bytes(content)
        self.live()

    def finish(self):
        compactor = Compactor(self.store, EVERYTHING)
        assert any(not compactor.run_once() for _ in range(100))
        compactor.close()

    def rows(self, query):
        with self.store.database.reading() as conn:
            return conn.exec_driver_sql(query).all()

    def found(self, org):
        rows, gaps = read_around_damage(self.store, self.org_ids[org])
        self.store.states(self.org_ids[org], np.array([self.metrics[org].id]))
        return len(rows), len(gaps)


@pytest.fixture
def stored(place):
    stored = Stored(place)
    yield stored
    stored.close()


JOURNAL = ("series_first", "series_last", "at_first", "at_last", "count", "recorded_at", "checksum")


@pytest.mark.parametrize("value", ["'text'", "1.5", "-7", "1 << 45", "x'00'"])
@pytest.mark.parametrize("column", JOURNAL)
def test_a_journal_row_with_a_wrong_number(stored, column, value):
    """Of any size and kind: the row goes into quarantine, and both orgs are compacted and take readings."""
    stored.change(f"UPDATE journal SET {column} = {value} WHERE org = 1")
    stored.finish()
    assert stored.rows("SELECT org, kind FROM quarantine") == [(1, "journal")]
    assert stored.rows("SELECT org, sum(count) FROM run GROUP BY org") == [(2, READINGS)]
    stored.push("here", YEAR_2030 + DAY, np.ones(2))
    assert stored.found("here") == (2, 1)
    assert stored.found("there") == (READINGS, 0)
    assert stored.store.problems()


@pytest.mark.parametrize("value", ["'text'", "-7", "1 << 45", "99"])
def test_a_journal_row_of_an_org_that_isnt_there(stored, value):
    """It is told; nobody waits for it."""
    stored.change(f"UPDATE journal SET org = {value} WHERE org = 1")
    stored.finish()
    assert stored.store.problems()
    assert stored.found("there") == (READINGS, 0)
    assert stored.rows("SELECT org FROM run") == [(2,)]


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("journal", "data"),
        ("segment", "data"),
        ("run", "directory"),
        ("state", "data"),
        ("watermark", "data"),
    ],
)
def test_a_text_where_a_blob_was_written(stored, table, column, compacted):
    """A flipped bit of its type alone costs nothing: the bytes are right."""
    if compacted:
        stored.finish()
    stored.change(f"UPDATE {table} SET {column} = CAST({column} AS TEXT)")
    for org in ORGS:
        assert stored.found(org) == (READINGS, 0)
        stored.push(org, YEAR_2030 + DAY, np.ones(2))
    stored.finish()
    for org in ORGS:
        assert stored.found(org) == (READINGS + 2, 0)
    assert stored.store.problems() == []


def test_a_text_that_can_be_read_as_one(stored):
    """Small numbers make a blob that is good UTF-8."""
    stored.push("here", 0x01020304, np.array([2.0]))
    stored.change("UPDATE journal SET data = CAST(data AS TEXT)")
    assert {type(row[0]) for row in stored.rows("SELECT data FROM journal WHERE count = 1")} == {str}
    assert stored.found("here") == (READINGS + 1, 0)
    stored.finish()
    assert stored.found("here") == (READINGS + 1, 0)


@pytest.mark.parametrize("value", [7, 1.5])
@pytest.mark.parametrize("table", ["journal", "segment"])
def test_no_bytes_where_a_blob_was_written(stored, table, value):
    """The row goes into quarantine."""
    if table == "segment":
        stored.finish()
    stored.change(f"UPDATE {table} SET data = ? WHERE org = 1", (value,))
    assert stored.found("here") == (0, 1)
    stored.finish()
    assert stored.rows("SELECT org, kind FROM quarantine") == [(1, table)]
    assert stored.found("there") == (READINGS, 0)


@pytest.mark.parametrize("reader", ["a reader", "compaction"])
def test_a_malformed_page_of_the_journal(stored, reader):
    """What SQLite itself calls malformed is one row's damage, whoever meets it first."""
    stored.push("here", YEAR_2030 + DAY, np.ones(2))
    stored.break_page("journal")
    if reader == "a reader":
        assert stored.found("here") == (2, 1)
    stored.finish()
    assert stored.found("here") == (2, 1)
    assert stored.found("there") == (READINGS, 0)
    assert stored.rows("SELECT org, kind FROM quarantine") == [(1, "journal")]
    assert stored.rows("SELECT org, sum(count) FROM run GROUP BY org") == [(1, 2), (2, READINGS)]


@pytest.mark.parametrize("damage", ["checksum = 1", "data = x'00'", "data = 7"])
def test_metrics_beside_damage(stored, damage):
    """They are changed and deleted, and readings are taken, though a process meets the damage by just that."""
    for code in ("n", "o"):
        stored.store.catalog.create("here", MetricSpec(code=code, name="a"))
    stored.store.catalog.set_active("here", "n", active=False)
    stored.change(f"UPDATE journal SET {damage} WHERE org = 1")
    assert stored.store.catalog.delete("here", "n")[1] is None
    stored.live()
    assert stored.rows("SELECT org FROM quarantine") == [(1,)]
    stored.change("DELETE FROM quarantine")
    changes = {"on_conflict": ConflictPolicy.SUM}
    assert stored.store.catalog.update("here", "o", changes).spec.on_conflict == "sum"
    stored.change("DELETE FROM quarantine")
    stored.push("here", YEAR_2030 + DAY, np.ones(2))
    assert stored.found("here") == (2, 1)


def test_a_malformed_page_of_a_segment(stored):
    """Likewise; an erasure doesn't stumble over it for ever."""
    stored.finish()
    stored.break_page("segment")
    assert stored.found("here") == (0, 1)
    stored.store.erase(stored.org_ids["here"], stored.metrics["here"], YEAR_2030, YEAR_2030 + 10, ())
    stored.store.erase(stored.org_ids["there"], stored.metrics["there"], YEAR_2030, YEAR_2030 + 9, ())
    stored.finish()
    assert stored.found("there") == (READINGS - 10, 0)
    assert stored.rows("SELECT org, kind FROM quarantine") == [(1, "segment")]


def test_a_malformed_page_of_a_directory(stored, monkeypatch):
    """All that it says can be read from the row groups."""
    for module in (journal_sort, run_writer):
        monkeypatch.setattr(module, "ROW_GROUP_READINGS", 4)
    stored.finish()
    stored.break_page("run", "directory")
    for org in ORGS:
        assert stored.found(org) == (READINGS, 0)


def recorded(stored, org):
    """When each of the readings was recorded, as somebody sees it who tries again after a new damage."""
    for _ in range(3):
        with closing(stored.store.view(stored.org_ids[org])) as view:
            try:
                found = [(c, view.recorded_at(c.seq)) for c in view.scan(WHOLE)]
            except DamagedError:
                continue
            assert view.gaps(WHOLE) == []
            rows = [row for c, times in found for row in zip(c.at_us.tolist(), times.tolist(), strict=True)]
            return [at for _, at in sorted(rows)], view.doubts()
    raise AssertionError


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE commit_time SET data = x'00' WHERE org = 1",
        "UPDATE commit_time SET data = 7 WHERE org = 1",
        "DELETE FROM commit_time WHERE org = 1",
        "UPDATE commit_time SET seq_last = 0 WHERE org = 1",
    ],
)
def test_times_of_commits_that_are_lost(stored, statement):
    """The readings stay, without ``recorded_at``; a sentence says so, and ``problems``. Later ones have theirs, months
    are merged, and the other org has all.
    """
    before = {org: recorded(stored, org) for org in ORGS}
    stored.finish()
    assert before == {org: recorded(stored, org) for org in ORGS}
    stored.change(statement)
    assert recorded(stored, "there") == before["there"]
    assert stored.store.problems() == []
    times, doubts = recorded(stored, "here")
    assert set(times) == {NO_TIME}
    assert len(doubts) == 1
    assert stored.store.problems()
    for n in range(2):
        stored.push("here", YEAR_2030 + READINGS + n, np.ones(1))
        (newest,) = stored.rows("SELECT max(recorded_at) FROM journal")[0]
        stored.finish()
        times, _ = recorded(stored, "here")
        assert len(times) == READINGS + n + 1
        assert times[-1] == newest
    assert NO_TIME not in times[READINGS:]
    assert stored.rows("SELECT count(*) FROM run WHERE org = 1") == [(1,)]
    assert stored.rows("SELECT DISTINCT org, kind FROM quarantine") == [(1, "commit_time")]
    assert recorded(stored, "there") == before["there"]


def test_a_damaged_block_of_commit_times_is_told_by_compaction(stored):
    """Though nobody reads."""
    stored.finish()
    stored.change("UPDATE commit_time SET data = x'00' WHERE org = 1")
    stored.push("here", YEAR_2030 + READINGS, np.ones(1))
    stored.finish()
    assert stored.store.problems()


def test_the_first_error_of_a_reading_transaction_is_told(stored):
    """Though COMMIT fails, too; and the connection is good for the next."""
    stored.finish()
    stored.break_page("segment")
    with pytest.raises(MalformedFileError) as told:
        stored.rows("SELECT data FROM segment")
    assert "SELECT data" in str(told.value.__cause__)
    assert stored.rows("SELECT count(*) FROM segment") == [(2,)]


class Failing:
    """Takes a function's place, and fails where the org is the first."""

    def __init__(self, really, error):
        self.really = really
        self.error = error
        self.calls = 0

    def __call__(self, a_work, org_id, *rest):
        if org_id == 1:
            self.calls += 1
            raise self.error
        return self.really(a_work, org_id, *rest)


@pytest.fixture
def monotonic(monkeypatch):
    """The time that upkeep sees; it may be set."""
    now = [1e6]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    return now


def stepped(compactor):
    """How often it could do nothing for an error nobody knows."""
    failed = 0
    for _ in range(100):
        try:
            if not compactor.run_once():
                return failed
        except AsideError:
            failed += 1
    raise AssertionError


@pytest.mark.parametrize("error", [MemoryError(), KeyError("what"), sqlite3.OperationalError("what")])
def test_an_error_that_nobody_knows_keeps_one_org_aside(stored, monkeypatch, monotonic, error):
    """The others get their turn at once; it is tried again later."""
    failing = Failing(compaction.compact_journal, error)
    monkeypatch.setattr(compaction, "compact_journal", failing)
    compactor = Compactor(stored.store, EVERYTHING)
    assert stepped(compactor) == 1
    assert stored.rows("SELECT org FROM run") == [(2,)]
    assert stepped(compactor) == 0
    monotonic[0] += work.ASIDE_S + 1
    assert stepped(compactor) == 1
    assert failing.calls == 2
    monkeypatch.setattr(compaction, "compact_journal", failing.really)
    monotonic[0] += work.ASIDE_S + 1
    assert stepped(compactor) == 0
    assert stored.rows("SELECT org FROM run ORDER BY org") == [(1,), (2,)]
    compactor.close()


def test_an_error_in_a_merge_keeps_one_month_aside(stored, monkeypatch, monotonic):
    """Likewise."""
    stored.finish()
    for org in ORGS:
        stored.push(org, YEAR_2030 + READINGS, np.ones(2))
    failing = Failing(compaction.merge_runs, ValueError())
    monkeypatch.setattr(compaction, "merge_runs", failing)
    compactor = Compactor(stored.store, EVERYTHING)
    assert stepped(compactor) == 1
    assert stored.rows("SELECT org, count(*) FROM run GROUP BY org") == [(1, 2), (2, 1)]
    monkeypatch.setattr(compaction, "merge_runs", failing.really)
    monotonic[0] += work.ASIDE_S + 1
    assert stepped(compactor) == 0
    assert stored.rows("SELECT org, count(*) FROM run GROUP BY org") == [(1, 1), (2, 1)]
    compactor.close()


def test_compact_goes_on_behind_an_error_that_nobody_knows(stored, monkeypatch, monotonic):
    """It says which org it left, and why."""
    monkeypatch.setattr(compaction, "compact_journal", Failing(compaction.compact_journal, ValueError("so")))
    lines = []
    stored.close()
    compact(stored.place.url, lines.append)
    stored.live()
    assert lines[0] == "The journal of org 1 is put aside for 300 s: ValueError('so')"
    assert stored.rows("SELECT org FROM run") == [(2,)]


@pytest.mark.parametrize("error", [DamagedError("damaged", "Something."), work.DroppedError()])
def test_what_fails_each_time_in_a_way_that_is_known(stored, monkeypatch, monotonic, error):
    """Damage that names no row, and work that is always dropped, are put aside as well, rather than tried for ever."""
    failing = Failing(compaction.compact_journal, error)
    monkeypatch.setattr(compaction, "compact_journal", failing)
    compactor = Compactor(stored.store, EVERYTHING)
    assert stepped(compactor) == 0
    assert failing.calls <= 5
    assert stored.rows("SELECT org FROM run") == [(2,)]
    compactor.close()


def test_numbers_and_texts_of_good_rows(stored):
    """What the tests above rely on: the same file, untouched, is whole."""
    for org in ORGS:
        assert stored.found(org) == (READINGS, 0)
    push(stored.store, stored.org_ids["here"], (stored.metrics["here"].series_first, YEAR_2030, 5.0))
    assert len(read(stored.store, stored.org_ids["here"])) == READINGS
