"""Durations: what is taken, and what is refused with its place."""

from __future__ import annotations

import pytest

from meterite.model.duration import DURATION_LAST_US, parse_duration
from meterite.model.errors import InvalidInputError

PLACE = ("body", "for")


@pytest.mark.parametrize(
    ("text", "us"),
    [("0s", 0), ("7us", 7), ("1ms", 1000), ("30s", 30_000_000), ("5m", 300_000_000), ("1w", 604_800_000_000)],
)
def test_units(text, us):
    assert parse_duration(text, place=PLACE) == us


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-5m", "1.5h", "5 m", "5M", "٣s", "1y", 5, None, "9" * 30 + "s", "5301w"]
)
def test_refused(text):
    with pytest.raises(InvalidInputError) as caught:
        parse_duration(text, place=PLACE)
    assert caught.value.place == PLACE


def test_a_hundred_years_are_the_most():
    assert parse_duration("5300w", place=PLACE) == DURATION_LAST_US
