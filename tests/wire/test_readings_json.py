"""``POST /readings`` as JSON and NDJSON."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, SeriesKey
from meterite.model.errors import InvalidInputError, MalformedError, MeteriteError, TooLargeError
from meterite.model.time import format_rfc3339
from meterite.wire import readings_json
from meterite.wire.readings_json import decode_json, decode_ndjson

T = 1767225600


def decode(document, *, precision=None, readings_max=1000, ndjson=False):
    """The decoded readings of bytes, or of what json makes of the document."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return (decode_ndjson if ndjson else decode_json)(body, precision=precision, readings_max=readings_max)


def plain(decoded):
    """Comparable: (number in the request, code, labels, time, value) and the rejections."""
    rows = range(len(decoded)) if decoded.row is None else decoded.row.tolist()
    keys = [decoded.keys[i] for i in decoded.key_index.tolist()]
    assert len(set(decoded.keys)) == len(decoded.keys)
    assert decoded.values.dtype == np.float64
    assert decoded.at_us.dtype == np.int64
    assert decoded.key_index.dtype == np.uint32
    times, values = decoded.at_us.tolist(), decoded.values.tolist()
    taken = [(n, k.code, k.labels, t, v) for n, k, t, v in zip(rows, keys, times, values, strict=True)]
    return taken, [(r.index, r.code) for r in decoded.rejected]


def outcome(way, *args):
    """What came out, or the error."""
    try:
        return plain(way(*args))
    except MeteriteError as exc:
        return type(exc), exc.code


ROW = {"metric": "M1", "reading": 1.5, "reading_at": "2026-01-01T00:00:00Z", "labels": {"b": "2", "a": "1"}}


def test_rows_columns_and_one_object():
    """The three shapes of one thing."""
    labels = (("a", "1"), ("b", "2"))
    assert plain(decode([ROW])) == plain(decode(ROW)) == ([(0, "M1", labels, T * 10**6, 1.5)], [])
    columns = {"metric": "M1", "reading": [1, 2.5], "reading_at": [T, T + 1]}
    expected = [(0, "M1", (), T * 10**6, 1.0), (1, "M1", (), (T + 1) * 10**6, 2.5)]
    assert plain(decode(columns, precision="s")) == (expected, [])
    assert plain(decode([columns], precision="s")) == (expected, [])
    assert plain(decode({"metric": "M1", "reading": [7]})) == ([(0, "M1", (), NO_TIME, 7.0)], [])
    assert plain(decode([])) == ([], [])


def test_rows_and_columns_may_mix():
    """Readings of columns are counted one by one."""
    decoded = decode([{"metric": "A", "reading": [1, None, 3]}, {"metric": "B", "reading": "4"}])
    assert plain(decoded) == (
        [(0, "A", (), NO_TIME, 1.0), (2, "A", (), NO_TIME, 3.0), (3, "B", (), NO_TIME, 4.0)],
        [(1, "reading-invalid")],
    )


def test_labels_are_one_key_however_they_are_written():
    """Order, whitespace and empty values make no other series."""
    body = (
        b'[{"metric":"A","reading":1,"labels":{"a":"1","b":"2"}},'
        b'{"metric":"A","reading":1,"labels":{"b":"2", "a":"1"}},'
        b'{"metric":"A","reading":1,"labels":{}},{"metric":"A","reading":1},'
        b'{"metric":"A","reading":1,"labels":{"a":""}}]'
    )
    decoded = decode(body)
    assert decoded.keys == [SeriesKey("A", (("a", "1"), ("b", "2"))), SeriesKey("A")]
    assert decoded.key_index.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42.0),
        ('"42.5"', 42.5),
        ('" -1e3 "', -1000.0),
        ("9007199254740993", 9007199254740992.0),
        ("1" + "0" * 308, 1e308),
        ("0.1" + "0" * 5000, 0.1),
    ],
)
def test_what_a_reading_is(text, value):
    """A number or a numeric string; beyond 2⁵³ the nearest float64."""
    for ndjson in (False, True):
        body = f'{{"metric":"A","reading":{text}}}'.encode()
        assert decode(body, ndjson=ndjson).values.tolist() == [value]


