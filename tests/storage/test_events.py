"""Events asked for: pages, filters, one by one, acknowledged, and what is outside now."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing

import pytest

from meterite.model.errors import InvalidInputError, NotFoundError
from meterite.model.event import EventPlace, EventType, event_id, parse_event_id
from meterite.model.event_row import Document
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, CLEARED, LATE, QUIET, AlarmState
from meterite.storage import events as events_module
from meterite.storage.event_interface import AlertReading
from storage.raised import SECOND, YEAR_2030, Raised, changed, transition


@pytest.fixture
def raised(tmp_path):
    raised = Raised(tmp_path / "m.db")
    yield raised
    raised.close()


def ids(events):
    return [event.id for event in events]


def test_an_event_of_readings(raised):
    """What it says, to the letter: the metric as it was called then, its labels, limits and readings."""
    metric = raised.metric("temp", unit="°C")
    (series,) = raised.series(metric, (("host", 'a"b'), ("room", "\\")))
    raised.raise_(transition(series, value=11.5, since=YEAR_2030 - SECOND, count=3, extreme=12.0))
    raised.store.catalog.update("here", "temp", {"name": "renamed"})
    (event,) = raised.all(types=[EventType.ABOVE_MAX])
    reading = {"reading": 11.5, "reading_at": "2029-12-31T23:59:59Z"}
    assert event.to_dict() == {
        "specversion": "1.0",
        "id": event.id,
        "type": "meterite.reading.above_max",
        "source": "/orgs/here",
        "subject": 'temp{host="a\\"b",room="\\\\"}',
        "time": "2030-01-01T00:00:00Z",
        "org": "here",
        "datacontenttype": "application/json",
        "data": {
            "metric": {"id": metric.id, "code": "temp", "name": "TEMP", "unit": "°C"},
            "labels": {"host": 'a"b', "room": "\\"},
            "limits": {"min_reading": 0.0, "max_reading": 10.0},
            "state": "above",
            "since": "2029-12-31T23:59:59Z",
            "late": False,
            "readings": {
                "count": 3,
                "first": reading,
                "last": reading,
                "extreme": reading | {"reading": 12.0},
            },
        },
    }
    assert raised.store.events.get("here", event.id) == (event, None)


def test_events_that_are_not_about_readings(raised):
    """The metric stands beside what the document says; one about none has its own subject."""
    metric = raised.metric("m")
    raised.raise_(changed(metric.id, unit=[None, "K"]), Document(EventType.DEAD, 0, {"handler": "ops"}, "x"))
    one, two = raised.all()
    assert (one.type, one.subject) == ("meterite.metric.changed", "m")
    assert one.data == {
        "metric": {"id": metric.id, "code": "m", "name": "M", "unit": None},
        "unit": [None, "K"],
    }
    assert (two.type, two.subject, two.data) == ("meterite.delivery.dead", "x", {"handler": "ops"})


def test_pages_are_in_order_and_without_gaps(raised):
    """Any limit gives the same events, oldest first; ids ascend, and any of them is a cursor."""
    a, b = raised.metric("a"), raised.metric("b")
    for n in range(7):
        raised.now += n % 2 * SECOND
        raised.raise_(*[transition((a, b)[k % 2].series_first) for k in range(n % 4)], changed(a.id, n=n))
    expected = ids(raised.all())
    assert len(expected) == sum(n % 4 + 1 for n in range(7))
    assert expected == sorted(expected)
    for limit in (1, 2, 3, 100):
        assert ids(raised.all(limit=limit)) == expected
    for n, id_ in enumerate(expected):
        assert ids(raised.store.events.select("here", after=id_).events) == expected[n + 1 :]


def test_few_among_many(raised):
    """One page has them, whatever lies between them that might have been one."""
    a, b, c = (raised.metric(code) for code in "abc")
    others = [transition(metric.series_first) for metric in (a, c)]
    for n in range(1100):
        raised.raise_(others[0], *([transition(b.series_first)] if n % 500 == 50 else []), others[1])
    page = raised.store.events.select("here", metric="b", limit=5)
    assert [event.subject for event in page.events] == ["b"] * 3
    assert raised.store.events.select("here", after=page.next).next is None


def test_a_page_does_so_much_work(raised, monkeypatch):
    """Then it may be short, or empty, and still have a next; all pages have all."""
    monkeypatch.setattr(events_module, "WORK_MAX", 2 * events_module.LOOK_WORK)
    a, b = raised.metric("a"), raised.metric("b")
    for metric in (a, b, a, b, a):
        # all rows may hold both metrics
        raised.raise_(transition(a.series_first, 0, flags=QUIET), transition(metric.series_first))
    assert len(raised.all(metric="b")) == 2
    assert len(raised.all(metric="a")) == 3
    first = raised.store.events.select("here", metric="a", limit=3)
    assert (len(first.events), bool(first.next)) == (1, True)
    monkeypatch.setattr(events_module, "WORK_MAX", 4)
    first = raised.store.events.select("here", types=[EventType.CHANGED])  # no row may hold one
    assert first.events == []
    row = parse_event_id(first.next)[1].row
    assert raised.rows("SELECT count(*) FROM event WHERE id <= ?", row) == [(4,)]
    assert raised.all(types=[EventType.CHANGED]) == []


def test_filters(raised):
    """By type, by the metric's code (one that was deleted and made again counts as both), and both."""
    a, b = raised.metric("a"), raised.metric("b")
    raised.raise_(transition(a.series_first), transition(b.series_first, BELOW_MIN))
    raised.raise_(transition(b.series_first, CLEARED), changed(a.id))
    assert {e.subject for e in raised.all(metric="a")} == {"a"}
    assert len(raised.all(metric="a")) == 2
    assert raised.all(metric="none") == []
    types = [e.type for e in raised.all(types=[EventType.BELOW_MIN, EventType.CHANGED])]
    assert types == ["meterite.reading.below_min", "meterite.metric.changed"]
    assert [e.type for e in raised.all(types=[EventType.CLEARED], metric="b")] == ["meterite.limits.cleared"]
    raised.store.catalog.set_active("here", "a", active=False)
    raised.store.catalog.delete("here", "a")
    again = raised.metric("a")
    raised.raise_(transition(again.series_first))
    crossings = [EventType.ABOVE_MAX]
    assert [e.data["metric"]["id"] for e in raised.all(metric="a", types=crossings)] == [a.id, again.id]


