"""Steps against a slow calendar that walks the wall clock."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.errors import InvalidInputError
from meterite.model.time import AT_FIRST_US, AT_LAST_US, UNITS_US, format_many, parse_rfc3339
from meterite.query.steps import parse_steps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000_000
HOUR = 60 * MINUTE
ZONES = {
    "Europe/Berlin": "2026-03-29T01:00Z", "Europe/London": "2026-10-25T01:00Z",
    "America/New_York": "2026-11-01T06:00Z", "America/Los_Angeles": "2026-03-08T10:00Z",
    "Australia/Lord_Howe": "2026-04-04T15:00Z", "Asia/Beirut": "2025-03-29T22:00Z",
    "Africa/Cairo": "2026-04-23T22:00Z", "America/Sao_Paulo": "2018-11-04T03:00Z",
    "Pacific/Apia": "2011-12-30T10:00Z", "America/Havana": "2026-11-01T05:00Z",
    "America/St_Johns": "2010-11-07T02:31Z", "Africa/Casablanca": "2026-02-15T02:00Z",
    "Asia/Kathmandu": "1985-12-31T18:30Z", "Pacific/Kwajalein": "1993-08-21T12:00Z",
    "America/Asuncion": "2023-10-01T04:00Z", "Asia/Tehran": "2022-03-21T20:30Z",
    "Asia/Amman": "2021-03-25T22:00Z",
    "America/Scoresbysund": "2024-03-31T00:00Z", "Etc/GMT+12": "2026-01-01T12:00Z",
    "Etc/GMT-14": "2025-12-31T10:00Z",
}  # fmt: skip


@cache
def reference_zone(name):
    """The interpreter's own reading of the same zone data, not this machine's."""
    zoneinfo.reset_tzpath(to=[])
    zone = zoneinfo.ZoneInfo.no_cache(name)
    zoneinfo.reset_tzpath()
    return zone


def date_of(us, name):
    return (EPOCH + timedelta(microseconds=us)).astimezone(reference_zone(name)).date()


def period_of(day, every):
    if every == "week":
        return (day - timedelta(days=day.weekday())).toordinal()
    months = day.year * 12 + day.month - 1
    return {"day": day.toordinal(), "month": months, "quarter": months // 3, "year": day.year}[every]


def slow_edges(start, end, every, tz):
    """Quarter hour by quarter hour (then minute by minute): where a period is shown for the first time."""
    edges, newest = [], None
    at = start - 370 * 24 * HOUR if every in {"quarter", "year"} else start - 33 * 24 * HOUR
    at -= at % (15 * MINUTE)
    skip = 24 * HOUR if every in {"quarter", "year", "month"} else 15 * MINUTE
    newest = period_of(date_of(at, tz), every)
    while not edges or edges[-1] < end:
        period = period_of(date_of(at + skip, tz), every)
        if period > newest:
            fine = at
            while period_of(date_of(fine, tz), every) <= newest:
                fine += MINUTE
            edges.append(fine)
            newest = period_of(date_of(fine, tz), every)
            at = fine - fine % (15 * MINUTE) - 15 * MINUTE
        at += skip if at % skip == 0 else skip - at % skip
    return [edge for edge, after in zip(edges, [*edges[1:], end + 1], strict=True) if after > start]


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(sorted(ZONES)),
    st.integers(-50, 50).map(lambda n: n * HOUR) | st.integers(-3 * HOUR, 3 * HOUR),
    st.integers(1, 400 * HOUR),
    st.sampled_from(["day", "week", "month", "quarter", "year"]),
)
def test_calendar_steps_are_what_the_wall_says(tz, shift, length, every):
    """In 20 zones around DST changes, gaps at midnight and a missing day."""
    start = parse_rfc3339(ZONES[tz]) + shift
    edges = parse_steps(every, tz).edges(start, start + length, 1000)
    assert edges.tolist() == slow_edges(start, start + length, every, tz)


@given(
    st.integers(AT_FIRST_US, AT_LAST_US),
    st.integers(1, 10**14),
    st.integers(1, 40),
    st.sampled_from(sorted(UNITS_US)),
)
def test_fixed_steps_are_whole_multiples(start, length, count, unit):
    """From 1970, weeks from a Monday; they hold the whole range and nothing that isn't needed."""
    width = count * UNITS_US[unit]
    end = start + min(length, width * 50)
    edges = parse_steps(f"{count}{unit}", "Asia/Kathmandu").edges(start, end, 52)
    assert (np.diff(edges) == width).all()
    assert edges[0] <= start < edges[1]
    assert edges[-2] < end <= edges[-1]
    origin = -3 * UNITS_US["d"] if width % UNITS_US["w"] == 0 else 0
    assert (edges[0] - origin) % width == 0