@pytest.mark.parametrize(
    "text",
    [
        "true", "null", "NaN", "Infinity", "-Infinity", "1e999",
        '"1e999"', '"nan"', '"inf"', '"1_0"', '""', '"x"',
        "{}", "1" + "0" * 309, "1" * 100_000, '"' + "1" * 401 + '"', '"\\u0661"',
    ],
)  # fmt: skip
def test_what_a_reading_is_not(text):
    """Rejected alone, by its number; the others are taken."""
    good = '{"metric":"A","reading":1}'
    bad = f'{{"metric":"A","reading":{text}}}'
    expected = [(0, "A", (), NO_TIME, 1.0), (2, "A", (), NO_TIME, 1.0)], [(1, "reading-invalid")]
    assert plain(decode(f"[{good},{bad},{good}]".encode())) == expected
    assert plain(decode(f"{good}\n\n{bad}\r\n{good}\n".encode(), ndjson=True)) == expected
    assert plain(decode(f'{{"metric":"A","reading":[1,{text},1]}}'.encode())) == expected


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"metric": "A"}, "missing-field"),
        ({"reading": 1}, "missing-field"),
        ({"metric": "A", "reading": 1, "label": {}}, "unknown-field"),
        ({"metric": 5, "reading": 1}, "code-invalid"),
        ({"metric": "..", "reading": 1}, "code-invalid"),
        ({"metric": "\ud800", "reading": 1}, "code-invalid"),
        ({"metric": "A", "reading": 1, "labels": []}, "label-invalid"),
        ({"metric": "A", "reading": 1, "labels": {"a": 1}}, "label-invalid"),
        ({"metric": "A", "reading": 1, "reading_at": T}, "time-invalid"),
        ({"metric": "A", "reading": 1, "reading_at": "yesterday"}, "time-invalid"),
        ({"metric": "A", "reading": 1, "reading_at": True}, "time-invalid"),
        ({"metric": "A", "reading": 1, "reading_at": "1500-01-01T00:00:00Z"}, "time-out-of-range"),
        ({"metric": "A", "reading": 1, "reading_at": ["2026-01-01T00:00:00Z"]}, "time-invalid"),
        ({"metric": "A", "reading": [1], "reading_at": "2026-01-01T00:00:00Z"}, "lengths-differ"),
        ({"metric": "A", "reading": [1], "reading_at": []}, "lengths-differ"),
        (5, "reading-invalid"),
        ([], "reading-invalid"),
    ],
)
def test_what_a_row_is_rejected_for(row, code):
    """Each fault has its code, and spoils no other row."""
    good = {"metric": "B", "reading": 1}
    decoded = decode([good, row, good])
    assert plain(decoded) == ([(0, "B", (), NO_TIME, 1.0), (2, "B", (), NO_TIME, 1.0)], [(1, code)])
    assert len(decoded.rejected[0].reason) < 200


def test_sentences_help():
    """The nearest field, the missing precision."""
    assert (
        "did you mean reading_at?" in decode({"metric": "A", "reading": 1, "readingat": 1}).rejected[0].reason
    )
    assert "?precision=" in decode({"metric": "A", "reading": 1, "reading_at": T}).rejected[0].reason


@pytest.mark.parametrize(("precision", "per_second"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_integer_times(precision, per_second):
    """In the precision named; RFC 3339 is taken beside; what lies out of range is rejected."""
    rows = [{"metric": "A", "reading": n, "reading_at": (T + n) * per_second} for n in range(3)]
    assert decode(rows, precision=precision).at_us.tolist() == [(T + n) * 10**6 for n in range(3)]
    rows[1]["reading_at"] = format_rfc3339((T + 1) * 10**6)
    assert decode(rows, precision=precision).at_us.tolist() == [(T + n) * 10**6 for n in range(3)]
    rows[1]["reading_at"] = 10**30
    assert plain(decode(rows, precision=precision))[1] == [(1, "time-out-of-range")]
    rows[1]["reading_at"] = None
    assert decode(rows, precision=precision).at_us.tolist()[1] == NO_TIME


def test_precision_is_checked_first():
    """Even where no time needs it."""
    with pytest.raises(InvalidInputError) as caught:
        decode([], precision="h")
    assert caught.value.place == ("query", "precision")


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        (b"", MalformedError, "json-invalid"),
        (b"{", MalformedError, "json-invalid"),
        (b'{"metric":"A","reading":1} x', MalformedError, "json-invalid"),
        (b'{"metric":"\xff","reading":1}', MalformedError, "not-utf-8"),
        (b'"M1"', InvalidInputError, "shape-invalid"),
        (b"null", InvalidInputError, "shape-invalid"),
        (b'{"metric":"A","reading":1,"reading":2}', InvalidInputError, "duplicate-key"),
        (b'{"metric":"A","reading":1,"reading" :2}', InvalidInputError, "duplicate-key"),
        (b'{"metric":"A","reading":1,"re\\u0061ding":2}', InvalidInputError, "duplicate-key"),
        (b'{"metric":"A","reading":1,"labels":{"a":"1","a":"1"}}', InvalidInputError, "duplicate-key"),
        (b"[" * 100_000, TooLargeError, "json-too-deep"),
        (b'{"a":' * 100_000, TooLargeError, "json-too-deep"),
        (b"[" * 33 + b"]" * 33, TooLargeError, "json-too-deep"),
        (b'[{"metric":"A","reading":1,"labels":' + b"[" * 50_000, TooLargeError, "json-too-deep"),
    ],
)
def test_what_spoils_the_whole_document(body, error, code):
    """Nothing of it can be trusted. As a line of NDJSON it is one rejection."""
    with pytest.raises(error) as caught:
        decode(body)
    assert caught.value.code == code
    if body:
        decoded = decode(b'{"metric":"A","reading":1}\n' + body, ndjson=True)
        assert [r.index for r in decoded.rejected] == [1]
        assert decoded.row.tolist() == [0]


