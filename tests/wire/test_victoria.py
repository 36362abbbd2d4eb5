"""VictoriaMetrics' imports."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError, MeteriteError, TooLargeError
from meterite.wire.victoria import decode_csv_columns, decode_import, parse_csv_format

AT_MS = 1_769_860_800_000


def rows(decoded):
    """(line, code, labels, time in ms, value) of each reading."""
    times = [None if at == NO_TIME else at / 1000 for at in decoded.at_us.tolist()]
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    return [
        (row, key.code, dict(key.labels), at, value)
        for row, key, at, value in zip(
            decoded.row.tolist(), keys, times, decoded.values.tolist(), strict=True
        )
    ]


def line(values, times, /, **metric):
    return json.dumps({"metric": metric, "values": values, "timestamps": times})


def imported(*lines, **options):
    return decode_import("\n".join(lines).encode(), **({"readings_max": 1000} | options))


def test_series_in_lines():
    """What an export writes, infinities as texts included; unknown values are skipped, blank lines don't count."""
    decoded = imported(
        line([1, 2.5, None], [AT_MS, AT_MS + 1, AT_MS + 2], __name__="a", x="1"),
        "",
        line(["Infinity", "-Infinity"], [AT_MS, AT_MS + 1], __name__="b.c", y="é", z="") + "\r",
        line([], [], __name__="none"),
        line([3], [-5], __name__="a", x="1"),
    )
    assert rows(decoded) == [
        (1, "a", {"x": "1"}, AT_MS, 1.0),
        (1, "a", {"x": "1"}, AT_MS + 1, 2.5),
        (3, "b.c", {"y": "é"}, AT_MS, math.inf),
        (3, "b.c", {"y": "é"}, AT_MS + 1, -math.inf),
        (5, "a", {"x": "1"}, -5, 3.0),
    ]
    assert (decoded.skipped, decoded.counted, decoded.unit, decoded.rejected) == (1, "line", "ms", [])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "json-invalid"),
        ("[]", "json-invalid"),
        ("{}", "json-invalid"),
        ('{"metric":{"__name__":"a"},"values":[1]}', "json-invalid"),
        ('{"metric":{"__name__":1},"values":[1],"timestamps":[1]}', "json-invalid"),
        ('{"metric":{"__name__":"a"},"values":[true],"timestamps":[1]}', "json-invalid"),
        ('{"metric":{"__name__":"a"},"values":[1],"timestamps":["1"]}', "json-invalid"),
        ('{"metric":{"__name__":"a"},"values":[1e999],"timestamps":[1]}', "json-invalid"),
        ('{"metric":{"__name__":"a"},"values":[1],"timestamps":[99999999999999999999]}', "json-invalid"),
        ('{"x":' + "[" * 100_000, "json-invalid"),
        (line([1], [1, 2], __name__="a"), "lengths-differ"),
        (line([1], [1]), "code-invalid"),
        (line([1], [1], __name__=""), "code-invalid"),
        (line(["x"], [1], __name__="a"), "reading-invalid"),
        (line([1], [1 << 60], __name__="a"), "time-unit"),
        (line([1], [1], __name__="a", b="\n"), "label-invalid"),
    ],
)
def test_lines_that_can_t_be_taken(text, code):
    """Each costs itself alone."""
    decoded = imported(line([1], [1], __name__="a"), text, line([2], [2], __name__="a"))
    assert decoded.values.tolist() == [1.0, 2.0]
    assert [(r.index, r.code) for r in decoded.rejected] == [(2, code)]
    assert len(decoded.rejected[0].reason) < 200


def test_bytes_that_are_no_text():
    (rejected,) = decode_import(
        b'{"metric":{"__name__":"\xff"},"values":[],"timestamps":[]}', readings_max=9
    ).rejected
    assert rejected.code == "json-invalid"


def test_labels_from_without():
    """Above the lines' own."""
    decoded = imported(line([1], [1], __name__="a", x="1", y="2"), labels={"x": "3", "y": ""})
    assert rows(decoded) == [(1, "a", {"x": "3"}, 1, 1.0)]


def test_bounds():
    with pytest.raises(TooLargeError):
        imported(line([1, 2], [1, 2], __name__="a"), readings_max=1)
    with pytest.raises(TooLargeError):
        decode_csv_columns(b"1\n2\n", readings_max=1, columns=parse_csv_format("1:metric:a"))


FORMAT = "2:metric:ask,3:metric:bid,1:label:ticker,4:label:market,5:time:unix_ms"


def columns(body, format_=FORMAT, **options):
    return decode_csv_columns(body.encode(), readings_max=1000, columns=parse_csv_format(format_), **options)


def test_columns():
    """Several metrics a line; quotes; empty values are skipped, empty labels are none; more columns than described."""
    decoded = columns(f'GOOG,1.23,4.56,NYSE,{AT_MS}\n\n"A, ""B""",2,,,{AT_MS + 1},more\r\n')
    assert rows(decoded) == [
        (1, "ask", {"ticker": "GOOG", "market": "NYSE"}, AT_MS, 1.23),
        (1, "bid", {"ticker": "GOOG", "market": "NYSE"}, AT_MS, 4.56),
        (3, "ask", {"ticker": 'A, "B"'}, AT_MS + 1, 2.0),
    ]
    assert (decoded.skipped, decoded.unit, decoded.counted) == (1, "ms", "line")


