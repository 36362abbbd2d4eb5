"""The documents of the format suffice: a reader written from them alone reads what the encoders write."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing

import numpy as np
import pytest

from meterite.model.columns import Batch, Columns
from meterite.storage.commit_times import encode_commit_times
from meterite.storage.journalrow import encode_journal, journal_checksum
from meterite.storage.live_runs import LIVE_RUN, LiveRuns, Run, directory_crc, encode_live_runs
from meterite.storage.rowgroup import DIRECTORY, directory_entry, encode_directory, encode_row_group
from meterite.storage.state_block import STATE, encode_state_block
from storage import independent_reader as reader

NEW_YEAR = 1_767_225_600_000_000


def columns_of(count: int) -> Columns:
    rng = np.random.default_rng(count)
    return Columns(
        np.sort(rng.integers(1 << 32, (1 << 32) + 5, count)),
        NEW_YEAR + np.arange(count) * 10_000_000,
        np.round(rng.normal(20, 5, count), 2),
        rng.integers(1, 9, count),
    )


def rows_of(columns: Columns) -> list[tuple]:
    fields = (columns.series, columns.at_us, columns.values, columns.seq)
    return list(zip(*(f.tolist() for f in fields), strict=True))


@pytest.mark.parametrize("count", [1, 23, 24, 5000])
def test_row_groups_and_directories(count):
    """Raw, constant and compressed sections; the directory's fields by name."""
    columns = columns_of(count)
    blob = encode_row_group(columns)
    assert [tuple(r) for r in reader.row_group(blob)] == rows_of(columns)
    entry = directory_entry(blob, columns)
    (read,) = reader.directory(encode_directory(entry))
    assert tuple(read) == DIRECTORY.names
    assert tuple(read.values()) == entry[0].item()


