"""Rows of groups: their format, and what damage to one costs."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from contextlib import closing

import numpy as np
import pytest

from meterite.model.columns import NO_TIME
from meterite.model.errors import DamagedError
from meterite.model.metric import MetricSpec
from meterite.storage.interface import Append, PushGroup
from meterite.storage.maintenance import verify
from meterite.storage.push_groups import decode_group, encode_group
from meterite.storage.store import SqliteStore
from storage.place import batch_of, read, version_of


def push(store, org_id, *series):
    batch = batch_of([(s, NO_TIME, 1.0) for s in series])
    store.commit([Append(org_id, version_of(store), batch, group=PushGroup("ä", "all"))])


def test_a_group_is_as_the_format_says():
    """Magic, checksum over org, name and series, series; and it is read back."""
    series = np.array([1, 1 << 40], np.int64)
    ids = struct.pack("<2q", 1, 1 << 40)
    crc = zlib.crc32(struct.pack("<q", 7) + "ä".encode() + ids)
    data = encode_group(7, "ä", series)
    assert data == b"MPG1" + struct.pack("<I", crc) + ids
    assert decode_group(7, "ä", data).tolist() == series.tolist()


@pytest.mark.parametrize("change", ["org", "name", "bit", "cut", "magic", "empty", "text", "null"])
def test_damage_is_seen(change):
    """Whatever part it is in."""
    data = encode_group(7, "a", np.array([1, 2], np.int64))
    org_id, name = (8 if change == "org" else 7), ("b" if change == "name" else "a")
    spoilt = {
        "bit": data[:-1] + b"\x01",
        "cut": data[:-8],
        "magic": b"MPG2" + data[4:],
        "empty": b"",
        "text": "text",
        "null": None,
    }.get(change, data)
    with pytest.raises(DamagedError):
        decode_group(org_id, name, spoilt)


def test_a_damaged_group_takes_pushes(tmp_path):
    """It counts as empty: what it had goes on without a marker; a check tells of it until the next push."""
    path = tmp_path / "m.db"
    store = SqliteStore(path)
    store.open()
    org_id = store.catalog.org_id("here")
    metrics = [store.catalog.create("here", MetricSpec(code=code, name=code)) for code in "ab"]
    a, b = (metric.series_first for metric in metrics)
    push(store, org_id, a)
    assert verify(f"sqlite:///{path}").ok
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("UPDATE push_group SET series = x'00'")
        conn.commit()
    fault, _ = verify(f"sqlite:///{path}").lines
    assert fault.startswith("push_group row 1: ")
    push(store, org_id, b)
    assert [series for series, _, _ in read(store, org_id)] == [a, b]
    push(store, org_id, a)
    assert [series for series, _, _ in read(store, org_id)] == [a, a, b, b]
    assert verify(f"sqlite:///{path}").ok
    store.close()
