"""Readings on their way out."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.check import canonical_labels, check_labels, parse_labels
from meterite.model.columns import NO_TIME
from meterite.model.time import format_rfc3339, parse_rfc3339
from meterite.wire.rows import CSV, ENCODERS, JSON, NDJSON, CsvRows, JsonRows, NdjsonRows

TIME = st.integers(-(10**15), 4 * 10**15)
LABELS = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=4),
    max_size=2,
).map(check_labels)
ROWS = st.lists(
    st.tuples(
        st.floats(allow_nan=False, allow_infinity=False), TIME, st.sampled_from([0, 1, 10**15]), LABELS
    ),
    max_size=12,
)


def encode(media, slices, *, labelled=True):
    """The whole document."""
    encoder = ENCODERS[media]()
    assert encoder.media_type == media
    parts = [encoder.head()]
    for rows in slices:
        values, at_us, recorded, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
        parts.append(
            encoder.rows(
                np.array(values, np.float64),
                np.array(at_us, np.int64),
                np.array(recorded, np.int64),
                [canonical_labels(ls) for ls in labels] if labelled else None,
            )
        )
    return b"".join([*parts, encoder.tail()])


def loaded(media, document):
    """The rows, by other programs' readers."""
    if media == CSV:
        return list(csv.DictReader(io.StringIO(document.decode(), newline="")))
    lines = document.decode().removesuffix("\n").split("\n") if document else []
    return [json.loads(line) for line in lines] if media == NDJSON else json.loads(document)


def read(media, document):
    """(value, time, recorded, labels) of each row."""
    rows = loaded(media, document)
    if media == CSV:
        for row in rows:
            row["labels"] = parse_labels(row["labels"] or "{}")
    else:
        for row in rows:
            assert row.get("labels") != {}
            row["labels"] = tuple(row.get("labels", {}).items())
    return [
        (float(r["reading"]), parse_rfc3339(r["reading_at"]), parse_rfc3339(r["recorded_at"]), r["labels"])
        for r in rows
    ]


@pytest.mark.parametrize("media", [JSON, NDJSON, CSV])
@given(slices=st.lists(ROWS, max_size=3))
def test_every_row_reads_back(media, slices):
    """However they were sliced, and whatever stands in labels; without labels nothing is said of them."""
    rows = [row for part in slices for row in part]
    assert read(media, encode(media, slices)) == rows
    bare = encode(media, slices, labelled=False)
    assert bare == encode(media, [[(*row[:3], ()) for row in part] for part in slices])
    assert media == CSV or b"labels" not in bare


def test_the_documents_to_the_byte():
    """A row with labels, and one without."""
    rows = [(1.0, 0, 5, (("a", 'x"'),)), (2.5, 10**6, 5, ())]
    first = (
        b'{"reading":1,"reading_at":"1970-01-01T00:00:00Z","recorded_at":"1970-01-01T00:00:00.000005Z",'
        b'"labels":{"a":"x\\""}}'
    )
    second = (
        b'{"reading":2.5,"reading_at":"1970-01-01T00:00:01Z","recorded_at":"1970-01-01T00:00:00.000005Z"}'
    )
    assert encode(JSON, [rows]) == b"[\n" + first + b",\n" + second + b"\n]\n"
    assert encode(NDJSON, [rows]) == first + b"\n" + second + b"\n"
    assert encode(CSV, [rows]) == (
        b"reading,reading_at,recorded_at,labels\r\n"
        b'1,1970-01-01T00:00:00Z,1970-01-01T00:00:00.000005Z,"{""a"":""x\\""""}"\r\n'
        b"2.5,1970-01-01T00:00:01Z,1970-01-01T00:00:00.000005Z,\r\n"
    )
    assert encode(JSON, []) == b"[]\n"


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("media", [JSON, NDJSON, CSV])
def test_a_time_of_recording_that_isnt_known(media, labelled):
    """Null, in CSV nothing; all else of the row stands, and the rows around it."""
    recorded = [5, NO_TIME, NO_TIME, 5, 10**15]
    rows = [(float(n), n, at, (("a", "x"),) if n % 2 else ()) for n, at in enumerate(recorded)]
    known = [[(*row[:2], 7, row[3]) for row in rows]]
    found, expected = (loaded(media, encode(media, part, labelled=labelled)) for part in ([rows], known))
    times = [row.pop("recorded_at") or None for row in found]
    assert times == [None if at == NO_TIME else format_rfc3339(at) for at in recorded]
    assert found == [{name: row[name] for name in row if name != "recorded_at"} for row in expected]


def test_what_is_no_number():
    """JSON has no NaN and no infinities; they stay apart from numbers."""
    values = np.array([math.nan, math.inf, -math.inf, 1.5])
    zeros = np.zeros(4, np.int64)
    rows = json.loads(b"[" + JsonRows().rows(values, zeros, zeros, None) + b"]")
    assert [row["reading"] for row in rows] == [None, "+Inf", "-Inf", 1.5]
    lines = CsvRows().rows(values, zeros, zeros, None).decode().split("\r\n")[:-1]
    assert [line.partition(",")[0] for line in lines] == ["", "+Inf", "-Inf", "1.5"]
    assert NdjsonRows().rows(values[:1], zeros[:1], zeros[:1], None).startswith(b'{"reading":null,')


def test_runs_of_one_time():
    """Many rows of few commits have their own commit's time."""
    recorded = np.repeat(np.array([5, 7, 5], np.int64), [50, 1, 49])
    lines = NdjsonRows().rows(np.arange(100.0), np.arange(100), recorded, None).splitlines()
    assert [json.loads(line)["recorded_at"] for line in lines] == [
        format_rfc3339(us) for us in recorded.tolist()
    ]