def test_days_around_a_change_of_clocks():
    """23 hours, and a date that never was has no step."""
    berlin = parse_steps("day", "Europe/Berlin")
    start, end = parse_rfc3339("2026-03-28T12:00Z"), parse_rfc3339("2026-03-30T12:00Z")
    assert format_many(berlin.edges(start, end, 10)) == [
        "2026-03-27T23:00:00Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T22:00:00Z",
        "2026-03-30T22:00:00Z",
    ]
    apia = parse_steps("day", "Pacific/Apia")
    start, end = parse_rfc3339("2011-12-30T00:00Z"), parse_rfc3339("2011-12-31T00:00Z")
    assert format_many(apia.edges(start, end, 10)) == [
        "2011-12-29T10:00:00Z",
        "2011-12-30T10:00:00Z",
        "2011-12-31T10:00:00Z",
    ]


@pytest.mark.parametrize(
    ("every", "most"), [("1us", 10), ("1h", 10_000), ("day", 365), ("month", 12), ("year", 1)]
)
def test_too_many_steps_are_refused_before_they_are_made(every, most):
    """With a word on how to ask for less; also for all the time there is."""
    with pytest.raises(InvalidInputError, match="longer steps") as error:
        parse_steps(every).edges(AT_FIRST_US, AT_LAST_US, most)
    assert error.value.place == ("query", "every")


@pytest.mark.parametrize("every", ["day", "week", "month", "quarter", "year", "5d", "366000d"])
def test_steps_reach_over_all_time(every):
    """No overflow at either end."""
    for tz in ("UTC", "Pacific/Apia"):
        edges = parse_steps(every, tz).edges(AT_FIRST_US, AT_LAST_US, 250_000)
        assert edges[0] <= AT_FIRST_US
        assert edges[-1] >= AT_LAST_US
        assert (np.diff(edges) > 0).all()


def test_the_limit_counts_steps():
    """Exactly as many as allowed is allowed; an empty range has none."""
    steps = parse_steps("day", "Europe/Berlin")
    start, end = parse_rfc3339("2026-02-28T23:00Z"), parse_rfc3339("2026-03-31T22:00Z")
    assert len(steps.edges(start, end, 31)) == 32
    with pytest.raises(InvalidInputError, match="31 steps"):
        steps.edges(start, end, 30)
    assert len(steps.edges(start, start, 0)) == 1


def test_steps_are_named_as_they_were_asked_for():
    """And no zone is UTC."""
    assert (parse_steps("15m").name, parse_steps("15m").tz) == ("15m", "UTC")
    assert parse_steps("15m", "Asia/Tokyo").tz == "UTC", "fixed steps are counted from 1970 UTC"
    assert parse_steps("week", "Asia/Tokyo").tz == "Asia/Tokyo"


@pytest.mark.parametrize(
    "text", ["", "0s", "1", "h", "1y", "-1h", "1.5h", "1h30m", "half_year", "9" * 18 + "w", "\u0663h"]
)
def test_what_is_no_step_is_refused(text):
    """With a word on what is."""
    with pytest.raises(InvalidInputError, match="15m"):
        parse_steps(text)


def test_an_unknown_zone_is_refused():
    """At its own place."""
    with pytest.raises(InvalidInputError, match="IANA") as error:
        parse_steps("day", "Mars/Olympus")
    assert error.value.place == ("query", "tz")
