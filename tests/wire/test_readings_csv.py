"""``POST /readings`` as CSV; most of what it takes and refuses stands in ``corpus/csv``."""

from __future__ import annotations

import contextlib
import csv
import io
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.check import canonical_labels
from meterite.model.columns import NO_TIME, SeriesKey
from meterite.model.errors import InvalidInputError, MalformedError, MeteriteError, TooLargeError
from meterite.wire.readings_csv import decode_csv
from meterite.wire.rows import CsvRows

AT_US = 1_769_860_800_000_000


def decode(body, *, precision=None, readings_max=1000, metric=None):
    return decode_csv(
        body if isinstance(body, bytes) else body.encode(),
        precision=precision,
        readings_max=readings_max,
        metric=metric,
    )


def rows(decoded):
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    return list(zip(decoded.row.tolist(), keys, decoded.at_us.tolist(), decoded.values.tolist(), strict=True))


def test_an_answer_can_be_sent_back():
    """What ``GET …/readings`` writes is taken with ``?metric=``; a reading that has no number is skipped."""
    encoder = CsvRows()
    labels = [(("host", 'a, "b"'), ("z", "ü")), (), (("host", "c"),)]
    values, at_us = np.array([1.5, 2**60, np.nan]), np.array([AT_US, AT_US + 1, AT_US])
    body = encoder.head() + encoder.rows(values, at_us, at_us, list(map(canonical_labels, labels)))
    decoded = decode(body, metric="M1")
    assert rows(decoded) == [
        (2, SeriesKey("M1", labels[0]), AT_US, 1.5),
        (3, SeriesKey("M1"), AT_US + 1, 2.0**60),
    ]
    assert (decoded.rejected, decoded.skipped, decoded.counted) == ([], 1, "line")


def test_the_metric_is_named_once():
    """In a column or with the request."""
    with pytest.raises(InvalidInputError) as caught:
        decode("metric,reading\nM1,1\n", metric="M1")
    assert caught.value.code == "metric-twice"


@pytest.mark.parametrize("precision", ["s", "ms", "us", "ns"])
def test_integer_times(precision):
    """In the unit that the request says, which the receipt's checks get to know; a text is a time all the same."""
    time_ = AT_US // 10**6 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[precision]
    decoded = decode(f"metric,reading,reading_at\nM1,1,{time_}\nM1,2,\n", precision=precision)
    assert decoded.at_us.tolist() == [AT_US, NO_TIME]
    assert decoded.unit == precision
    with pytest.raises(InvalidInputError, match="precision"):
        decode("metric,reading\n", precision="h")


def test_a_label_of_many_ways_is_one_key():
    """JSON in any order, columns, empty ones: one series."""
    body = (
        "metric,reading,labels,labels.a\n"
        'M,1,"{""b"":""2"",""a"":""1""}",\n'
        'M,2,"{""b"":""2""}",1\n'
        'M,3,"{ ""a"":""1"", ""b"":""2""}",1\n'
    )
    decoded = decode(body)
    assert decoded.keys == [SeriesKey("M", (("a", "1"), ("b", "2")))]
    assert decoded.key_index.tolist() == [0, 0, 0]


def test_errors_lead_to_the_line():
    """What isn't CSV is told with the line on which its row begins."""
    with pytest.raises(MalformedError, match="line 3"):
        decode('metric,reading\nM1,1\nM1,"2\nM1,3\n')
    with pytest.raises(MalformedError, match="line 2"):
        decode(b"metric,reading\nM\xff,1\n")
    with pytest.raises(InvalidInputError, match="did you mean reading_at"):
        decode("metric,reading,readingat\n")


def test_bounds():
    """On readings, good and bad; on empty lines; on columns."""
    assert len(decode("metric,reading\n" + "M,1\n" * 5, readings_max=5)) == 5
    for body in ("M,1\n" * 6, "M,x\n" * 6, "\n" * 2000):
        with pytest.raises(TooLargeError):
            decode("metric,reading\n" + body, readings_max=5)
    names = ",".join(f"labels.{n}" for n in range(100))
    with pytest.raises(InvalidInputError, match="at most 64"):
        decode(f"metric,reading,{names}\n")


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)
LABELS = st.dictionaries(TEXTS, TEXTS, max_size=3)
ROWS = st.lists(
    st.tuples(
        TEXTS.filter(lambda code: code not in {".", ".."}),
        LABELS,
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-(2**50), 2**50),
    ),
    max_size=10,
)


@given(given_rows=ROWS, columns=st.booleans())
def test_round_trip(given_rows, columns):
    """What any writer of RFC 4180 writes of readings comes back; labels as JSON, or each in a column."""
    names = sorted({name for _, labels, _, _ in given_rows for name in labels}) if columns else []
    # The column's name is trimmed, so these names can't stand in a header.
    names = [name for name in names if name == name.rstrip()]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["metric", "reading", "reading_at", "labels", *(f"labels.{name}" for name in names)])
    for code, labels, value, at_us in given_rows:
        rest = tuple(sorted((name, text) for name, text in labels.items() if name not in names))
        writer.writerow(
            [code, repr(value), at_us, canonical_labels(rest), *(labels.get(n, "") for n in names)]
        )
    decoded = decode(out.getvalue(), precision="us")
    assert decoded.rejected == []
    assert rows(decoded) == [
        (line, SeriesKey(code, tuple(sorted(labels.items()))), at_us, value)
        for line, (code, labels, value, at_us) in enumerate(given_rows, 2)
    ]


PIECES = st.sampled_from(
    [
        b"metric",
        b"reading",
        b"reading_at",
        b"labels",
        b"labels.a",
        b",",
        b'"',
        b"\r",
        b"\n",
        b"{",
        b"1",
        b"\xc3",
    ]
)


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=40).map(b"".join)))
def test_any_bytes(body):
    """Readings or an error of ours."""
    for each in (body, b"metric,reading,labels,labels.a\n" + body):
        try:
            decode(each)
        except MeteriteError:
            continue


@pytest.mark.parametrize(
    "row", ["M,1,\n", "M,x,\n", 'M,1,"{""a"":""b""}"\n', 'M,1,"x\n', "\n", ",,,,,,\n", '"M""",1,\n']
)
def test_time_is_linear(row):
    """Ten times the body takes about ten times as long, whatever stands in it."""

    def took(count):
        body = ("metric,reading,labels\n" + row * count).encode()
        begun = time.process_time()
        with contextlib.suppress(MeteriteError):
            decode(body, readings_max=10**6)
        return time.process_time() - begun

    small = min(took(2000) for _ in range(3))
    assert min(took(20_000) for _ in range(2)) < 40 * small + 0.05