def test_every_kind_of_section_in_a_row_group():
    """Runs, a table, decimals in both widths with others among them, a grid with gaps and one without."""
    count, rng = 600, np.random.default_rng(1)
    jitter = rng.integers(-90, 91, count) * 1000
    gaps = np.cumsum(rng.choice([1, 1, 1, 4], count))
    values = np.round(rng.normal(20, 5, count), 2)
    values[[3, 500]] = [np.inf, 1 / 3]
    kinds = set()
    for slots, scale, seq in ((gaps, 1.0, 3), (np.arange(count), 1e6, 300)):
        columns = Columns(
            np.repeat([7, 9, 12], count // 3),
            NEW_YEAR + slots * 10_000_000 + jitter,
            np.where(values == np.inf, values, np.round(values * scale, 2)),
            np.arange(count) // seq * 5 + 17,
        )
        blob = encode_row_group(columns)
        assert [tuple(r) for r in reader.row_group(blob)] == rows_of(columns)
        kinds |= {piece[0] for piece in reader.pieces_of(blob)}
    assert {3, 4, 5, 6} <= kinds


@pytest.mark.parametrize("distinct", [1, 5, 300, 65_537])
@pytest.mark.parametrize("step", [1, 2**32])
def test_journal_rows(distinct, step):
    """Every width of the index, both kinds of times."""
    index = np.arange(20) * 7 % distinct
    at, values = np.arange(20) * step - 3, np.arange(20) / 3
    batch = Batch(np.arange(distinct), index.astype(np.uint32), at, values)
    expected = [(i, t, v, 9) for i, t, v in zip(index.tolist(), at.tolist(), values.tolist(), strict=True)]
    assert [tuple(r) for r in reader.journal_row(encode_journal(batch), 9)] == expected


def run_of(run: int, *, count: int, directory: bytes) -> Run:
    """A run of one row group; the bounds are numbers of their own."""
    return Run(run, 2, 3, 4, 5, 6, 7, 8, 9, count, 11, 12, groups=1, directory_crc=directory_crc(directory))


def test_lists_of_live_runs():
    """By the names of the fields; an org without runs has one, too."""
    runs = tuple(run_of(n, count=n, directory=bytes(4) + bytes([n, 1, 0, 255])) for n in (1, 70))
    seq, read = reader.live_runs(encode_live_runs(LiveRuns.of(9, 77, runs)), 9)
    assert seq == 77
    assert [tuple(one) for one in read] == [LIVE_RUN.names] * 2
    assert [Run(**one) for one in read] == list(runs)
    assert reader.live_runs(encode_live_runs(LiveRuns.of(9, 78, ())), 9) == (78, [])


def test_commit_times_and_state_blocks():
    """By seq, and by the names of the fields."""
    seq = np.arange(1, 100)
    assert reader.commit_times(encode_commit_times(seq, seq * 1000)) == {s: s * 1000 for s in range(1, 100)}
    row = (7, 3, NEW_YEAR, 7 << 32, 1.5, NEW_YEAR - 1, (7 << 32) + 1, -2.0)
    (read,) = reader.state_block(encode_state_block(np.array([row], STATE)))
    assert tuple(read) == STATE.names
    assert tuple(read.values()) == row


def test_a_database_put_together_by_hand(tmp_path):
    """What is live is read, what is dead, compacted, erased or quarantined is not; policies decide."""
    path = tmp_path / "meterite.db"
    with closing(sqlite3.connect(path)) as db:
        _make_tables(db)
        _fill(db)
        db.commit()
    assert reader.read_database(path) == {
        ("sum", "{}", 10): 3.0,
        ("last", "{}", 10): 8.0,
        ("last", '{"host":"a"}', 10): 6.0,
    }
    assert reader.read_database(path, "other") == {}


# Only the columns that a reader of readings looks at; docs/format/tables.md has all of them.
TABLES = {
    "org": "id, name",
    "metric": "id, org, code, on_conflict, deleted_at",
    "series": "id, org, labels",
    "journal": "id, org, series_first, series_last, at_first, at_last, count, recorded_at, checksum, data",
    "live_runs": "org, data",
    "run": "id, org, directory",
    "segment": "id, org, data",
    "tombstone": "id, org, seq, series, series_first, series_last, at_first, at_last",
    "quarantine": "id, org, kind, row_id",
}


def _make_tables(db: sqlite3.Connection) -> None:
    for name, columns in TABLES.items():
        db.execute(f"CREATE TABLE {name} ({columns})")


def _insert(db: sqlite3.Connection, table: str, **row: object) -> None:
    names = ", ".join(row)
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def _journal(db: sqlite3.Connection, seq: int, rows: list[tuple[int, int, float]]) -> None:
    series = sorted({r[0] for r in rows})
    index = np.array([series.index(r[0]) for r in rows], np.uint32)
    at = [r[1] for r in rows]
    data = encode_journal(
        Batch(np.array(series), index, np.array(at), np.array([r[2] for r in rows], np.float64))
    )
    columns = (seq << 16, 1, series[0], series[-1], min(at), max(at), len(rows), NEW_YEAR)
    names = ("id", "org", "series_first", "series_last", "at_first", "at_last", "count", "recorded_at")
    checksum = journal_checksum(*columns, data)
    _insert(db, "journal", **dict(zip(names, columns, strict=True)), checksum=checksum, data=data)


def _run(db: sqlite3.Connection, run: int, rows: list[tuple]) -> Run:
    columns = Columns(*(np.array(c) for c in zip(*rows, strict=True)))
    blob = encode_row_group(columns)
    directory = encode_directory(directory_entry(blob, columns))
    _insert(db, "run", id=run, org=1, directory=directory)
    _insert(db, "segment", id=run << 20, org=1, data=blob)
    return run_of(run, count=len(columns), directory=directory)


def _fill(db: sqlite3.Connection) -> None:
    summed, last, labelled = 1 << 32, 2 << 32, (2 << 32) + 1
    _insert(db, "org", id=1, name="org_01")
    _insert(db, "org", id=2, name="other")
    _insert(db, "metric", id=1, org=1, code="sum", on_conflict="sum")
    _insert(db, "metric", id=2, org=1, code="last", on_conflict="last")
    _insert(db, "metric", id=3, org=1, code="gone", on_conflict="last", deleted_at=1)
    _insert(db, "series", id=labelled, org=1, labels='{"host":"a"}')
    live = _run(db, 1, [(summed, 10, 1.0, 1), (last, 10, 5.0, 2), (labelled, 10, 6.0, 3)])
    _run(db, 2, [(last, 20, 7.0, 2)])
    damaged = _run(db, 4, [(last, 40, 7.0, 2)])
    _insert(db, "live_runs", org=1, data=encode_live_runs(LiveRuns.of(1, 4, (live, damaged))))
    _insert(db, "quarantine", org=1, kind="segment", row_id=4 << 20)
    _journal(db, 4, [(summed, 10, 100.0)])
    _journal(
        db, 5, [(summed, 10, 2.0), (last, 10, 8.0), (last, 50, 9.0), (labelled, 50, 9.0), (3 << 32, 1, 1.0)]
    )
    erased = struct.pack("<2q", last, labelled)
    bounds = {"series_first": last, "series_last": labelled, "at_first": 50, "at_last": 60}
    _insert(db, "tombstone", org=1, seq=6, series=erased, **bounds)
