"""Times in and out: every spelling a client may send, and the bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.errors import InvalidInputError
from meterite.model.time import (
    AT_FIRST_US,
    AT_LAST_US,
    format_many,
    format_rfc3339,
    from_unit,
    parse_bound,
    parse_many,
    parse_rfc3339,
)

NEW_YEAR = 1_767_225_600_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
times = st.integers(AT_FIRST_US, AT_LAST_US)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-01-01T00:00:00Z", NEW_YEAR),
        ("2026-01-01t00:00:00z", NEW_YEAR),
        ("2026-01-01 00:00:00", NEW_YEAR),
        ("2026-01-01", NEW_YEAR),
        ("2026-01-01T00:00", NEW_YEAR),
        ("2026-01-01T01:30:00+01:30", NEW_YEAR),
        ("2025-12-31T19:00:00-0500", NEW_YEAR),
        ("2026-01-01T00:00:00.1Z", NEW_YEAR + 100_000),
        ("2026-01-01T00:00:00.123456999999999Z", NEW_YEAR + 123_456),
        ("1969-12-31T23:59:59.9999999Z", -1),
        ("1970-01-01T00:00:00.0000001+23:59", -(23 * 60 + 59) * 60_000_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("1677-09-22T00:00:00Z", AT_FIRST_US),
        ("2262-04-11T23:47:16.854775Z", AT_LAST_US),
    ],
)
def test_a_time_is_read_in_every_spelling(text, us):
    """One at a time and among many it is the same."""
    assert parse_rfc3339(text) == us
    assert parse_many([text, text]).tolist() == [us, us]


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026", "2026-13-01", "2026-00-10", "2026-02-30T00:00:00Z", "2025-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+01:60", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Z ",
        "2026-01-01T00:00:00Z\n",
        "٢٠٢٦-01-01T00:00:00Z", "2026-01-01T00:00:00 01:00", "1677-09-21T23:59:59Z", "2262-04-11T23:47:17Z",
        "2262-04-12", "0000-01-01", "9999-12-31T23:59:59Z", "1677-09-22T00:00:00+00:01",
        "2026-1-1", "2026-01-01T",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    """Never another exception, and among many the place is the row's number."""
    with pytest.raises(InvalidInputError):
        parse_rfc3339(text)
    with pytest.raises(InvalidInputError) as error:
        parse_many(["2026-01-01T00:00:00Z", text, "2026-01-01T00:00:00Z"])
    assert error.value.place == (1,)


def test_an_error_repeats_little_of_what_came():
    """However long the text is, and nothing that a terminal would obey."""
    with pytest.raises(InvalidInputError) as error:
        parse_rfc3339("\x1b[31m" * 1000)
    assert len(error.value.message) < 400
    assert "\x1b" not in error.value.message


@given(times)
def test_a_formatted_time_reads_back(us):
    """Text and number are two names of one time; the text is isoformat's with Z."""
    text = format_rfc3339(us)
    assert text == (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
    assert parse_rfc3339(text) == us


@given(
    st.lists(times | times.map(lambda us: us // 1_000_000 * 1_000_000).filter(lambda us: us >= AT_FIRST_US))
)
def test_many_are_formatted_and_read_as_one_is(many):
    """Whole seconds and fractions mixed, near and far apart."""
    texts = format_many(np.array(many, np.int64))
    assert texts == [format_rfc3339(us) for us in many]
    assert parse_many(texts).tolist() == many


@given(
    st.lists(
        st.tuples(
            st.datetimes(datetime(1678, 1, 3), datetime(2262, 4, 10)),  # noqa: DTZ001 - drawn apart
            st.integers(-1439, 1439),
        )
    )
)
def test_any_offset_is_taken_off(pairs):
    """As datetime itself reads it."""
    moments = [at.replace(tzinfo=timezone(timedelta(minutes=offset))) for at, offset in pairs]
    expected = [(at - EPOCH) // timedelta(microseconds=1) for at in moments]
    assert parse_many([at.isoformat() for at in moments]).tolist() == expected


def test_nothing_is_formatted_as_nothing():
    """No times, no texts."""
    assert format_many(np.empty(0, np.int64)) == []
    assert parse_many([]).tolist() == []


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("now", NEW_YEAR), ("-1d", NEW_YEAR - 86_400_000_000), ("-90m", NEW_YEAR - 5_400_000_000),
        ("now-1h", NEW_YEAR - 3_600_000_000), ("+1h", NEW_YEAR + 3_600_000_000),
        (" 1h", NEW_YEAR + 3_600_000_000),
        ("now+5us", NEW_YEAR + 5), ("-2w", NEW_YEAR - 14 * 86_400_000_000), ("-5ms", NEW_YEAR - 5000),
        ("0", 0), ("1767225600", NEW_YEAR), ("1767225600.5", NEW_YEAR + 500_000), ("-1.5", -1_500_000),
        ("-0.0000001", -1), ("0.0000009", 0), ("2026", 2_026_000_000),
        ("2026-01-01", NEW_YEAR), ("2026-01-01T01:00:00 01:00", NEW_YEAR), ("2026-01-01 00:00", NEW_YEAR),
    ],
)  # fmt: skip
def test_a_bound_is_a_time_seconds_or_relative(text, us):
    """A plus that the address lost is taken for what it was."""
    assert parse_bound(text, NEW_YEAR) == us


@pytest.mark.parametrize(
    "text",
    ["", "1h", "-1", "-1y", "now-", "1e9", "-1.5h", "tomorrow", "-999999999w", "9" * 15, "9" * 5000, "nan"],
)
def test_what_is_no_bound_is_refused(text):
    """But ``-1``, which is a second before 1970."""
    if text == "-1":
        assert parse_bound(text, NEW_YEAR) == -1_000_000
        return
    with pytest.raises(InvalidInputError):
        parse_bound(text, NEW_YEAR, place=("query", "start"))


@given(
    st.integers(-(2**63), 2**63 - 1), st.sampled_from([("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)])
)
def test_integers_are_times_in_their_unit(number, unit):
    """Floored to µs; out of bounds is refused, never wrapped; an array is as its elements."""
    name, nanoseconds = unit
    expected = number * nanoseconds // 1000
    array = np.array([0, number], np.int64)
    if AT_FIRST_US <= expected <= AT_LAST_US:
        assert from_unit(number, name) == expected
        assert from_unit(array, name).tolist() == [0, expected]
        return
    with pytest.raises(InvalidInputError):
        from_unit(number, name)
    with pytest.raises(InvalidInputError) as error:
        from_unit(array, name)
    assert error.value.place == (1,)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_bounds_hold_in_every_unit(unit):
    """The first and the last time of each unit are in, their neighbours are out, one by one and as arrays."""
    per_us = {"s": 10**-6, "ms": 10**-3, "us": 1, "ns": 1000}[unit]
    around = [round(edge * per_us) + d for edge in (AT_FIRST_US, AT_LAST_US) for d in range(-1500, 1501, 1)]
    for number in around:
        if not -(2**63) <= number < 2**63:
            continue
        results = []
        for form in (number, np.array([number], np.int64)):
            try:
                results.append(int(np.ravel(from_unit(form, unit))[0]))
            except InvalidInputError:
                results.append(None)
        assert results[0] == results[1]


def test_an_unknown_precision_is_refused():
    """With a word on what there is."""
    with pytest.raises(InvalidInputError, match="s, ms, us or ns"):
        from_unit(1, "h")
