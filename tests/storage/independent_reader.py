"""A reader of database files written from docs/format alone: nothing of Meterite is imported here.

It is slow and plain on purpose. Where it and the program disagree, one of them or the documents are wrong.
"""

from __future__ import annotations

import math
import sqlite3
import struct
import zlib
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from pcodec import standalone

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY_FIELDS = (
    "crc", "count", "bytes", "series_first", "series_last", "at_first", "at_last", "seq_first", "seq_last",
    "first_at", "last_at",
)  # fmt: skip
STATE_FIELDS = (
    "metric", "flags", "current_at", "current_series", "current_value", "last_at", "last_series",
    "last_value",
)  # fmt: skip


LIVE_RUN_FIELDS = (
    "id", "window", "seq_first", "seq_last", "applied_seq", "series_first", "series_last", "at_first", "at_last",
    "count", "bytes", "live_at", "groups", "directory_crc",
)  # fmt: skip


class Reading(NamedTuple):
    series: int
    at: int
    value: float
    seq: int


class Tombstone(NamedTuple):
    seq: int
    series_first: int
    series_last: int
    series: frozenset[int] | None
    at_first: int
    at_last: int

    def hides(self, reading: Reading) -> bool:
        return (
            reading.seq < self.seq
            and self.series_first <= reading.series <= self.series_last
            and self.at_first <= reading.at <= self.at_last
            and (self.series is None or reading.series in self.series)
        )


def checked(blob: bytes, magic: bytes) -> bytes:
    """What lies behind magic and checksum."""
    assert blob[:4] == magic
    (crc,) = struct.unpack_from("<I", blob, 4)
    assert zlib.crc32(blob[8:]) == crc
    return blob[8:]


def section(data: bytes, letter: str, count: int) -> list:
    """A column; the letter is struct's: q, d, i or I."""
    kind, body = data[0], data[1:]
    if kind == 0:
        return list(struct.unpack(f"<{count}{letter}", body))
    if kind == 1:
        column = standalone.simple_decompress(body).tolist()
        assert len(column) == count
        return column
    if kind == 2:
        return list(struct.unpack("<" + letter, body)) * count
    parts, size = struct.unpack_from("<II", body)
    first, second = body[8 : 8 + size], body[8 + size :]
    if kind == 3:
        lengths, numbers = section(first, "I", parts), section(second, letter, parts)
        column = [number for number, length in zip(numbers, lengths, strict=True) for _ in range(length)]
        assert len(column) == count
        return column
    assert kind == 4
    table = section(first, letter, parts)
    return [table[number] for number in section(second, "I", count)]


def value_section(data: bytes, count: int) -> list[float]:
    if data[0] != 5:
        return section(data, "d", count)
    places, width, apart, size = struct.unpack_from("<BBII", data, 1)
    values = [n / 10**places for n in section(data[11 : 11 + size], {4: "i", 8: "q"}[width], count)]
    if apart:
        (rows,) = struct.unpack_from("<I", data, 11 + size)
        place = 15 + size
        numbers = section(data[place : place + rows], "I", apart)
        for row, value in zip(numbers, section(data[place + rows :], "d", apart), strict=True):
            values[row] = value
    return values


def time_section(data: bytes, count: int, ends: list[int]) -> list[int]:
    if data[0] != 6:
        return section(data, "q", count)
    unit, *sizes = struct.unpack_from("<qIII", data, 1)
    pieces, place = [], 21
    for size in [*sizes, len(data)]:
        pieces.append(data[place : place + size])
        place += size
    bases, steps = section(pieces[0], "q", len(ends)), section(pieces[1], "q", len(ends))
    hops, rest = section(pieces[2], "I", count), section(pieces[3], "I", count)
    at, start = [], 0
    for base, step, end in zip(bases, steps, ends, strict=True):
        slot = 0
        for row in range(start, end):
            slot += hops[row] if row > start else 0
            at.append(base + slot * step + rest[row] * unit)
        start = end
    return at