def test_quiet_transitions_are_no_events(raised):
    """They are in no page, and their ids name nothing."""
    a = raised.metric("a")
    row = raised.raise_(transition(a.series_first, flags=QUIET), transition(a.series_first))
    (event,) = raised.all()
    (when,) = raised.rows("SELECT recorded_at FROM event")[0]
    assert event.id == event_id(when, EventPlace(row, 1))
    with pytest.raises(NotFoundError):
        raised.store.events.get("here", event_id(when, EventPlace(row, 0)))


def test_what_is_not_found(raised):
    """Another org's event, an ordinal too many, another time, no id at all: all the same."""
    a = raised.metric("a")
    raised.raise_(transition(a.series_first))
    (event,) = raised.all()
    _, place = parse_event_id(event.id)
    wrong = [
        ("there", event.id),
        ("here", event_id(YEAR_2030, EventPlace(place.row, 1))),
        ("here", event_id(YEAR_2030 + SECOND, place)),
        ("here", event_id(YEAR_2030, EventPlace(place.row + 1, 0))),
        ("here", "x"),
        ("here", "00000000-0000-4000-8000-000000000000"),
    ]
    asked = (raised.store.events.get, raised.store.events.ack, raised.store.events.deliveries)
    for ask, (org, id_) in itertools.product(asked, wrong):
        with pytest.raises(NotFoundError):
            ask(org, id_)
    assert raised.all(org="there") == []
    with pytest.raises(InvalidInputError):
        raised.store.events.select("here", after="x")


def test_acknowledged(raised):
    """Once: the first time counts. Pages say so, and ask for either."""
    a = raised.metric("a")
    for _ in range(3):
        raised.raise_(transition(a.series_first), transition(a.series_first, BELOW_MIN))
    every = ids(raised.all())
    raised.now += SECOND
    assert raised.store.events.ack("here", every[3]) == YEAR_2030 + SECOND
    raised.now += SECOND
    assert raised.store.events.ack("here", every[3]) == YEAR_2030 + SECOND
    assert raised.store.events.get("here", every[3])[1] == YEAR_2030 + SECOND
    assert ids(raised.all(acked=True)) == [every[3]]
    assert ids(raised.all(acked=False)) == every[:3] + every[4:]
    assert raised.store.events.select("here").acked_at_us == {every[3]: YEAR_2030 + SECOND}


