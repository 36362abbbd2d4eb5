"""The part of a store's tests that is about events; ``store.py`` has the fixtures."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from meterite.model.errors import InvalidInputError, NotFoundError
from meterite.model.event import EventType
from meterite.model.limits import AlarmState
from meterite.model.metric import SERIES_ORDINAL_BITS, MetricSpec, Notify
from meterite.storage.interface import Append
from storage.place import AT, batch_of, push

SPEC = MetricSpec(code="m", name="M", min_reading=0.0, max_reading=10.0)
ABOVE, BELOW, CLEARED = EventType.ABOVE_MAX, EventType.BELOW_MIN, EventType.CLEARED
UNKNOWN_ID = "01b8d0a0-0000-7000-8000-00000000ffff"


def pages(events, org="here", limit=100, **filters):
    """All events, page by page."""
    found, after = [], None
    while True:
        page = events.select(org, after=after, limit=limit, **filters)
        assert len(page.events) <= limit
        found += page.events
        if page.next is None:
            return found
        assert page.next != after
        after = page.next


def told(found):
    """What they are about, and of which readings."""
    return [
        (event.type, event.subject, event.data["readings"]["first"]["reading"], event.data["late"])
        for event in found
    ]


class EventTests:
    """Tests of ``Events``: what commits and changes raise, and how it is asked for."""

    @pytest.fixture
    def limited(self, store):
        """A metric from 0 to 10."""
        return store.catalog.create("here", SPEC)

    def test_who_compares_is_told_them(self, store, here, limited):
        """Of the series of each request; quiet ones, those of others in the commit and earlier ones are none."""
        version = store.catalog.changed(-1)[0]
        other = store.catalog.create("here", replace(SPEC, code="n", name="N"))
        appends = [
            Append(here, version, batch_of([(metric.series_first, AT + at, value)]), compare=compare)
            for metric, at, value, compare in (
                (limited, 1, 11.0, True),
                (limited, 2, 12.0, False),
                (other, 1, 5.0, True),
                (other, 2, -1.0, True),
            )
        ]
        store.commit(appends[:2])
        (above,) = pages(store.events)
        assert [list(one.events) for one in appends[:2]] == [[above.id], []]
        store.commit(appends[2:3])
        assert list(appends[2].events) == []
        store.commit(appends[3:])
        assert list(appends[3].events) == [pages(store.events)[1].id]
        assert [one.events_more for one in appends] == [0] * 4

    def test_a_commit_raises_what_its_readings_mean(self, store, here, limited, settle, start):
        """A crossing and a clearing each once; late outside is told, too; in every worker, and after a restart."""
        series = limited.series_first
        for at, value in ((5, 11.0), (6, 12.0), (7, 5.0), (6, -1.0), (8, -1.0)):
            push(store, here, (series, AT + at, value))
            settle(store)
        expected = [(ABOVE, "m", 11, False), (CLEARED, "m", 5, False), (BELOW, "m", -1, True)]
        expected += [(BELOW, "m", -1, False)]
        assert told(pages(store.events)) == expected
        assert pages(start().events) == pages(store.events)
        store.close()
        assert told(pages(start().events)) == expected

    def test_what_one_worker_saw_the_other_goes_on_from(self, store, here, limited, settle, start):
        """Nothing is told twice, whoever commits."""
        other, series = start(), limited.series_first
        for n, (worker, value) in enumerate(((store, 11.0), (other, 12.0), (other, 5.0), (store, 6.0))):
            push(worker, here, (series, AT + n, value))
            settle(worker)
        assert told(pages(store.events)) == [(ABOVE, "m", 11, False), (CLEARED, "m", 5, False)]

    def test_one_event_a_series_and_direction(self, store, here, limited):
        """With first, last, extreme and count of the commit's readings outside."""
        one, two = store.catalog.series(here, limited, [(("s", "1"),), (("s", "2"),)])
        rows = [(one, AT + n, value) for n, value in enumerate((11.0, 19.0, 13.0))] + [(two, AT, 5.0)]
        push(store, here, *rows)
        [event] = pages(store.events)
        assert (event.subject, event.org, event.data["labels"]) == ('m{s="1"}', "here", {"s": "1"})
        readings = event.data["readings"]
        values = [readings[name]["reading"] for name in ("first", "last", "extreme")]
        assert (readings["count"], values) == (3, [11, 13, 19])

    def test_under_every_each_commit_tells(self, store, here):
        """As often as there are readings outside."""
        metric = store.catalog.create(
            "here", MetricSpec(code="e", name="E", max_reading=10.0, notify=Notify.EVERY)
        )
        for n in range(3):
            push(store, here, (metric.series_first, AT + n, 11.0 + n))
        assert [reading for _, _, reading, _ in told(pages(store.events))] == [11, 12, 13]

    def test_a_change_of_limits_is_told(self, store, limited):
        """What was, and what is."""
        store.catalog.update("here", "m", {"max_reading": 20.0})
        [event] = pages(store.events)
        assert event.type == EventType.CHANGED
        assert (event.data["before"], event.data["after"]) == ({"max_reading": 10}, {"max_reading": 20})

    @pytest.mark.parametrize("limit", [1, 2, 100])
    def test_pages_in_the_order_in_which_it_happened(self, store, here, limited, limit):
        """Whatever they hold, together they are all; ids sort as the events, and say where the next page begins."""
        for n in range(5):
            push(store, here, (limited.series_first, AT + n, 11.0 if n % 2 == 0 else 5.0))
        found = pages(store.events, limit=limit)
        ids = [event.id for event in found]
        assert len(ids) == 5
        assert ids == sorted(set(ids))
        assert store.events.select("here", after=ids[2]).events == found[3:]
        with pytest.raises(InvalidInputError):
            store.events.select("here", after="x")

    def test_filters(self, store, here, limited):
        """By type, by metric, by whether somebody acknowledged it."""
        other = store.catalog.create("here", MetricSpec(code="o", name="O", max_reading=10.0))
        push(store, here, (limited.series_first, AT, 11.0), (other.series_first, AT, 11.0))
        push(store, here, (limited.series_first, AT + 1, 5.0))
        above, others, cleared = pages(store.events)
        assert pages(store.events, types=[CLEARED]) == [cleared]
        assert pages(store.events, metric="o") == [others]
        assert pages(store.events, metric="no such") == []
        store.events.ack("here", above.id)
        assert pages(store.events, acked=True) == [above]
        assert pages(store.events, acked=False) == [others, cleared]

    def test_pages_are_full(self, store, here):
        """But the last: of many metrics' events the few of one, of a type, acknowledged or not, and all of these."""
        random = np.random.default_rng(1)
        metrics = [
            store.catalog.create("here", replace(SPEC, code=f"m{n}", notify=Notify.EVERY)) for n in range(40)
        ]
        for n in range(120):
            rare = {0} if n % 30 == 7 else set()
            some = rare | {1, 39, *random.integers(2, 39, 2).tolist()}
            values = random.choice([11.0, -1.0], len(some), p=[0.9, 0.1])
            push(
                store,
                here,
                *(
                    (metrics[m].series_first, AT + n, value)
                    for m, value in zip(sorted(some), values, strict=True)
                ),
            )
        every = pages(store.events)
        acked = {event.id for event in every[::50]}
        for id_ in acked:
            store.events.ack("here", id_)
        for code, type_, done, limit in itertools.product(
            (None, "m0", "m1", "m20", "none"), (None, ABOVE, BELOW, CLEARED), (None, True, False), (2, 100)
        ):
            expected = [
                event
                for event in every
                if code in {None, event.subject}
                and type_ in {None, event.type}
                and done in {None, event.id in acked}
            ]
            found, after = [], None
            while len(found) < len(expected):
                page = store.events.select(
                    "here", after=after, metric=code, types=[type_] if type_ else [], acked=done, limit=limit
                )
                assert len(page.events) == min(limit, len(expected) - len(found))
                found, after = found + page.events, page.next
            assert found == expected

    def test_acknowledged_once(self, store, here, limited, start):
        """The first time counts, for every worker; the event itself never changes."""
        push(store, here, (limited.series_first, AT, 11.0))
        [event] = pages(store.events)
        assert store.events.get("here", event.id) == (event, None)
        first_us = store.events.ack("here", event.id)
        assert start().events.ack("here", event.id) == first_us
        assert store.events.get("here", event.id) == (event, first_us)

    def test_no_other_orgs(self, store, here, limited):
        """Not found, like one that never was; nor in pages and alerts."""
        push(store, here, (limited.series_first, AT, 11.0))
        [event] = pages(store.events)
        for org, id_ in (("there", event.id), ("here", UNKNOWN_ID)):
            for ask in (store.events.get, store.events.ack, store.events.deliveries):
                with pytest.raises(NotFoundError):
                    ask(org, id_)
        assert pages(store.events, "there") == store.events.alerts("there") == []
        assert store.events.alarmed() == ["here"]

    def test_newest_moves_with_each_event(self, store, here, limited, start):
        """And with nothing else; it is a cursor behind all that there was."""
        cursors = [store.events.newest()]
        for n, value in enumerate((5.0, 11.0, 12.0, 5.0)):
            push(store, here, (limited.series_first, AT + n, value))
            cursors.append(start().events.newest())
        assert [a != b for a, b in itertools.pairwise(cursors)] == [False, True, False, True]
        assert store.events.select("here", after=cursors[-1]).events == []

    def test_alerts_are_what_is_outside_now(self, store, here, limited, settle, start):
        """By series, with the last event that told of it; what came back, or whose metric isn't active, is none."""
        series = sorted(store.catalog.series(here, limited, [(), (("s", "1"),), (("s", "2"),)]))
        push(store, here, *[(one, AT, 11.0 + n) for n, one in enumerate(series)])
        settle(store)
        push(store, here, (series[0], AT + 1, 5.0))
        settle(store)
        for worker in (store, start()):
            alerts = worker.events.alerts("here")
            assert [alert.series for alert in alerts] == series[1:]
            assert [alert.labels for alert in alerts] == [(("s", "1"),), (("s", "2"),)]
            assert {(a.state, a.since_us, a.silent) for a in alerts} == {(AlarmState.ABOVE, AT, False)}
            assert [alert.reading.last for alert in alerts] == [12.0, 13.0]
            event, _ = worker.events.get("here", alerts[0].reading.event_id)
            assert event.subject == 'm{s="1"}'
            assert worker.events.alerts("here", limit=1) == alerts[:1]
            assert worker.events.alerts("here", after=series[1]) == alerts[1:]
            assert worker.events.alarmed() == ["here"]
        store.catalog.set_active("here", "m", active=False)
        assert store.events.alerts("here") == []

    def test_alarmed_orgs_are_none_when_all_came_back(self, store, here, limited):
        """Nothing is outside, and nothing that was told isn't taken back."""
        push(store, here, (limited.series_first, AT, 11.0))
        push(store, here, (limited.series_first, AT + 1, 5.0))
        assert store.events.alarmed() == []

    def test_a_silent_metric_is_told_once_and_resumes(self, store, place, clock):
        """Whoever looks; an alert without a state until the next reading, which ends it."""
        metric = store.catalog.create("here", MetricSpec(code="s", name="S", expected_every="1h"))
        org_id = store.catalog.org_id("here")
        push(store, org_id, (metric.series_first, clock.now_us, 1.0))
        clock.now_us += 7_200_000_000
        for _ in range(2):
            compaction = place.compaction(store)
            while compaction.run_once():
                pass
            compaction.close()
        assert [event.type for event in pages(store.events)] == [EventType.SILENT]
        [alert] = store.events.alerts("here")
        assert (alert.silent, alert.series, alert.reading) == (True, metric.id << SERIES_ORDINAL_BITS, None)
        push(store, org_id, (metric.series_first, clock.now_us, 1.0))
        assert [event.type for event in pages(store.events)] == [EventType.SILENT, EventType.RESUMED]
        assert store.events.alerts("here") == []