def pieces_of(blob: bytes) -> list[bytes]:
    """A row group's five sections."""
    body = checked(blob, b"MRG1")
    lengths = struct.unpack_from("<5I", body, 8)
    pieces, place = [], 28 + 48
    for length in lengths:
        pieces.append(body[place : place + length])
        place += length
    assert place == len(body)
    return pieces


def row_group(blob: bytes) -> list[Reading]:
    count, distinct = struct.unpack_from("<II", blob, 8)
    pieces = pieces_of(blob)
    table, ends = section(pieces[0], "q", distinct), section(pieces[1], "I", distinct)
    series, start = [], 0
    for one, end in zip(table, ends, strict=True):
        series += [one] * (end - start)
        start = end
    columns = [
        time_section(pieces[2], count, ends),
        value_section(pieces[3], count),
        section(pieces[4], "q", count),
    ]
    return [Reading(*row) for row in zip(series, *columns, strict=True)]


def journal_row(data: bytes, seq: int) -> list[Reading]:
    magic, count, distinct, width, kind = struct.unpack_from("<4sIIBB2x", data)
    assert magic == b"MJN1"
    place = 16
    table = struct.unpack_from(f"<{distinct}q", data, place)
    place += 8 * distinct
    index = [0] * count
    if width:
        index = list(struct.unpack_from(f"<{count}{ {1: 'B', 2: 'H', 4: 'I'}[width] }", data, place))
        place += width * count
    if kind == 0:
        at = list(struct.unpack_from(f"<{count}q", data, place))
        place += 8 * count
    else:
        assert kind == 1
        base, *offsets = struct.unpack_from(f"<q{count}I", data, place)
        at = [base + offset for offset in offsets]
        place += 8 + 4 * count
    values = struct.unpack_from(f"<{count}d", data, place)
    assert place + 8 * count == len(data)
    return [Reading(table[i], t, v, seq) for i, t, v in zip(index, at, values, strict=True)]


def packed_rows(blob: bytes, magic: bytes, layout: str) -> list[tuple]:
    body = checked(blob, magic)
    (count,) = struct.unpack_from("<I", body)
    rows = list(struct.iter_unpack(layout, body[4:]))
    assert len(rows) == count
    return rows


def directory(blob: bytes) -> list[dict[str, int]]:
    return [dict(zip(DIRECTORY_FIELDS, row, strict=True)) for row in packed_rows(blob, b"MRD1", "<3I8q")]


def state_block(blob: bytes) -> list[dict[str, float]]:
    return [dict(zip(STATE_FIELDS, row, strict=True)) for row in packed_rows(blob, b"MST1", "<qBqqdqqd")]


def live_runs(blob: bytes, org: int) -> tuple[int, list[dict[str, int]]]:
    """Up to which seq the org's journal lies in runs, and these."""
    body = checked(blob, b"MLR1")
    count, owner, compacted_seq = struct.unpack_from("<Iqq", body)
    assert owner == org
    rows = list(struct.iter_unpack("<12q2I", body[20:]))
    assert len(rows) == count
    return compacted_seq, [dict(zip(LIVE_RUN_FIELDS, row, strict=True)) for row in rows]


def commit_times(blob: bytes) -> dict[int, int]:
    body = checked(blob, b"MCT1")
    count, first = struct.unpack_from("<II", body)
    seq, recorded_at = section(body[8 : 8 + first], "q", count), section(body[8 + first :], "q", count)
    return dict(zip(seq, recorded_at, strict=True))


def resolved(readings: list[Reading], policy: str) -> float:
    """Of readings with one series and one time, from the oldest to the newest."""
    numbers = [r.value for r in readings if not math.isnan(r.value)]
    if not numbers:
        return math.nan
    if policy == "sum":
        total = numbers[0]
        for number in numbers[1:]:
            if math.isfinite(total):
                total += number
        return total
    return {"last": numbers[-1], "first": numbers[0], "min": min(numbers), "max": max(numbers)}[policy]


