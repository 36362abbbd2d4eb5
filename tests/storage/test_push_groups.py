"""Rows of groups: their format, and what damage to one costs."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, STALE_BITS, Batch
from meterite.model.errors import DamagedError
from meterite.model.metric import MetricSpec
from meterite.storage.interface import Append, PushGroup
from meterite.storage.maintenance import verify
from meterite.storage.push_groups import decode_group, encode_group, regroup
from meterite.storage.store import SqliteStore
from storage.place import batch_of, read, version_of


def push(store, org_id, *series):
    batch = batch_of([(s, NO_TIME, 1.0) for s in series])
    store.commit([Append(org_id, version_of(store), batch, group=PushGroup("ä", "all"))])


METRICS = range(1, 5)
PUSHES = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(["all", "metrics"]),
        st.sets(st.tuples(st.sampled_from(METRICS), st.integers(0, 3))),
        st.sets(st.sampled_from(METRICS)),
    ),
    max_size=6,
)
"""Of each the group, what it replaces, the series as metric and number, and the metrics that take no readings then."""


@given(PUSHES)
def test_groups_are_what_sets_say(pushes):
    """Who leaves, who stays and who is marked, of any pushes one behind the other; and the rows that are kept."""
    groups = {}
    with closing(sqlite3.connect(":memory:")) as raw:
        raw.execute("CREATE TABLE push_group (org, name, series, PRIMARY KEY (org, name))")
        raw.execute("CREATE TABLE metric (id INTEGER PRIMARY KEY, active, deleted_at)")
        raw.executemany("INSERT INTO metric (id) VALUES (?)", [(id_,) for id_ in METRICS])
        for name, replaces, named, inactive in pushes:
            raw.executemany(
                "UPDATE metric SET active = ? WHERE id = ?", [(m not in inactive, m) for m in METRICS]
            )
            brought = {metric << 32 | number for metric, number in named}
            before = groups.get(name, set())
            left = before - brought
            if replaces == "metrics":
                left = {s for s in left if s >> 32 in {b >> 32 for b in brought}}
            groups[name] = (before - left) | brought
            made = regroup(raw, 7, PushGroup(name, replaces), brings(sorted(brought)))
            assert marked(made) == sorted(s for s in left if s >> 32 not in inactive)
            assert made.series.tolist() == sorted(brought | set(marked(made)))
            kept = raw.execute("SELECT name, series FROM push_group WHERE org = 7").fetchall()
            found = {name: set(decode_group(7, name, data).tolist()) for name, data in kept}
            assert found == {name: series for name, series in groups.items() if series}


def brings(series):
    columns = np.arange(len(series), dtype=np.uint32), np.full(len(series), NO_TIME), np.zeros(len(series))
    return Batch(np.array(series, np.int64), *columns)


def marked(batch):
    stale = batch.values.view(np.uint64) == STALE_BITS
    assert (batch.at_us == NO_TIME).all()
    return batch.series[batch.series_index[stale]].tolist()


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
