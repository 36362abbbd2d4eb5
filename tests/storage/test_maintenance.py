"""What verify finds, what compact leaves behind, and that damage costs only what was damaged."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from meterite.model.errors import MalformedFileError
from meterite.model.metric import ConflictPolicy
from meterite.storage import database, journal_sort, run_writer
from meterite.storage.compaction import Compactor
from meterite.storage.database import PAGE_BYTES
from meterite.storage.interface import Append
from meterite.storage.maintenance import compact, verify
from meterite.storage.windows import window_of, window_starts
from meterite.storage.work import EVERYTHING, Limits
from storage import independent_reader
from storage.machine import Pair, filled
from storage.place import DAY, YEAR_2030, batch_of, read_around_damage, version_of
from storage.place import EVERYTHING as WHOLE
from storage.sqlite_place import overwrite_page, sqlite_place


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(journal_sort, "ROW_GROUP_READINGS", 16)
    monkeypatch.setattr(run_writer, "ROW_GROUP_READINGS", 16)
    monkeypatch.setattr(run_writer, "FLUSH_BYTES", 2000)


@pytest.fixture
def place():
    with sqlite_place() as place:
        yield place


@pytest.fixture
def pair(place):
    """Two orgs, five metrics, four months, some erased: in the journal."""
    pair = filled(place)
    yield pair
    pair.close()


def finish(store, limits=EVERYTHING):
    compactor = Compactor(store, limits)
    assert any(not compactor.run_once() for _ in range(1000))
    compactor.close()
    return compactor.done


def change(pair, *statements):
    """Somebody else has the file in hands."""
    pair.store.close()
    with closing(sqlite3.connect(pair.place.path)) as conn:
        for statement in statements:
            conn.execute(*statement) if isinstance(statement, tuple) else conn.execute(statement)
        conn.commit()
    pair.store = pair.opened()


def flip_byte(pair, table, row_id, byte=-3):
    pair.store.close()
    pair.place.flip_byte(table, row_id, byte)
    pair.store = pair.opened()


def rows(pair, query):
    with pair.store.database.reading() as conn:
        return conn.exec_driver_sql(query).all()


def read_all(pair, org):
    found, gaps = read_around_damage(pair.store, pair.org_ids[org])
    return len(found), gaps


def by_labels(pair, org):
    found = {}
    for (name, code), known in pair.known.items():
        if name == org:
            texts = ["{}", '{"host":"a"}', '{"host":"b"}']
            for (series, at), value in known.readings.items():
                found[code, texts[known.series.index(series)], at] = value
    return found


def test_a_reader_that_knows_the_documents_alone_reads_the_same_before_and_after(pair):
    """docs/format suffices for a real file: in the journal, in runs beside it, in the last tier."""
    for step in ("journal", "runs", "last tier"):
        if step == "runs":
            finish(pair.store, Limits(journal_readings=1, prefix_rows=4, fan_in=100))
            pair.push([("here", "sum", 1, YEAR_2030 - DAY, 0.5), ("there", "last", 0, YEAR_2030, 1.5)])
        if step == "last tier":
            finish(pair.store)
        for org in ("here", "there"):
            assert independent_reader.read_database(pair.place.path, org) == by_labels(pair, org), step
        pair.check()


def test_compact_leaves_one_run_a_month_and_nothing_else(pair):
    """One live run an org and month, no journal, no tombstones, no free pages, no log; verify agrees."""
    lines = []
    pair.store.close()
    compact(pair.place.url, lines.append)
    pair.store = pair.opened()
    assert lines
    pair.check()
    assert {count for *_, count in rows(pair, "SELECT org, window, count(*) FROM run GROUP BY 1, 2")} == {1}
    for table in ("journal", "tombstone", "flip"):
        assert not rows(pair, f"SELECT * FROM {table}")
    assert rows(pair, "PRAGMA freelist_count") == [(0,)]
    assert not pair.store.database.wal_bytes()
    report = verify(pair.place.url)
    assert report.ok, report.lines


@pytest.mark.parametrize("page_bytes", [PAGE_BYTES, 16_384])
def test_a_file_keeps_the_pages_that_it_was_made_with(place, monkeypatch, page_bytes):
    """Those of files that were made before are larger; what was free is told by them."""
    place.path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(database, "PAGE_BYTES", page_bytes)
        pair = filled(place)
    finish(pair.store, Limits(journal_readings=1, tombstone_delay_s=0))
    pair.push([("here", "sum", 1, YEAR_2030 - DAY, 0.5)])
    pair.check()
    pair.store.close()
    before = place.path.stat().st_size
    lines = []
    compact(place.url, lines.append)
    free = (before - place.path.stat().st_size) / (1 << 20)
    assert f"; {free:.1f} MiB were free" in lines[-1]
    pair.store = pair.opened()
    pair.check()
    assert rows(pair, "PRAGMA page_size") == [(page_bytes,)]
    pair.close()


def test_compact_beside_an_open_stream_leaves_what_it_reads(pair):
    """The rows of a snapshot stay until it is closed, and go then."""
    view = pair.store.view(pair.org_ids["here"])
    before = repr([c.values.tolist() for c in view.scan(WHOLE)])
    finish(pair.store)
    assert rows(pair, "SELECT count(*) FROM flip") == [(2,)]
    assert repr([c.values.tolist() for c in view.scan(WHOLE)]) == before
    view.close()
    finish(pair.store)
    assert rows(pair, "SELECT count(*) FROM flip") == [(0,)]
    assert rows(pair, "SELECT count(*) FROM journal") == [(0,)]


def test_one_process_at_a_time(pair):
    """While another compacts, run_once does nothing, and attempt says that it wasn't its turn."""
    one, two = Compactor(pair.store, EVERYTHING), Compactor(pair.store, EVERYTHING)
    with one._alone() as alone:
        assert alone
        assert two.attempt() is None
        assert not two.run_once()
    assert two.run_once()
    one.close()
    two.close()


