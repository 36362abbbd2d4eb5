"""Events to be delivered in tests."""

from __future__ import annotations

from meterite.model.event import Event, EventPlace, EventType, event_id

RECORDED_AT_US = 1_767_225_600_000_000


def reading(value, at="2026-01-01T00:00:00Z"):
    return {"reading": value, "reading_at": at}


def an_event(number=0, type_=EventType.ABOVE_MAX, code="M1", org="org_01", labels=None, **changes):
    """Of one reading above its limit, unless told otherwise."""
    data = {
        "metric": {"id": 1, "code": code, "name": "Meter 1", "unit": None},
        "labels": labels or {},
        "limits": {"min_reading": 0, "max_reading": 10},
        "late": False,
        "state": "above_max",
        "since": "2026-01-01T00:00:00Z",
        "readings": {
            "count": 2,
            "first": reading(11),
            "last": reading(12, "2026-01-01T00:01:00Z"),
            "extreme": reading(13.5, "2026-01-01T00:00:30Z"),
        },
    }
    return Event(
        id=event_id(RECORDED_AT_US, EventPlace(1 << 16, number)),
        type=type_,
        source=f"/metric/{code}",
        subject=code,
        time="2026-01-01T00:00:00Z",
        org=org,
        data=data | changes,
    )