def test_newest_is_a_cursor_that_moves_with_each_commit(raised):
    """Of any org; nothing is behind it."""
    a = raised.metric("a")
    first = raised.store.events.newest()
    assert raised.store.events.select("here", after=first).events == []
    raised.raise_(transition(a.series_first))
    second = raised.store.events.newest()
    assert second != first
    assert raised.store.events.newest() == second
    assert raised.store.events.select("here", after=second).next is None
    assert len(raised.store.events.select("here", after=first).events) == 1
    raised.raise_(Document(EventType.DEAD, 0, {}, "x"), org="there")
    assert raised.store.events.newest() > second


def test_alerts(raised):
    """What is outside now, by series, with what was last told of it; pending, cleared and inactive ones aren't."""
    a, b, c, d = (raised.metric(code) for code in "abcd")
    one, two = raised.series(a, (("host", "x"),), (("host", "y"),))
    row = raised.raise_(
        transition(a.series_first, 0, flags=QUIET, pending=AlarmState.ABOVE, pending_since=5),
        transition(one, value=11.0, since=5),
        transition(two, BELOW_MIN, value=-1.0, since=6),
        transition(c.series_first),
        transition(d.series_first, 0, flags=QUIET, state=AlarmState.BELOW, since=9),
    )
    raised.raise_(transition(b.series_first), Document(EventType.SILENT, b.id, {}))
    raised.raise_(transition(b.series_first, CLEARED), transition(one, flags=LATE, since=5, last=99.0))
    raised.raise_(Document(EventType.SILENT, c.id, {}), Document(EventType.RESUMED, c.id, {}))
    raised.store.catalog.set_active("here", "c", active=False)
    alerts = raised.store.events.alerts("here")
    assert [(x.series, x.state, x.since_us, x.labels, x.silent) for x in alerts] == [
        (one, AlarmState.ABOVE, 5, (("host", "x"),), False),
        (two, AlarmState.BELOW, 6, (("host", "y"),), False),
        (b.series_first, None, YEAR_2030 + 1, (), True),
        (d.series_first, AlarmState.BELOW, 9, (), False),
    ]
    first = event_id(YEAR_2030, EventPlace(row, 1))
    assert alerts[0].reading == AlertReading(first, 0.0, 10.0, 5, 11.0, 5, 11.0)
    assert alerts[0].metric == raised.names[a.id]
    assert alerts[3].reading is None
    assert raised.store.events.alerts("there") == []
    assert raised.store.events.alerts("here", limit=2) == alerts[:2]
    assert raised.store.events.alerts("here", after=two, limit=1) == alerts[2:3]
    other = raised.opened()
    assert other.events.alerts("here") == alerts
    other.close()
    raised.raise_(Document(EventType.SILENT, d.id, {}))
    assert [x.series for x in raised.store.events.alerts("here", after=b.series_first, limit=1)] == [
        d.series_first
    ] * 2


def test_alerts_follow_other_workers(raised):
    """What was kept in memory is brought up to date by every question."""
    a = raised.metric("a")
    other = raised.opened()
    raised.raise_(transition(a.series_first))
    assert len(other.events.alerts("here")) == 1
    raised.raise_(transition(a.series_first, ABOVE_MAX, since=7, value=20.0))
    (alert,) = other.events.alerts("here")
    assert alert.reading.last == 20.0
    raised.raise_(transition(a.series_first, CLEARED))
    assert other.events.alerts("here") == []
    other.close()


def test_a_damaged_row_is_left_out_and_reported(raised):
    """The others are there; the row is in quarantine."""
    a = raised.metric("a")
    rows = [raised.raise_(transition(a.series_first)) for _ in range(3)]
    every = ids(raised.all())
    raised.store.close()
    with closing(sqlite3.connect(raised.path)) as conn:
        conn.execute("UPDATE event_row SET types = 3 WHERE id = ?", (rows[1],))
        conn.commit()
    raised.store = raised.opened()
    assert ids(raised.all(limit=1)) == [every[0], every[2]]
    with pytest.raises(NotFoundError):
        raised.store.events.get("here", every[1])
    raised.store.flush_damage()
    assert raised.rows("SELECT kind, row_id FROM quarantine") == [("event", rows[1])]
    view = raised.store.view(raised.store.catalog.org_id("here"))
    assert view.gaps(raised.store.span(a, None, None, ())) == []
    view.close()