@pytest.mark.parametrize("byte", [2, 9, 60, -3])
def test_a_flipped_byte_in_a_segment(pair, byte):
    """Verify names the segment; the rest goes on answering, with a sentence about the gap, and compacting."""
    finish(pair.store)
    ((segment, org_id),) = rows(pair, "SELECT id, org FROM segment ORDER BY id LIMIT 1")
    ((kept,),) = rows(pair, f"SELECT sum(count) FROM run WHERE org = {org_id}")
    flip_byte(pair, "segment", segment, byte)
    report = verify(pair.place.url)
    assert not report.ok
    assert f"segment {segment}" in report.lines[0]
    org = next(name for name, number in pair.org_ids.items() if number == org_id)
    count, gaps = read_all(pair, org)
    assert kept - 16 <= count < kept
    assert len(gaps) == 1
    other = next(name for name in pair.org_ids if name != org)
    assert read_all(pair, other)[1] == []
    pair.push([("here", "last", 0, YEAR_2030, 1.0), ("there", "last", 0, YEAR_2030, 1.0)])
    finish(pair.store)
    assert not verify(pair.place.url).ok
    assert read_all(pair, org)[0] in {count, count + 1}


def test_a_missing_segment(pair):
    """The directory knows of it: verify says so, and readers leave a gap that they name."""
    finish(pair.store)
    ((segment, org_id),) = rows(pair, "SELECT id, org FROM segment ORDER BY id DESC LIMIT 1")
    change(pair, f"DELETE FROM segment WHERE id = {segment}")
    lines = "\n".join(verify(pair.place.url).lines)
    assert f"segment {segment} is missing." in lines
    org = next(name for name, number in pair.org_ids.items() if number == org_id)
    assert len(read_all(pair, org)[1]) == 1