@pytest.mark.parametrize(
    ("format_", "text", "at_ms", "unit"),
    [
        ("unix_s", "1769860800", AT_MS, "s"),
        ("unix_s", "1769860800.001", AT_MS + 1, "s"),
        ("unix_ms", str(AT_MS), AT_MS, "ms"),
        ("unix_us", f"{AT_MS}000", AT_MS, "us"),
        ("unix_ns", f"{AT_MS}000000", AT_MS, "ns"),
        ("rfc3339", "2026-01-31T12:00:00Z", AT_MS, None),
    ],
)
def test_times(format_, text, at_ms, unit):
    """By the format's name; the unit is told where times are numbers."""
    decoded = columns(f"1,{text}", f"1:metric:a,2:time:{format_}")
    assert rows(decoded) == [(1, "a", {}, at_ms, 1.0)]
    assert decoded.unit == unit


def test_without_a_time():
    """The server gives one."""
    assert rows(columns("7;x", "1:metric:a,2:label:b", delimiter=";", labels={"c": "d"})) == [
        (1, "a", {"b": "x", "c": "d"}, None, 7.0)
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("GOOG,1,2,NYSE", "csv-invalid"),
        ('"GOOG,1,2,NYSE,5', "csv-invalid"),
        ('"G"x,1,2,NYSE,5', "csv-invalid"),
        (f'"{"x" * 200_000}",1,2,NYSE,5', "csv-invalid"),
        ("ticker,ask,bid,market,time", "time-invalid"),
        ("GOOG,x,2,NYSE,5", "reading-invalid"),
        ("GOOG,1,NaN,NYSE,5", "reading-invalid"),
        ("GOOG,1_0,1,NYSE,5", "reading-invalid"),
        ("GOOG,1,1,NYSE,5.5", "time-invalid"),
        ("GOOG,1,1,NYSE,99999999999999999", "time-out-of-range"),
        ("G\x00,1,1,NYSE,5", "label-invalid"),
    ],
)
def test_csv_lines_that_can_t_be_taken(text, code):
    """As a whole, and no other."""
    decoded = columns(f"A,1,2,B,5\n{text}\nA,3,4,B,6")
    assert decoded.values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert [(r.index, r.code) for r in decoded.rejected] == [(2, code)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:label:a",
        "metric:a",
        "0:metric:a",
        "1:metric:",
        "1:metric:a,2:time:custom:2006-01-02",
        "1:metric:a,2:time:unix_s,3:time:unix_s",
        "1:metric:a,,",
        "99999:metric:a",
        "١x:metric:a",
    ],
)
def test_formats_that_say_nothing(text):
    with pytest.raises(InvalidInputError) as raised:
        parse_csv_format(text)
    assert raised.value.code == "csv-format-invalid"


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(NAMES.filter(lambda name: name != "__name__"), NAMES, max_size=3),
            st.lists(st.tuples(st.integers(0, 10**12), st.none() | st.floats(allow_nan=False)), max_size=5),
        ),
        max_size=5,
    )
)
def test_round_trip(series):
    """What was exported is what is read."""
    texts = []
    wanted = []
    for number, (labels, readings) in enumerate(series, 1):
        values = [
            ("Infinity" if v > 0 else "-Infinity") if v is not None and math.isinf(v) else v
            for _, v in readings
        ]
        texts.append(line(values, [at for at, _ in readings], __name__="a", **labels))
        wanted += [(number, "a", labels, at, v) for at, v in readings if v is not None]
    decoded = imported(*texts)
    assert (rows(decoded), decoded.rejected) == (wanted, [])


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([*'{}[]",:1a\n', '{"metric":{"__name__":"a"},'])).map("".join).map(str.encode)
)
def test_any_bytes(body):
    """Columns, or an error of ours."""
    for decode in (
        decode_import,
        lambda body, readings_max: columns(body.decode("latin-1"), "1:metric:a,2:label:b"),
    ):
        try:
            decoded = decode(body, readings_max=1000)
        except MeteriteError:
            continue
        assert set(decoded.key_index.tolist()) == set(range(len(decoded.keys)))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b'{"metric":{"__name__":"a"},"values":[' + b"1," * (n // 2),
        lambda n: b"[" * n,
        lambda n: b'"' * n,
        lambda n: b"," * n,
        lambda n: b"\n" * n,
        lambda n: b'"a",' * (n // 4),
    ],
)
def test_time_is_linear(make):
    """Eight times as much takes about eight times as long."""

    def seconds(n):
        body = make(n).decode()
        begin = time.process_time()
        imported(body)
        columns(body, "1:metric:a")
        return time.process_time() - begin

    short = min(seconds(100_000) for _ in range(3))
    assert min(seconds(800_000) for _ in range(2)) < 30 * max(short, 0.001)