def test_brackets_in_strings_are_not_depth():
    """Escapes and quotes within strings don't confuse the count."""
    label = '[{"\\' * 100
    decoded = decode([{"metric": label[:200], "reading": 1, "labels": {"a": label}}, {"metric": "B"}])
    assert decoded.keys == [SeriesKey(label[:200], (("a", label),))]


def test_too_many():
    """Rows, lines, columns and rejected readings count alike."""
    for body, ndjson in [
        (json.dumps([ROW] * 4).encode(), False),
        (b'{"metric":"A","reading":[1,2,3,4]}', False),
        (b'{"metric":"A","reading":[1,2,3,null]}', False),
        (b'{"metric":"A","reading":1}\n' * 4, True),
        (b"x\n" * 4, True),
    ]:
        decode(body, readings_max=4, ndjson=ndjson)
        with pytest.raises(TooLargeError, match="at most 3 readings"):
            decode(body, readings_max=3, ndjson=ndjson)


def test_lines_are_counted_as_they_stand():
    """Two objects on one line and one object on two lines are faults of these lines."""
    o = b'{"metric":"A","reading":1}'
    assert plain(decode(o + o + b"\n" + o, ndjson=True))[1] == [(0, "json-invalid")]
    assert plain(decode(b'{"metric":"A",\n"reading":1}' + o, ndjson=True))[1] == [
        (0, "json-invalid"),
        (1, "json-invalid"),
    ]
    spread = b'{"metric":"A","reading":1,"labels":\n{"a":"b"}}' + o
    assert len(plain(decode(spread, ndjson=True))[1]) == 2


def test_reasons_name_the_line():
    """As an editor counts it, empty lines included, whatever is wrong with it."""
    lines = [
        b'{"metric":"A","reading":1}',
        b"",
        b"{x",
        b'{"metric":"A"}',
        b"\xff",
        b'{"metric":"A","reading":true}',
    ]
    decoded = decode(b"\r\n".join(lines), ndjson=True)
    assert [(r.index, r.reason.split(": ")[0]) for r in decoded.rejected] == [
        (1, "Line 3"),
        (2, "Line 4"),
        (3, "Line 5"),
        (4, "Line 6"),
    ]
    assert "at line 3, column 2." in decoded.rejected[0].reason
    assert "it must be UTF-8" in decoded.rejected[2].reason


@pytest.mark.parametrize(
    ("body", "hinted"),
    [
        (b'{"metric":"A","reading":1}\n{"metric":"A","reading":2}\n', True),
        (b'\n{"metric":"A","reading":1}\r\n{"met', True),
        (b'{"metric":"A","reading":1} x', False),
        (b'[{"metric":"A","reading":1},\n{"metric"', False),
        (b'{"metric":\n"A" x', False),
    ],
)
def test_lines_under_another_name(body, hinted):
    """NDJSON sent as JSON is refused with the media type that it needs; other broken JSON isn't."""
    with pytest.raises(MalformedError) as caught:
        decode(body)
    assert caught.value.code == "json-invalid"
    assert ("application/x-ndjson" in caught.value.message) is hinted
    assert len(caught.value.message) < 200


def test_hostile_bodies_take_linear_time():
    """A megabyte of digits, quotes or brackets is answered at once."""
    started = time.process_time()
    for body in [b'{"metric":"A","reading":' + b"1" * 10**6 + b"}",
                 b'{"metric":"A","reading":0.' + b"1" * 10**6 + b"}",
                 b'"\\' * 500_000, b"[]" * 500_000, b"[}" * 500_000, b'[{"":' * 200_000]:  # fmt: skip
        for ndjson in (False, True):
            outcome(lambda b, n: decode(b, ndjson=n), body, ndjson)
    assert time.process_time() - started < 5