@pytest.mark.parametrize("damaged", ["UPDATE run SET directory = x'00'", "UPDATE state SET data = x'00'"])
def test_what_can_be_read_from_the_readings_is_no_loss(pair, damaged):
    """A damaged directory or block of states costs time alone: verify names it, every answer stays right, and what
    is recorded afterwards is compacted.
    """
    finish(pair.store, Limits(journal_rows=1, quiet_s=10_000))
    change(pair, damaged)
    assert not verify(pair.place.url).ok
    pair.check()
    pair.push([("here", "sum", 0, YEAR_2030, 1.0), ("there", "first", 0, YEAR_2030, 1.0)])
    pair.restart()
    finish(pair.store, Limits(journal_rows=1, quiet_s=10_000))
    pair.check()
    pair.restart()
    pair.check()


def test_a_damaged_journal_row_stays_and_the_rest_is_compacted(pair):
    """Its gap is told for as long as it lies there, which is for ever; its month isn't merged."""
    ((row_id, org_id),) = rows(pair, "SELECT id, org FROM journal ORDER BY id LIMIT 1 OFFSET 7")
    flip_byte(pair, "journal", row_id)
    assert f"journal row {row_id}" in verify(pair.place.url).lines[0]
    finish(pair.store)
    assert rows(pair, "SELECT id FROM journal") == [(row_id,)]
    org = next(name for name, number in pair.org_ids.items() if number == org_id)
    assert len(read_all(pair, org)[1]) == 1
    assert not verify(pair.place.url).ok


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("INSERT INTO segment VALUES (9999 << 20, 1, x'00')", "run 9999 are orphans"),
        ("INSERT INTO series VALUES (77 << 32 | 1, 1, 77, '{}')", "series row"),
        ("UPDATE run SET count = count + 1", "counts or bounds"),
        ("UPDATE run SET window = window + 1", "list of live runs"),
        ("UPDATE run SET live_at = NULL WHERE id = 1", "list of live runs"),
        ("UPDATE live_runs SET data = x'00'", "live_runs row of org 1"),
        ("DELETE FROM live_runs", "live_runs row of org 1"),
        ("DELETE FROM run WHERE id = 1", "is missing"),
        ("UPDATE org SET compacted_seq = compacted_seq - 1", "its compacted_seq"),
        ("UPDATE run SET directory = x'00'", "no MRD1 block"),
        ("DELETE FROM commit_time", "time isn't known"),
        ("UPDATE commit_time SET data = x'00'", "commit times"),
        ("DELETE FROM state", "current or last"),
        ("UPDATE state SET data = x'00'", "org 1"),
        ("UPDATE segment SET id = id + 500", "missing"),
        ("DELETE FROM series", "series that aren't there"),
    ],
)
def test_what_verify_sees(pair, statement, words):
    """Each table against the others."""
    finish(pair.store)
    assert verify(pair.place.url).ok
    change(pair, statement)
    report = verify(pair.place.url)
    assert not report.ok
    assert words in "\n".join(report.lines)


def test_verify_of_a_journal(pair):
    """A row that was compacted and that nobody will remove; one whose org is gone."""
    ((row,),) = rows(pair, "SELECT max(id) FROM journal WHERE org = 1")
    change(pair, "UPDATE org SET compacted_seq = 10 WHERE id = 1")
    assert "is an orphan" in "\n".join(verify(pair.place.url).lines)
    change(pair, "UPDATE org SET compacted_seq = 0", f"UPDATE journal SET org = 9 WHERE id = {row}")
    assert "belongs to org 9" in "\n".join(verify(pair.place.url).lines)


@pytest.mark.parametrize("name", ["receipt", "receipt_recorded", "delivery"])
def test_pages_that_no_row_of_ours_vouches_for(pair, name):
    """What SQLite calls malformed isn't called whole, also where every row that is looked at is."""
    pair.store.close()
    overwrite_page(pair.place.path, name)
    report = verify(pair.place.url)
    assert not report.ok
    assert "SQLite's integrity_check" in report.lines[0]
    assert 1 < len(report.lines) < 30


