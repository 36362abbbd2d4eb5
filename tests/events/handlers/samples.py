"""Events as the store renders them."""

from __future__ import annotations

from meterite.model.event import Event, EventPlace, EventType, event_id, event_time

RECORDED_AT_US = 1_700_000_000_000_000
METRIC = {"id": 1, "code": "M1", "name": "Meter 1", "unit": "kWh"}


def sample(type_=EventType.ABOVE_MAX, *, number=1, labels=None, at_us=RECORDED_AT_US, org="org_01", **data):
    """An event of a type; ``data`` on top of what the type has."""
    labels = labels or {}
    return Event(
        id=event_id(at_us, EventPlace(number << 16, 0)),
        type=str(type_),
        source="/metric/M1",
        subject="M1" + ('{"host":"a"}' if labels else ""),
        time=event_time(at_us),
        org=org,
        data=_data(type_, labels) | data,
    )


def _data(type_, labels):
    if type_ in {EventType.ABOVE_MAX, EventType.BELOW_MIN, EventType.CLEARED}:
        reading = {"reading": 101.5, "reading_at": "2023-11-14T22:13:20Z"}
        state = "ok" if type_ == EventType.CLEARED else type_.rpartition(".")[2]
        return {
            "metric": METRIC,
            "labels": labels,
            "limits": {"min_reading": 0, "max_reading": 100},
            "late": False,
            "state": state,
            "since": None if state == "ok" else "2023-11-14T22:13:20Z",
            "readings": {"count": 1, "first": reading, "last": reading, "extreme": reading},
        }
    if type_ == EventType.SILENT:
        return {"metric": METRIC, "expected_every": "5m", "newest_recorded_at": "2023-11-14T22:08:20Z"}
    if type_ == EventType.RESUMED:
        return {"metric": METRIC, "expected_every": "5m", "newest_recorded_at": "2023-11-14T22:13:20Z"}
    if type_ == EventType.CHANGED:
        return {
            "metric": METRIC,
            "change": "updated",
            "before": {"max_reading": 100},
            "after": {"max_reading": 120},
        }
    return {
        "metric": METRIC,
        "handler": "ops",
        "attempts": 7,
        "first_at": "2023-11-14T22:13:20Z",
        "error": "answered 410 Gone",
        "event": {
            "id": "018bcfe5-6800-7000-8000-000000040000",
            "type": "meterite.reading.above_max",
            "subject": "M1",
            "time": "2023-11-14T22:13:20Z",
        },
    }
