"""Ids of events: UUIDv7, sortable, and the way back to the event's place."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from meterite.model.event import ORDINAL_BITS, ROW_BITS, EventPlace, event_id, parse_event_id

places = st.builds(EventPlace, st.integers(0, (1 << ROW_BITS) - 1), st.integers(0, (1 << ORDINAL_BITS) - 1))
times = st.integers(0, (1 << 48) * 1000 - 1)


@given(times, places)
def test_an_id_is_a_uuid7_and_leads_back(at_us, place):
    text = event_id(at_us, place)
    assert UUID(text).version == 7
    assert UUID(text).variant == "specified in RFC 4122"
    assert parse_event_id(text) == (at_us // 1000, place)


@given(times, times, places, places)
def test_ids_sort_as_events_happened(at_us, later_us, place, later):
    at_us, later_us = sorted([at_us, later_us])
    place, later = sorted([place, later], key=lambda p: (p.row, p.ordinal))
    assert event_id(at_us, place) <= event_id(later_us, later)


@given(st.text() | st.uuids().map(str))
def test_other_texts_are_no_ids(text):
    parsed = parse_event_id(text)
    if (
        parsed is not None
    ):  # a foreign UUIDv7 may look like one of ours: it leads to a place, where nothing may be
        assert event_id(parsed[0] * 1000, parsed[1]) == str(UUID(text))