def test_compaction_ends_at_a_page_that_is_malformed(pair):
    """The journal goes first; what can't be gone around is an error, not the same attempt again and again."""
    pair.store.close()
    overwrite_page(pair.place.path, "receipt_recorded")
    pair.store = pair.opened()
    compactor = Compactor(pair.store, EVERYTHING)
    with pytest.raises(MalformedFileError, match=r"^The database's file is damaged \(database disk image"):
        assert any(not compactor.run_once() for _ in range(1000))
    compactor.close()
    assert rows(pair, "SELECT count(*) FROM journal") == [(0,)]


def test_a_copy_that_vacuum_made(pair):
    """It is whole, answers the same, and is a file with a log as soon as a service opens it; locks are the owner's."""
    path = pair.place.path.with_name("copy.db")
    with closing(sqlite3.connect(pair.place.path)) as conn:
        conn.execute(f"VACUUM INTO '{path}'")
    report = verify(f"sqlite:///{path}")
    assert report.ok, report.lines
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for org in ("here", "there"):
        assert independent_reader.read_database(path, org) == by_labels(pair, org)
    locks = [one.stat().st_mode & 0o077 for one in path.parent.glob("copy.db.*")]
    assert locks
    assert not any(locks)


def test_verify_of_what_is_no_database(tmp_path):
    """No file, or another one: one line, and nothing is made."""
    path = tmp_path / "none.db"
    assert not verify(f"sqlite:///{path}").ok
    assert not path.exists()
    path.write_bytes(os.urandom(50_000))
    assert not verify(f"sqlite:///{path}").ok


def test_windows_are_months():
    """Of UTC; months before 1970 are negative."""
    starts = window_starts(-3600, 3000)
    for window, start, after in zip(range(-3500, 3000), starts[100:], starts[101:], strict=False):
        assert window_of(int(start)) == window_of(int(after) - 1) == window
    assert window_of(0) == 0
    assert window_of(-1) == -1


def push_columns(pair, code, at_us, values):
    series = pair.known["here", code].series[0]
    batch = batch_of([(series, at, value) for at, value in zip(at_us.tolist(), values.tolist(), strict=True)])
    append = Append(pair.org_ids["here"], version_of(pair.store), batch)
    pair.store.commit([append])
    assert append.error is None


def test_runs_of_one_size_become_one_and_closed_months_end_as_one(place):
    """Eight runs of a class are merged; once a month is over and quiet, what is beside the largest joins it."""
    pair = Pair(place)
    pair.create("here", ConflictPolicy.LAST)
    limits = Limits(journal_readings=1, quiet_s=3600, look_s=0)
    for n in range(9):
        push_columns(pair, "last", YEAR_2030 + np.arange(100) * 1000 + n * 100_000, np.arange(100.0))
        finish(pair.store, limits)
    assert rows(pair, "SELECT count FROM run ORDER BY count") == [(100,), (800,)]
    push_columns(pair, "last", np.array([YEAR_2030 + 40 * DAY]), np.array([1.0]))
    finish(pair.store, limits)
    assert len(rows(pair, "SELECT 1 FROM run")) == 3
    pair.ticks = iter(range(YEAR_2030 + 41 * DAY, YEAR_2030 + 50 * DAY, 1_000_000))
    done = finish(pair.store, limits)
    assert rows(pair, "SELECT count FROM run ORDER BY count") == [(1,), (900,)]
    assert done.merges == 1
    push_columns(pair, "last", np.array([YEAR_2030 + DAY]), np.array([1.0]))
    finish(pair.store, limits)
    pair.ticks = iter(range(YEAR_2030 + 51 * DAY, YEAR_2030 + 60 * DAY, 1_000_000))
    finish(pair.store, limits)
    assert len(rows(pair, "SELECT 1 FROM run")) == 3  # a late reading waits until there are more, or a month
    pair.ticks = iter(range(YEAR_2030 + 90 * DAY, YEAR_2030 + 95 * DAY, 1_000_000))
    finish(pair.store, limits)
    assert rows(pair, "SELECT count FROM run ORDER BY count") == [(1,), (901,)]
    pair.store.close()


