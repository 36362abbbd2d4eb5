"""Graphite's lines and pickles; more of what is taken and refused stands in ``corpus/graphite``."""

from __future__ import annotations

import contextlib
import math
import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, SeriesKey
from meterite.model.errors import MeteriteError
from meterite.wire.graphite import decode_graphite, decode_pickles

AT = 1_769_860_800
AT_US = AT * 10**6


def rows(decoded):
    keys = [decoded.keys[n] for n in decoded.key_index.tolist()]
    return list(zip(decoded.row.tolist(), keys, decoded.at_us.tolist(), decoded.values.tolist(), strict=True))


def lines(text, readings_max=1000):
    return decode_graphite(text if isinstance(text, bytes) else text.encode(), readings_max=readings_max)


def pickles(*points, protocol=2):
    return decode_pickles([pickle.dumps(each, protocol) for each in points], readings_max=1000)


def rejected(decoded):
    return [(each.index, each.code) for each in decoded.rejected]


def test_lines_and_tags():
    """The name is the code, tags are labels in any order; the unit is told, for who checks times."""
    decoded = lines(
        f"servers.a.load 0.5 {AT}\ndisk.used;mount=/;host=a 42 {AT}\ndisk.used;host=a;mount=/ 43 {AT}.25"
    )
    disk = SeriesKey("disk.used", (("host", "a"), ("mount", "/")))
    assert rows(decoded) == [
        (1, SeriesKey("servers.a.load"), AT_US, 0.5),
        (2, disk, AT_US, 42),
        (3, disk, AT_US + 250_000, 43),
    ]
    assert (decoded.counted, decoded.unit) == ("line", "s")


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("-1", NO_TIME),
        ("", NO_TIME),
        ("-2", -2_000_000),
        (f"{AT}.1234567", AT_US + 123_456),
        (f"{AT}.", AT_US),
        ("1.7698608e9", AT_US),
    ],
)
def test_times(text, at_us):
    """Seconds, exact to the microsecond; -1 and none are now."""
    assert lines(f"a 1 {text}\n").at_us.tolist() == [at_us]


def test_what_is_no_number_is_skipped():
    """NaN, in lines and in pickles; infinities are refused."""
    decoded = lines(f"a nan {AT}\na NaN {AT}\na inf {AT}\n")
    assert (decoded.skipped, rejected(decoded)) == (2, [(3, "reading-invalid")])
    decoded = pickles([("a", (AT, math.nan)), ("a", (AT, "nan")), ("a", (AT, math.inf))])
    assert (decoded.skipped, rejected(decoded)) == (2, [(2, "reading-invalid")])


def test_bad_lines_cost_nothing_beside_them():
    """Each is told by its number."""
    bad = f"a\na 1 {AT} x\na b {AT}\na 1 b\n;x=1 1 {AT}\na;x 1 {AT}\na;x=1;x=2 1 {AT}\n\n"
    decoded = lines(bad.encode() + b"\xff 1 1\na 9\n")
    assert rejected(decoded) == [
        (1, "line-invalid"),
        (2, "line-invalid"),
        (3, "reading-invalid"),
        (4, "time-invalid"),
        (5, "code-invalid"),
        (6, "label-invalid"),
        (7, "label-invalid"),
        (9, "not-utf-8"),
    ]
    assert [row for row, *_ in rows(decoded)] == [10]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(protocol):
    """Of every protocol, values and times as numbers or texts, several pickles counted through."""
    decoded = pickles(
        [("a.b", (AT, 1)), ("c;host=x", (AT + 0.5, "2.5"))], [["a.b", [str(AT), 3]]], (), protocol=protocol
    )
    assert rows(decoded) == [
        (0, SeriesKey("a.b"), AT_US, 1),
        (1, SeriesKey("c", (("host", "x"),)), AT_US + 500_000, 2.5),
        (2, SeriesKey("a.b"), AT_US, 3),
    ]
    assert (decoded.rejected, decoded.unit) == ([], "s")


def test_bad_pickles_cost_nothing_beside_them():
    """Of other shapes, and those that can't be read."""
    shapes = [
        "a",
        ("a", AT, 1),
        (1, (AT, 1)),
        ("a", (AT, None)),
        ("a", (None, 1)),
        ("a", (AT, [1])),
        ("a", (True, 1)),
    ]
    good = pickle.dumps([("a", (AT, 1))])
    decoded = decode_pickles(
        [pickle.dumps(shapes), b"cos\nsystem\n.", pickle.dumps(7), good], readings_max=1000
    )
    codes = [code for _, code in rejected(decoded)]
    assert codes == [
        *["shape-invalid"] * 3,
        "reading-invalid",
        "time-invalid",
        "reading-invalid",
        "time-invalid",
        "pickle-invalid",
        "shape-invalid",
    ]
    assert [row for row, *_ in rows(decoded)] == [9]


PATHS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters=";="),
    min_size=1,
    max_size=20,
)
TAGS = st.dictionaries(PATHS, PATHS, max_size=3)
POINTS = st.lists(
    st.tuples(
        PATHS.filter(lambda code: code not in {".", ".."}),
        TAGS,
        st.integers(0, 2**33),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=8,
)


@given(POINTS)
def test_round_trip(points):
    """What a client writes in both formats comes back."""
    paths = [
        "".join([code, *(f";{name}={value}" for name, value in tags.items())]) for code, tags, _, _ in points
    ]
    expected = [
        (SeriesKey(code, tuple(sorted(tags.items()))), at * 10**6, value) for code, tags, at, value in points
    ]
    text = "".join(f"{path} {value!r} {at}\n" for path, (_, _, at, value) in zip(paths, points, strict=True))
    assert [row[1:] for row in rows(lines(text))] == expected
    pickled = [(path, (at, value)) for path, (_, _, at, value) in zip(paths, points, strict=True)]
    assert [row[1:] for row in rows(pickles(pickled))] == expected


@given(st.one_of(st.binary(max_size=60), st.text("a;=.1e+- \n\tn", max_size=60).map(str.encode)))
def test_any_bytes(body):
    """Readings or rejections, never an error of the whole."""
    lines(body)
    decode_pickles([body], readings_max=1000)


@pytest.mark.parametrize("line", [b"a 1 1\n", b"a;b=c 1\n", b"\n", b"x", b"; ", b"\xff\n"])
def test_time_is_linear(line):
    """Ten times the bytes take about ten times as long."""

    def took(count):
        begun = time.process_time()
        with contextlib.suppress(MeteriteError):
            decode_graphite(line * count, readings_max=10**6)
        return time.process_time() - begun

    small = min(took(2000) for _ in range(3))
    assert min(took(20_000) for _ in range(2)) < 40 * small + 0.05


def test_a_pickle_of_one_large_thing_many_times_is_quick():
    """What many points share isn't looked through for each: a list, a text that is no path, no value, no time."""
    large, long = [None] * 200_000, "x" * 500_000
    points = [("a", (AT, large)), ("a", (large, 1)), (long, (AT, 1)), ("a", (AT, long)), ("a", (long, 1))]
    body = pickle.dumps([(path, (at, value)) for path, (at, value) in points for _ in range(2000)])
    begun = time.process_time()
    decoded = decode_pickles([body], readings_max=20_000)
    assert time.process_time() - begun < 2
    assert len(decoded.rejected) == 10_000
