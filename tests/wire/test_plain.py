"""Plain numbers of one series."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import NO_TIME, SeriesKey
from meterite.model.errors import InvalidInputError, MalformedError, MeteriteError, TooLargeError
from meterite.model.time import format_rfc3339
from meterite.wire.plain import decode_plain

AT_US = 1_769_860_800_000_000


def decode(body, *, precision=None, readings_max=1000, labels=()):
    body = body if isinstance(body, bytes) else body.encode()
    return decode_plain(body, precision=precision, readings_max=readings_max, code="M1", labels=labels)


def rows(decoded):
    return list(zip(decoded.row.tolist(), decoded.at_us.tolist(), decoded.values.tolist(), strict=True))


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("42", [(1, NO_TIME, 42)]),
        ("42\n", [(1, NO_TIME, 42)]),
        (" -1.5e3\t\r\n", [(1, NO_TIME, -1500)]),
        ("42 2026-01-31T12:00:00Z", [(1, AT_US, 42)]),
        ("42 2026-01-31 13:00:00+01:00", [(1, AT_US, 42)]),
        ("\n\n1\n \n2\t2026-01-31T12:00:00Z\r\n", [(3, NO_TIME, 1), (5, AT_US, 2)]),
    ],
)
def test_lines(body, found):
    """A number, and a time where there is one; empty lines don't count."""
    decoded = decode(body)
    assert rows(decoded) == found
    assert (decoded.rejected, decoded.counted, decoded.unit) == ([], "line", None)


@pytest.mark.parametrize(("precision", "times"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_integer_times(precision, times):
    """Since 1970 in the unit that the request says, before 1970 too."""
    decoded = decode(f"1 {AT_US // 10**6 * times}\n2 -{times}\n3", precision=precision)
    assert rows(decoded) == [(1, AT_US, 1), (2, -(10**6), 2), (3, NO_TIME, 3)]
    assert decoded.unit == precision


def test_labels():
    """Those of the address are those of all readings."""
    decoded = decode("1\n2", labels=(("host", "a"), ("room", "b")))
    assert decoded.keys == [SeriesKey("M1", (("host", "a"), ("room", "b")))]
    assert decoded.key_index.tolist() == [0, 0]


def test_bad_lines():
    """Each is told by its number and why; the others stay."""
    decoded = decode("x\n1\n\n2 yesterday\n3 1769860800\n1e999\nnan\n0x10\n1_0\n2,5\n4 2026-01-31 x y\n")
    assert [(each.index, each.code) for each in decoded.rejected] == [
        (1, "reading-invalid"),
        (4, "time-invalid"),
        (5, "time-invalid"),
        (6, "reading-invalid"),
        (7, "reading-invalid"),
        (8, "reading-invalid"),
        (9, "reading-invalid"),
        (10, "reading-invalid"),
        (11, "time-invalid"),
    ]
    assert rows(decoded) == [(2, NO_TIME, 1)]
    assert "precision" in decoded.rejected[2].reason


@pytest.mark.parametrize("body", ['{"reading": 1}', "[1, 2]", '\n "42"'])
def test_json_has_other_places(body):
    """They are named."""
    with pytest.raises(InvalidInputError, match="/readings"):
        decode(body)


@pytest.mark.parametrize("body", ["", "\n", " \r\n\t\n"])
def test_nothing_is_refused(body):
    """A job whose program said nothing hears of it."""
    with pytest.raises(InvalidInputError, match="no number"):
        decode(body)


def test_bounds_and_bytes():
    """On readings, good and bad, and on empty lines; and UTF-8 it is."""
    assert len(decode("1\n" * 5, readings_max=5)) == 5
    for body in ("1\n" * 6, "x\n" * 6, "\n" * 2000):
        with pytest.raises(TooLargeError):
            decode(body, readings_max=5)
    with pytest.raises(MalformedError, match="line 2"):
        decode(b"1\n\xff")
    with pytest.raises(InvalidInputError):
        decode("1", precision="h")


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**50), 2**50)), min_size=1
    )
)
def test_round_trip(readings):
    """Written as lines, readings are the same again."""
    body = "\n".join(f"{value!r} {format_rfc3339(at_us)}" for value, at_us in readings)
    assert rows(decode(body)) == [(row, at_us, value) for row, (value, at_us) in enumerate(readings, 1)]


@given(st.one_of(st.binary(max_size=40), st.text("0123456789.eE+-: \n\r\tTZ_x", max_size=60).map(str.encode)))
def test_any_bytes(body):
    """Readings or an error of ours."""
    for precision in (None, "ns"):
        with contextlib.suppress(MeteriteError):
            decode(body, precision=precision)


@pytest.mark.parametrize("line", ["1\n", "x\n", "\n", "1 2026-01-31T12:00:00Z\n", "1 x"])
def test_time_is_linear(line):
    """Ten times the body takes about ten times as long."""

    def took(count):
        body = (line * count).encode()
        begun = time.process_time()
        with contextlib.suppress(MeteriteError):
            decode(body, readings_max=10**6)
        return time.process_time() - begun

    small = min(took(2000) for _ in range(3))
    assert min(took(20_000) for _ in range(2)) < 40 * small + 0.05
