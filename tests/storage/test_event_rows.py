"""Event rows as bytes: what goes in comes out, and nothing else is taken for a row."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.errors import DamagedError
from meterite.model.event import EventType
from meterite.model.event_row import Document, MetricName
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, QUIET, TRANSITION
from meterite.model.standing import Judged
from meterite.storage import event_rows
from meterite.storage.event_rows import Names, decode_events, encode_events, encode_name, event_checksum

NAMES = {1: MetricName("a", "A"), 2: MetricName("b", "B", "°C"), 3: MetricName('ü"', "")}
NONE = np.empty(0, TRANSITION)


def transition(series, kind=ABOVE_MAX, flags=0):
    row = np.zeros(1, TRANSITION)
    row["series"], row["kind"], row["flags"] = series, kind, flags
    return row


def encoded(transitions, documents, names):
    written = Names((id_, encode_name(id_, name)) for id_, name in names.items())
    return encode_events(Judged.of(transitions), documents, written)


def changed(metric_id, **data):
    return Document(EventType.CHANGED, metric_id, data)


@given(st.binary(max_size=97 * 3))
def test_what_goes_in_comes_out(noise):
    """Any bits of a transition, documents and names."""
    count = len(noise) // TRANSITION.itemsize
    transitions = np.frombuffer(noise[: count * TRANSITION.itemsize], TRANSITION).copy()
    transitions["series"] = 1 << 32
    documents = [changed(2, name=["old", "new"]), Document(EventType.DEAD, 0, {}, "ops")]
    (row,) = encoded(transitions, documents, NAMES)
    again, texts, names = decode_events(row.data)
    assert again.tobytes() == transitions.tobytes()
    assert texts == documents
    assert names == {id_: NAMES[id_] for id_ in ([1, 2] if count else [2])}
    assert row.count == count + 2


def test_few_and_many_have_the_same_bounds():
    """However they are found."""
    rows = [transition(m << 32, (ABOVE_MAX, BELOW_MIN)[m % 2], QUIET * (m == 9)) for m in (3, 4, 5, 9)]
    (few,) = encoded(np.concatenate(rows), [], NAMES)
    (many,) = encoded(np.concatenate(rows).repeat(3), [], NAMES)
    assert (few.metric_first, few.metric_last, few.types) == (3, 9, 3)
    assert (many.metric_first, many.metric_last, many.types) == (3, 9, 3)
    (quiet,) = encoded(rows[3], [], NAMES)
    assert quiet.types == 0


def test_bounds_and_types():
    """The metrics, 0 where an event is about none; a quiet transition adds its metric and no type."""
    quiet = transition(7 << 32, BELOW_MIN, QUIET)
    (row,) = encoded(np.concatenate([transition(3 << 32 | 9), quiet]), [], NAMES)
    assert (row.metric_first, row.metric_last, row.types, row.count) == (3, 7, 1, 2)
    (row,) = encoded(NONE, [changed(2), Document(EventType.DEAD, 0, {}, "x")], NAMES)
    assert (row.metric_first, row.metric_last, row.types, row.count) == (0, 2, 32 | 64, 2)
    assert encoded(NONE, [], {}) == []


def test_many_events_make_several_rows(monkeypatch):
    """Each with the names that it needs; order is kept."""
    monkeypatch.setattr(event_rows, "EVENT_ROW_EVENTS_MAX", 2)
    transitions = np.concatenate([transition(m << 32) for m in (1, 1, 2)])
    rows = [decode_events(r.data) for r in encoded(transitions, [changed(3)], NAMES)]
    assert [r[0]["series"].tolist() for r in rows] == [[1 << 32, 1 << 32], [2 << 32], []]
    assert [sorted(r[2]) for r in rows] == [[1], [2], [3]]
    assert [len(r[1]) for r in rows] == [0, 0, 1]


@given(st.data())
def test_damage_is_found(data):
    """Cut short, or with lengths that don't fit: DamagedError. The checksum covers every bit of the row."""
    (row,) = encoded(transition(1 << 32), [changed(1, unit=[None, "K"])], NAMES)
    columns = (5, 1, row.metric_first, row.metric_last, row.types, row.count, 77)
    with pytest.raises(DamagedError):
        decode_events(row.data[: data.draw(st.integers(0, len(row.data) - 1))])
    place = data.draw(st.integers(0, len(row.data) - 1))
    changed_data = bytearray(row.data)
    changed_data[place] ^= 1 << data.draw(st.integers(0, 7))
    assert event_checksum(*columns, bytes(changed_data)) != event_checksum(*columns, row.data)
    if place < 16:
        with pytest.raises(DamagedError):
            decode_events(bytes(changed_data))


def test_a_reader_that_knows_the_document_alone():
    """docs/format/events.md suffices to read a row, byte by byte, in plain Python."""
    quiet = transition(7 << 32 | 3, BELOW_MIN, QUIET)
    quiet["told"], quiet["since"], quiet["low"], quiet["extreme"], quiet["count"] = 1, -5, 1.5, 2.5, 9
    (row,) = encoded(np.concatenate([transition(3 << 32), quiet]), [changed(2, a=1)], NAMES)
    magic, n, b, d = struct.unpack_from("<4sIII", row.data)
    assert (magic, n, d) == (b"MEV1", 2, 1)
    fields = struct.unpack_from("<qBBBBBIqqdd" + "qd" * 3, row.data, 16 + 97)
    assert fields[:11] == (7 << 32 | 3, 2, 2, 0, 0, 1, 9, -5, 0, 1.5, 0.0)
    assert fields[-1] == 2.5
    documents = json.loads(row.data[16 + 97 * n : 16 + 97 * n + b])
    assert documents == [{"type": "meterite.metric.changed", "metric_id": 2, "data": {"a": 1}, "subject": ""}]
    names = json.loads(row.data[16 + 97 * n + b :])
    assert names["2"] == ["b", "B", "°C"]
    checked = struct.pack("<7q", 5, 1, row.metric_first, row.metric_last, row.types, row.count, 77)
    columns = (5, 1, row.metric_first, row.metric_last, row.types, row.count, 77)
    assert zlib.crc32(checked + row.data) == event_checksum(*columns, row.data)