def test_merges_go_on_where_the_journal_is_always_due(place):
    """Whatever comes in between two steps: the runs of a month stay few."""
    pair = Pair(place)
    pair.create("here", ConflictPolicy.LAST)
    compactor = Compactor(pair.store, Limits(journal_rows=1))
    for n in range(100):
        push_columns(pair, "last", np.array([YEAR_2030 + n]), np.array([1.0]))
        assert compactor.run_once()
    assert compactor.done.merges > 5
    compactor.close()
    assert len(rows(pair, "SELECT 1 FROM run WHERE dead_at IS NULL")) < 30
    pair.close()


def test_a_sum_of_sums_is_never_taken(place):
    """Equal keys are added up in the order of their commits, whatever was compacted with what."""
    pair = Pair(place)
    pair.create("here", ConflictPolicy.SUM)
    for n, values in enumerate(([1e16], [1.0, 1.0], [1.0, -1e16], [0.1, 0.2])):
        pair.push([("here", "sum", 0, YEAR_2030, value) for value in values])
        finish(pair.store, Limits(journal_readings=1, fan_in=2 if n == 2 else 100, look_s=0))
        pair.check()
    finish(pair.store)
    pair.check()
    assert rows(pair, "SELECT count FROM run") == [(1,)]
    pair.store.close()


def test_a_merge_beside_a_larger_run_adds_nothing_up(place):
    """Two small runs become one while an older, larger one of the month stays: its sums come first."""
    pair = Pair(place)
    pair.create("here", ConflictPolicy.SUM)
    limits = Limits(journal_readings=1, fan_in=2, look_s=0, quiet_s=1e6)
    pair.push([("here", "sum", 0, YEAR_2030 + n, 1e16) for n in range(100)])
    finish(pair.store, limits)
    for _ in range(2):
        pair.push([("here", "sum", 0, YEAR_2030, 1.0)])
        finish(pair.store, limits)
    assert rows(pair, "SELECT count FROM run ORDER BY count") == [(2,), (100,)]
    pair.check()
    finish(pair.store)
    assert rows(pair, "SELECT count FROM run") == [(100,)]
    pair.check()
    pair.close()


def test_a_deleted_metric_leaves_nothing_but_its_row(pair):
    """Readings, tombstone and labels go; the row stays, so that other workers learn of it."""
    metric = pair.known["here", "max"].metric
    pair.delete("here", "max")
    finish(pair.store)
    pair.check()
    first, last = metric.series_first, metric.series_last
    assert not rows(
        pair, f"SELECT 1 FROM run WHERE series_first <= {last} AND series_last >= {first} AND count = 0"
    )
    assert not rows(pair, "SELECT 1 FROM tombstone")
    assert not rows(pair, f"SELECT 1 FROM series WHERE metric = {metric.id}")
    assert len(rows(pair, f"SELECT 1 FROM metric WHERE id = {metric.id}")) == 1
    with closing(sqlite3.connect(pair.place.path)) as conn:
        _, runs = independent_reader._live_runs(conn, pair.org_ids["here"])
        left = independent_reader._runs(conn, runs)
    assert not [r for r in left if first <= r.series <= last]


def test_a_crash_leaves_rows_that_are_swept(pair):
    """Runs that were never finished go when the next compactor looks about."""
    with pair.store.database.writing() as conn:
        conn.exec_driver_sql(
            "INSERT INTO run (org, window, seq_first, seq_last, applied_seq, series_first, series_last, at_first,"
            " at_last, count, groups, bytes, directory) VALUES (1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, x'')"
        )
        conn.exec_driver_sql("INSERT INTO segment SELECT id << 20, 1, x'00' FROM run")
    finish(pair.store)
    assert not rows(pair, "SELECT 1 FROM run WHERE live_at IS NULL")
    assert verify(pair.place.url).ok
