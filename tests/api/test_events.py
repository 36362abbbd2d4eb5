"""Events and alerts, through the whole app."""

from __future__ import annotations

import numpy as np
import pytest

from meterite.storage.event_interface import Outcome, Result

M1 = {"code": "M1", "name": "Meter 1", "min_reading": 0, "max_reading": 10, "unit": "°C"}
NO_EVENT = "01a20d65-79d3-7000-8000-000400000000"
ABOVE, BELOW = "meterite.reading.above_max", "meterite.reading.below_min"
CLEARED, CHANGED = "meterite.limits.cleared", "meterite.metric.changed"


@pytest.fixture
def metric(client):
    return client.post("/metric/", json=M1).json()


def push(client, reading, minute=0, **fields):
    row = {"metric": "M1", "reading": reading, "reading_at": f"2026-01-31T12:{minute:02}:00Z"} | fields
    assert client.post("/readings", json=[row]).status_code == 200


def types(client, **params):
    return [event["type"] for event in client.get("/events", params=params).json()["events"]]


@pytest.fixture
def story(client, metric):
    """Above, cleared, below with labels, and a change of the metric; then another metric's."""
    push(client, 11, 0)
    push(client, 5, 1)
    push(client, -1, 2, labels={"host": "a"})
    client.put("/metric/M1", json=M1 | {"name": "renamed"})
    client.post("/metric/", json=M1 | {"code": "M2"})
    push(client, 99, 3, metric="M2")


def test_events_come_oldest_first(client, story):
    """Each is a CloudEvent about the metric as it was called then."""
    events = client.get("/events").json()["events"]
    assert [event["type"] for event in events] == [ABOVE, CLEARED, BELOW, CHANGED, ABOVE]
    assert [event["subject"] for event in events] == ["M1", "M1", 'M1{host="a"}', "M1", "M2"]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    assert {(event["source"], event["org"]) for event in events} == {("/orgs/org_01", "org_01")}
    assert [event["data"]["metric"]["name"] for event in events][2:4] == ["Meter 1", "renamed"]
    reading = {"reading": 11, "reading_at": "2026-01-31T12:00:00Z"}
    assert events[0]["data"] == {
        "metric": {"id": 1, "code": "M1", "name": "Meter 1", "unit": "°C"},
        "labels": {},
        "limits": {"min_reading": 0, "max_reading": 10},
        "state": "above",
        "since": "2026-01-31T12:00:00Z",
        "late": False,
        "readings": {"count": 1, "first": reading, "last": reading, "extreme": reading},
    }


def test_pages(client, story):
    """``next`` goes on without gap or repetition; it stays as it is where nothing is new; an id is a cursor, too."""
    every = client.get("/events").json()
    for limit in (1, 2, 3):
        found, after = [], None
        while True:
            page = client.get("/events", params={"limit": limit} | ({"after": after} if after else {})).json()
            assert len(page["events"]) <= limit
            found += page["events"]
            if page["next"] == after:
                break
            after = page["next"]
        assert found == every["events"]
    behind = client.get("/events", params={"after": every["events"][2]["id"]}).json()["events"]
    assert behind == every["events"][3:]
    push(client, 98, 4, metric="M2")
    assert types(client, after=every["next"]) == []
    push(client, 1, 5, metric="M2")
    assert types(client, after=every["next"]) == [CLEARED]


def test_nothing_yet(client):
    """The cursor that was sent comes back; without one, a cursor before all that comes, for the stream, too."""
    assert client.get("/events", params={"after": NO_EVENT}).json() == {"events": [], "next": NO_EVENT}
    page = client.get("/events").json()
    assert page["events"] == []
    assert client.get("/events", params={"after": page["next"]}).json() == page
    client.post("/metric/", json={"code": "M1", "name": "Meter 1", "max_reading": 10})
    push(client, 11, 0)
    assert types(client, after=page["next"]) == [ABOVE]


def test_a_wrong_type_is_told_with_its_address(client):
    """However long the list of those that there are."""
    document = client.get("/events", params={"type": "bogus"}).json()
    assert document["instance"] == "/events?type=bogus"


def test_filters(client, story):
    """By type, repeatable, and by the metric's code; a code that there isn't has no events."""
    assert types(client, type=ABOVE) == [ABOVE, ABOVE]
    assert types(client, type=[BELOW, CHANGED]) == [BELOW, CHANGED]
    assert types(client, metric="M2") == [ABOVE]
    assert types(client, metric="M1", type=ABOVE) == [ABOVE]
    assert types(client, metric="M3") == []


@pytest.mark.parametrize(
    "params",
    [
        {"after": "x"},
        {"after": ""},
        {"after": "00000000-0000-4000-8000-000000000000"},
        {"type": "above"},
        {"state": "closed"},
        {"limit": 0},
        {"limit": 1001},
    ],
)
@pytest.mark.parametrize("path", ["/events", "/events/stream"])
def test_what_can_t_be_asked(client, path, params):
    """422 with the place."""
    answer = client.get(path, params=params)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["query", *params]


def test_one_event(client, story):
    """The same as in the list, with its deliveries."""
    for event in client.get("/events").json()["events"]:
        assert client.get(f"/events/{event['id']}").json() == event | {"deliveries": []}


@pytest.mark.parametrize("id_", [NO_EVENT, "x", "00000000-0000-4000-8000-000000000000", "%2F", "stream2"])
def test_no_such_event(client, story, id_):
    """404, whatever it looks like."""
    for answer in (
        client.get(f"/events/{id_}"),
        client.post(f"/events/{id_}/ack"),
        client.post(f"/events/{id_}/deliveries/ops/retry"),
    ):
        assert answer.status_code == 404
        assert answer.json()["type"] == "/problems/event-not-found"