json_values = st.sampled_from([None, 1, "a", [], {"a": [1]}])
readings = (
    st.integers(-5, 5) | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["1", "x", True, None])
)
times = (
    st.integers(T, T + 9)
    | st.none()
    | st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01", "x", True, 10**25, 5.0])
)
labels = st.dictionaries(
    st.sampled_from(["a", "b", "c:", ""]), st.sampled_from(["", "1", '":', "é", 1]), max_size=3
)
entries = st.fixed_dictionaries(
    {
        "metric": st.sampled_from(["A", "B", "a:b", ' " :', ".."]),
        "reading": readings | st.lists(readings, max_size=4),
    },
    optional={
        "reading_at": times | st.lists(times, max_size=4),
        "labels": labels | st.none(),
        "x": json_values,
    },
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")])


@given(st.lists(entries, max_size=4) | entries, separators, st.booleans(), st.sampled_from([None, "s", "ns"]))
def test_the_fast_way_is_the_exact_way(document, separator, ascii_only, precision):
    """For any document the same readings, rejections or error."""
    body = json.dumps(document, separators=separator, ensure_ascii=ascii_only).encode()
    fast = outcome(lambda: decode(body, precision=precision))
    assert fast == outcome(lambda: readings_json._decode_exactly(body, precision, 1000))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B"]),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(10**9), 10**10 - 10**9),
            st.dictionaries(st.text("ab:", min_size=1), st.text('xy":\\', min_size=1), max_size=2),
        )
    ),
    st.sampled_from(["json", "ndjson", "columns"]),
    st.booleans(),
)
def test_what_is_sent_is_read(rows, shape, as_text):
    """Any good readings, in any shape, come out as they went in."""
    when = (lambda s: format_rfc3339(s * 10**6)) if as_text else (lambda s: s)
    rows = [row for row in rows if -9_000_000_000 < row[2] < 9_000_000_000]
    sent = [{"metric": m, "reading": v, "reading_at": when(t), "labels": ls} for m, v, t, ls in rows]
    if shape == "columns":
        sent = [dict(row, reading=[row["reading"]], reading_at=[row["reading_at"]]) for row in sent]
    body = (
        b"\n".join(json.dumps(row).encode() for row in sent)
        if shape == "ndjson"
        else json.dumps(sent).encode()
    )
    precision = None if as_text else "s"
    expected = [(n, m, tuple(sorted(ls.items())), t * 10**6, v) for n, (m, v, t, ls) in enumerate(rows)]
    assert plain(decode(body, precision=precision, ndjson=shape == "ndjson")) == (expected, [])


@given(
    st.binary(max_size=60)
    | st.text('[]{}":,\\ntrue0123.eE-+ A\n', max_size=60).map(str.encode)
    | st.tuples(st.binary(max_size=4), st.integers(0, 60), st.integers(0, 5)).map(
        lambda cut: (
            json.dumps([ROW] * 2).encode()[: cut[1]]
            + cut[0]
            + json.dumps([ROW] * 2).encode()[cut[1] + cut[2] :]
        )
    )
)
@example(b'{"metric":"A","reading":1}{"metric":"A","reading":1}')
def test_any_bytes_raise_nothing_else(body):
    """Both ways agree on JSON whatever it is, and the lines account for each reading."""
    fast = outcome(lambda: decode(body))
    assert fast == outcome(lambda: readings_json._decode_exactly(body, None, 1000))
    taken, rejected = plain(decode(body, ndjson=True))
    assert plain(readings_json._decode_lines_exactly(body, None, 1000)) == (taken, rejected)
    lines = [line for line in body.split(b"\n") if line.strip(b" \t\r")]
    assert sorted([row[0] for row in taken] + [row[0] for row in rejected]) == list(range(len(lines)))


def test_a_key_seen_before_vouches_for_no_other():
    """Labels that are no strings are refused after their like, too, and lists don't break the lookup."""
    rows = [
        {"metric": "A", "reading": 1, "labels": {"a": "1"}},
        {"metric": "A", "reading": 1, "labels": {"a": 1}},
        {"metric": ["A"], "reading": 1},
        {"metric": "A", "reading": 1, "labels": {"a": ["1"]}},
        {"metric": "A", "reading": 1, "labels": {"a": "1"}},
    ]
    decoded = decode(rows)
    assert decoded.keys == [SeriesKey("A", (("a", "1"),))]
    assert [(r.index, r.code) for r in decoded.rejected] == [
        (1, "label-invalid"),
        (2, "code-invalid"),
        (3, "label-invalid"),
    ]