def read_database(path: str | Path, org: str | None = None) -> dict[tuple[str, str, int], float]:
    """(code, labels as canonical JSON, at in µs) → value, of one org or, where codes differ, of all."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")  # one snapshot for all that follows
        result = {}
        for org_id, name in db.execute("SELECT id, name FROM org").fetchall():
            if org in {None, name}:
                result.update(_read_org(db, org_id))
        return result


def _read_org(db: sqlite3.Connection, org: int) -> dict[tuple[str, str, int], float]:
    metrics = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT id, code, on_conflict FROM metric WHERE org = ? AND deleted_at IS NULL", (org,)
        )
    }
    labels = dict(db.execute("SELECT id, labels FROM series WHERE org = ?", (org,)).fetchall())
    tombstones = [
        Tombstone(*row[:3], None if row[3] is None else frozenset(_int64s(row[3])), *row[4:])
        for row in db.execute(
            "SELECT seq, series_first, series_last, series, at_first, at_last FROM tombstone WHERE org = ?",
            (org,),
        )
    ]
    by_key: dict[tuple[int, int], list[Reading]] = {}
    compacted_seq, runs = _live_runs(db, org)
    readings = _runs(db, runs) + _journal(db, org, compacted_seq)
    for reading in sorted(readings, key=lambda r: r.seq):
        if not any(t.hides(reading) for t in tombstones):
            by_key.setdefault((reading.series, reading.at), []).append(reading)
    result = {}
    for (series, at), same in by_key.items():
        if series >> 32 in metrics:
            code, policy = metrics[series >> 32]
            key = (code, labels[series] if series & 0xFFFFFFFF else "{}", at)
            result[key] = resolved(same, policy)
    return result


def _int64s(blob: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(blob) // 8}q", blob)


def _quarantined(db: sqlite3.Connection, kind: str) -> set[int]:
    return {row[0] for row in db.execute("SELECT row_id FROM quarantine WHERE kind = ?", (kind,))}


def _live_runs(db: sqlite3.Connection, org: int) -> tuple[int, list[dict[str, int]]]:
    found = db.execute("SELECT data FROM live_runs WHERE org = ?", (org,)).fetchone()
    return (0, []) if found is None else live_runs(found[0], org)


def _runs(db: sqlite3.Connection, runs: list[dict[str, int]]) -> list[Reading]:
    readings: list[Reading] = []
    bad = _quarantined(db, "segment")
    for run in runs:
        (blob,) = db.execute("SELECT directory FROM run WHERE id = ?", (run["id"],)).fetchone()
        assert struct.unpack_from("<I", blob, 4) == (run["directory_crc"],)
        entries = directory(blob)
        assert (len(entries), sum(entry["count"] for entry in entries)) == (run["groups"], run["count"])
        for number, entry in enumerate(entries):
            segment = run["id"] << 20 | number
            if segment in bad:
                continue
            (data,) = db.execute("SELECT data FROM segment WHERE id = ?", (segment,)).fetchone()
            group = row_group(data)
            assert (len(data), len(group)) == (entry["bytes"], entry["count"])
            assert struct.unpack_from("<I", data, 4) == (entry["crc"],)
            readings += group
    return readings


def _journal(db: sqlite3.Connection, org: int, compacted_seq: int) -> list[Reading]:
    readings: list[Reading] = []
    bad = _quarantined(db, "journal")
    query = (
        "SELECT id, org, series_first, series_last, at_first, at_last, count, recorded_at, checksum, data"
        " FROM journal WHERE org = ? AND id >> 16 > ? ORDER BY id"
    )
    for *columns, checksum, data in db.execute(query, (org, compacted_seq)):
        if columns[0] in bad:
            continue
        lower, upper = struct.unpack("<2I", struct.pack("<q", checksum))
        assert zlib.crc32(struct.pack("<8q", *columns)) == upper
        assert zlib.crc32(data, upper) == lower
        rows = journal_row(data, columns[0] >> 16)
        assert len(rows) == columns[6]
        readings += rows
    return readings
