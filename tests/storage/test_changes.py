"""The audit trail: what was done to metrics, each change with its event."""

from __future__ import annotations

import contextlib

import pytest

from meterite.model.errors import ConflictError
from meterite.model.metric import ConflictPolicy, Notify
from storage.raised import YEAR_2030, Raised


@pytest.fixture
def raised(tmp_path):
    raised = Raised(tmp_path / "m.db")
    yield raised
    raised.close()


def told(raised, org="here"):
    return [(e.subject, e.data["change"], e.data["before"], e.data["after"]) for e in raised.all(org=org)]


def test_an_update_tells_what_differs(raised):
    """By the API's names, in its forms; what stays isn't told of, nor is making a metric."""
    metric = raised.metric("m", unit="K")
    catalog = raised.store.catalog
    catalog.update("here", "m", {"name": "M", "max_reading": 9999999.0})
    assert told(raised) == []
    changes = {"name": "new", "unit": "K", "min_reading": -1.5, "max_reading": 7.0, "hysteresis": 0.5}
    changes |= {"notify": Notify.EVERY, "outside_for": "5m", "mute_until_us": YEAR_2030}
    catalog.update("here", "m", changes | {"on_conflict": ConflictPolicy.SUM, "expected_every": "1h"})
    (event,) = raised.all()
    assert event.type == "meterite.metric.changed"
    assert event.data == {
        "metric": {"id": metric.id, "code": "m", "name": "new", "unit": "K"},
        "change": "updated",
        "before": {
            "name": "M",
            "min_reading": -9999999,
            "max_reading": 9999999,
            "on_conflict": "last",
            "notify": "change",
            "hysteresis": 0,
            "for": None,
            "expected_every": None,
            "mute_until": None,
        },
        "after": {
            "name": "new",
            "min_reading": -1.5,
            "max_reading": 7,
            "on_conflict": "sum",
            "notify": "every",
            "hysteresis": 0.5,
            "for": "5m",
            "expected_every": "1h",
            "mute_until": "2030-01-01T00:00:00Z",
        },
    }


def test_state_and_end(raised):
    """Deactivated, activated, deleted; in the metric's own org."""
    raised.metric("m", org="there")
    catalog = raised.store.catalog
    catalog.set_active("there", "m", active=False)
    catalog.set_active("there", "m", active=True)
    catalog.set_active("there", "m", active=False)
    catalog.delete("there", "m")
    assert told(raised, "there") == [
        ("m", "deactivated", {"active": True}, {"active": False}),
        ("m", "activated", {"active": False}, {"active": True}),
        ("m", "deactivated", {"active": True}, {"active": False}),
        ("m", "deleted", {}, {}),
    ]
    assert told(raised) == []


def test_no_event_without_its_change(raised):
    """What is refused, or fails before it is on disk, is not told of."""
    raised.metric("m")
    with pytest.raises(ConflictError):
        raised.store.catalog.delete("here", "m")
    writing = raised.store.database.writing

    @contextlib.contextmanager
    def failing():
        with writing() as conn:
            yield conn
            raise InterruptedError

    raised.store.database.writing = failing
    with pytest.raises(InterruptedError):
        raised.store.catalog.update("here", "m", {"name": "x"})
    raised.store.database.writing = writing
    assert told(raised) == []
    assert raised.store.catalog.metric("here", "m").spec.name == "M"
