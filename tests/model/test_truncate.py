"""Truncation against a slow calendar that knows only what an instant shows on the wall."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meterite.model.errors import InvalidInputError
from meterite.model.time import AT_FIRST_US, AT_LAST_US, parse_rfc3339
from meterite.model.truncate import Truncation, parse_truncation
from meterite.model.zone import check_timezone, load_zone, zone_names

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000

# A zone, and instants around which its clocks did something worth looking at.
ZONES = {
    "Europe/Berlin": ["2026-03-29T01:00Z", "2026-10-25T01:00Z", "2200-03-30T01:00Z"],
    "America/New_York": ["2026-03-08T07:00Z", "2026-11-01T06:00Z", "1883-11-18T17:00Z"],
    "Australia/Lord_Howe": ["2026-04-04T15:00Z", "2026-10-03T15:30Z"],
    "Asia/Beirut": ["2025-03-29T22:00Z", "2025-10-25T21:00Z"],
    "Africa/Cairo": ["2026-04-23T22:00Z", "2026-10-29T21:00Z"],
    "America/Sao_Paulo": ["2018-11-04T03:00Z", "2019-02-17T02:00Z", "1985-11-02T03:00Z"],
    "Pacific/Apia": ["2011-12-30T10:00Z", "1892-07-05T00:00Z", "2012-03-31T14:00Z"],
    "Pacific/Kwajalein": ["1993-08-21T12:00Z"],
    "America/St_Johns": ["2010-03-14T03:31Z", "2010-11-07T02:31Z"],
    "America/Havana": ["2026-03-08T05:00Z", "2026-11-01T05:00Z"],
    "Africa/Casablanca": ["2026-02-15T02:00Z", "2026-03-22T02:00Z", "2080-01-01T00:00Z"],
    "Africa/Monrovia": ["1972-01-07T00:44Z"],
    "Asia/Manila": ["1844-12-31T16:00Z"],
    "America/Juneau": ["1867-10-18T15:00Z"],
    "Asia/Kathmandu": ["1985-12-31T18:30Z"],
    "America/Caracas": ["2007-12-09T07:00Z", "2016-05-01T07:00Z"],
    "Asia/Pyongyang": ["2018-05-04T15:00Z"],
    "Antarctica/Troll": ["2026-03-29T01:00Z", "2026-10-25T01:00Z"],
    "Etc/GMT+12": ["2026-01-01T12:00Z"],
    "Etc/GMT-14": ["2025-12-31T10:00Z"],
}
UNDER = {"second": 1, "minute": 60, "15_minute": 900, "20_second": 20, "hour": 3600, "6_hour": 21_600}
DAYS = ["day", "week", "month", "quarter", "half_year", "year"]


@cache
def reference_zone(name):
    """The interpreter's own reading of the same zone data, not this machine's."""
    zoneinfo.reset_tzpath(to=[])
    zone = zoneinfo.ZoneInfo.no_cache(name)
    zoneinfo.reset_tzpath()
    return zone


def shown(us, name):
    at = (EPOCH + timedelta(microseconds=us)).astimezone(reference_zone(name))
    return at.replace(tzinfo=None, fold=0)


def instant(at):
    return (at - EPOCH) // timedelta(microseconds=1)


def instants_showing(wall, name):
    """All of them: an instant differs from the wall clock by one of the offsets in use around it."""
    as_utc = instant(wall.replace(tzinfo=UTC))
    around = range(as_utc - 30 * HOUR, as_utc + 31 * HOUR, HOUR // 4)
    offsets = {instant(shown(us, name).replace(tzinfo=UTC)) - us for us in around}
    return sorted(as_utc - offset for offset in offsets if shown(as_utc - offset, name) == wall)


def end_of_gap(wall, name, low, high):
    """By bisection: the first instant that shows more than ``wall``."""
    while high - low > 1:
        middle = (low + high) // 2
        if shown(middle, name) > wall:
            high = middle
        else:
            low = middle
    return high


def first_date(name, day):
    return {
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "quarter": date(day.year, (day.month - 1) // 3 * 3 + 1, 1),
        "half_year": date(day.year, 1 if day.month < 7 else 7, 1),
        "year": date(day.year, 1, 1),
    }[name]


def slow_truncate(us, truncation, zone):
    wall = shown(us, zone)
    if truncation in UNDER:
        midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
        into = int((wall - midnight).total_seconds()) // UNDER[truncation] * UNDER[truncation]
        cut = midnight + timedelta(seconds=into)
        found = [at for at in instants_showing(cut, zone) if at <= us]
        if found:
            return found[-1]
    else:
        cut = datetime.combine(first_date(truncation, wall.date()), datetime.min.time())
        found = instants_showing(cut, zone)
        if found:
            return found[0]
    as_utc = instant(cut.replace(tzinfo=UTC))
    return end_of_gap(cut, zone, as_utc - 30 * HOUR, as_utc + 30 * HOUR)


@st.composite
def places(draw):
    zone = draw(st.sampled_from(sorted(ZONES)))
    change = parse_rfc3339(draw(st.sampled_from(ZONES[zone])))
    near = st.integers(-3 * HOUR, 3 * HOUR) | st.integers(-12, 12).map(lambda n: n * HOUR // 4)
    return zone, change + draw(near | st.integers(-40 * 24 * HOUR, 40 * 24 * HOUR))


@settings(max_examples=1200, deadline=None)
@given(places(), st.sampled_from([*UNDER, *DAYS]))
def test_truncation_is_what_the_wall_says(place, name):
    """In 20 zones around DST changes, a missing day, gaps at midnight, offsets of seconds and half hours."""
    zone, us = place
    truncation = Truncation.of(name, zone)
    cut = truncation.one(us)
    assert cut == slow_truncate(us, name, zone)
    assert truncation.one(cut) == cut


@settings(max_examples=150, deadline=None)
@given(st.integers(AT_FIRST_US, AT_LAST_US), st.sampled_from(sorted(ZONES)))
def test_a_zone_shows_what_the_interpreter_shows(us, zone):
    """At any time from 1677 to 2262."""
    expected = instant(shown(us, zone).replace(tzinfo=UTC))
    assert load_zone(zone).wall(np.array([us])).tolist() == [expected]


@given(st.lists(st.integers(AT_FIRST_US, AT_LAST_US)), st.sampled_from([*UNDER, *DAYS]), st.booleans())
def test_many_are_cut_as_one_is(times, name, in_zone):
    """And never to a time after the reading; the first and the last of times raise nothing."""
    truncation = Truncation.of(name, "Australia/Lord_Howe" if in_zone else None)
    edges = [AT_FIRST_US, *times, AT_LAST_US]
    cut = truncation.many(np.array(edges, np.int64)).tolist()
    assert cut == [truncation.one(us) for us in edges]
    assert all(after <= before for after, before in zip(cut, edges, strict=True))


@pytest.mark.parametrize(
    ("name", "zone", "at", "cut"),
    [
        ("week", None, "2026-01-01T12:00Z", "2025-12-29"),
        ("half_year", None, "2026-08-15T12:00Z", "2026-07-01"),
        ("quarter", None, "1969-12-31T23:59:59.999999Z", "1969-10-01"),
        ("24_hour", "Europe/Berlin", "2026-07-01T12:00Z", "2026-06-30T22:00Z"),
        ("year", "Pacific/Apia", "2011-12-31T09:00Z", "2011-01-01T10:00Z"),
        ("hour", "Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T00:00Z"),
        ("hour", "Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T01:00Z"),
        ("6_hour", "Europe/Berlin", "2026-10-25T01:30Z", "2026-10-24T22:00Z"),
        ("hour", "Australia/Lord_Howe", "2026-04-04T15:10Z", "2026-04-04T14:00Z"),
        ("hour", "Australia/Lord_Howe", "2026-10-03T15:40Z", "2026-10-03T15:30Z"),
        ("day", "Asia/Beirut", "2025-03-30T12:00Z", "2025-03-29T22:00Z"),
        ("day", "America/St_Johns", "2010-11-07T03:00Z", "2010-11-06T02:30Z"),
        ("day", "America/Havana", "2026-11-01T12:00Z", "2026-11-01T04:00Z"),
    ],
)
def test_known_cuts(name, zone, at, cut):
    """Worked out by hand."""
    assert Truncation.of(name, zone).one(parse_rfc3339(at)) == parse_rfc3339(cut)


@pytest.mark.parametrize("name", ["second", "1_minute", "60_second", "5_minute", "12_hour", "24_hour", *DAYS])
def test_truncations_there_are(name):
    """N divides the next larger unit."""
    assert parse_truncation(name).name == name


@pytest.mark.parametrize(
    "name",
    ["", "Day", "7_minute", "0_minute", "05_minute", "5_hour", "120_minute", "48_hour", "2_day", "decade",
    "_minute", "\u0665_minute", "5_minute\n", "-5_minute"],
)  # fmt: skip
def test_truncations_there_are_not(name):
    """The error says which there are."""
    with pytest.raises(InvalidInputError, match="half_year"):
        parse_truncation(name)


@pytest.mark.parametrize(
    "name", ["", "localtime", "../UTC", "/etc/passwd", "europe/berlin", "Europe", "CEST", "Factory", "+01:00"]
)
def test_what_is_no_time_zone_is_refused(name):
    """Only IANA's names are names, in IANA's spelling."""
    with pytest.raises(InvalidInputError, match="IANA"):
        check_timezone(name)


def test_iana_names_are_time_zones():
    """Old links too."""
    old = {"UTC", "America/Argentina/Buenos_Aires", "US/Eastern", "Etc/GMT+12"}
    assert old <= zone_names()
    assert check_timezone("Asia/Kolkata") == "Asia/Kolkata"