def test_acknowledged_once(client, story):
    """The first time counts; lists and filters know of it."""
    ids = [event["id"] for event in client.get("/events").json()["events"]]
    first = client.post(f"/events/{ids[1]}/ack")
    assert first.status_code == 200
    assert first.json()["id"] == ids[1]
    assert client.post(f"/events/{ids[1]}/ack").json() == first.json()
    shown = client.get("/events").json()["events"]
    assert [event.get("ackedat") for event in shown] == [None, first.json()["ackedat"], None, None, None]
    assert "ackedat" not in shown[0]
    assert client.get("/events", params={"state": "acked"}).json()["events"] == [shown[1]]
    opened = client.get("/events", params={"state": "open"}).json()["events"]
    assert [event["id"] for event in opened] == [ids[0], *ids[2:]]
    assert client.get(f"/events/{ids[1]}").json()["ackedat"] == first.json()["ackedat"]


def test_a_dead_delivery_is_tried_again(client, app, metric):
    """Dead, then pending as if never tried; 409 while it isn't dead, 404 for a handler that was never meant."""
    outbox = app.api.state.service.store.outbox
    outbox.register(["ops"])
    push(client, 11)
    (event,) = client.get("/events").json()["events"]
    place = f"/events/{event['id']}/deliveries/ops/retry"
    assert client.post(place).status_code == 404
    outbox.fan_out("ops", lambda row: np.ones(len(row), bool))
    assert client.post(place).json()["type"] == "/problems/delivery-not-dead"
    (claimed,) = outbox.claim("me", "ops", 10)
    outbox.finish("me", [Result(claimed, Outcome.DEAD, error="410 Gone")])
    (delivery,) = client.get(f"/events/{event['id']}").json()["deliveries"]
    assert None not in (delivery["first_at"], delivery["done_at"])
    known = {"handler": "ops", "state": "dead", "attempts": 1, "due_at": None, "error": "410 Gone"}
    assert delivery.items() >= known.items()
    again = client.post(place)
    assert again.status_code == 200
    assert (
        again.json().items() >= {"handler": "ops", "state": "pending", "attempts": 0, "done_at": None}.items()
    )
    assert client.post(place).status_code == 409
    (_, dead) = client.get("/events").json()["events"]
    assert (dead["type"], dead["subject"]) == ("meterite.delivery.dead", "M1")
    assert dead["data"]["event"]["id"] == event["id"]


def alerts(client, **params):
    return client.get("/alerts", params=params).json()


def test_what_is_outside_now(client, metric):
    """A row a series that is outside, with what was last told of it; none where all is well."""
    assert alerts(client) == {"alerts": [], "next": None}
    push(client, 11, 0)
    push(client, 12.5, 1)
    push(client, -1, 2, labels={"host": "a"})
    client.put("/metric/M1", json=M1 | {"max_reading": 11.5})
    above, below = alerts(client)["alerts"]
    event = client.get("/events").json()["events"][0]
    assert above == {
        "metric": {"id": 1, "code": "M1", "name": "Meter 1", "unit": "°C"},
        "labels": {},
        "state": "above",
        "since": "2026-01-31T12:00:00Z",
        "muted": False,
        "limits": {"min_reading": 0, "max_reading": 11.5},
        "expected_every": None,
        "last": {"reading": 11, "reading_at": "2026-01-31T12:00:00Z"},
        "extreme": {"reading": 11, "reading_at": "2026-01-31T12:00:00Z"},
        "event": event["id"],
    }
    assert (below["state"], below["labels"]) == ("below", {"host": "a"})
    push(client, 5, 3)
    assert alerts(client)["alerts"] == [below]
    client.post("/metric/M1/deactivate")
    assert alerts(client)["alerts"] == []


def test_muted_metrics_are_shown_as_such(client):
    """They are outside without an event."""
    client.post("/metric/", json=M1 | {"mute_until": "2200-01-01T00:00:00Z"})
    push(client, 11)
    assert types(client) == []
    (alert,) = alerts(client)["alerts"]
    assert (alert["state"], alert["muted"], alert["event"], alert["last"]) == ("above", True, None, None)


def test_pages_of_alerts(client, metric):
    """``next`` goes on; null where there are no more."""
    for n in range(5):
        push(client, 11, labels={"n": str(n)})
    every = alerts(client)["alerts"]
    found, after = [], None
    while True:
        page = alerts(client, limit=2, **({} if after is None else {"after": after}))
        found += page["alerts"]
        after = page["next"]
        if after is None:
            break
    assert found == every
    assert [alert["labels"] for alert in every] == [{"n": str(n)} for n in range(5)]


@pytest.mark.parametrize(
    "params", [{"after": "x"}, {"after": -2}, {"after": 2**63}, {"limit": 0}, {"limit": 1001}]
)
def test_alerts_that_can_t_be_asked_for(client, params):
    """422."""
    assert client.get("/alerts", params=params).status_code == 422


def test_notify_every_and_hold_in_the_api(client):
    """What the metric says of its events holds for its readings."""
    client.post("/metric/", json=M1 | {"notify": "every", "hysteresis": 2, "for": "2m"})
    for minute, reading in enumerate((11, 12, 13, 14, 9, 8)):
        push(client, reading, minute)
    assert types(client) == [ABOVE, ABOVE, CLEARED]
