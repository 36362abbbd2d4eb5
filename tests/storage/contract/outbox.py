"""The part of a store's tests that is about deliveries; ``store.py`` has the fixtures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from meterite.model.errors import ConflictError, NotFoundError
from meterite.model.event import EventType
from meterite.model.metric import MetricSpec, Notify
from meterite.storage.event_interface import DeliveryState, HandlerCounts, Outcome, Result
from storage.place import AT, push

LEASE_US = 8_000_000
SPEC = MetricSpec(code="m", name="M", max_reading=10.0, notify=Notify.EVERY)


def everything(row):
    return np.ones(len(row), bool)


def fan_out(store, handler="ops", wanted=everything, **options):
    while store.outbox.fan_out(handler, wanted, **options):
        pass


def claim(store, owner="a", limit=100, handler="ops"):
    return store.outbox.claim(owner, handler, limit)


def ids(deliveries):
    return [delivery.event.id for delivery in deliveries]


def finish(store, deliveries, outcome=Outcome.DONE, owner="a", **fields):
    store.outbox.finish(owner, [Result(delivery, outcome, **fields) for delivery in deliveries])


def all_ids(store, org="here"):
    return [event.id for event in store.events.select(org, limit=1000).events]


class OutboxTests:
    """Tests of ``Outbox``."""

    @pytest.fixture
    def raise_(self, store, here):
        """So many events of one series; answers their ids, in order."""
        metric = store.catalog.create("here", SPEC)
        at_us = iter(range(AT, AT + 1000))

        def raising(count, series=None):
            before = all_ids(store)
            for _ in range(count):
                push(store, here, (series or metric.series_first, next(at_us), 11.0))
            return all_ids(store)[len(before) :]

        store.outbox.register(["ops"])
        return raising

    def test_a_new_handler_begins_behind_the_newest(self, store, raise_):
        """What was before isn't for it; others go on."""
        raise_(2)
        store.outbox.register(["ops", "late"])
        after = raise_(1)
        fan_out(store)
        fan_out(store, "late")
        assert len(claim(store)) == 3
        assert ids(claim(store, handler="late")) == after

    def test_each_event_becomes_one_delivery(self, store, raise_, start):
        """Whichever worker looks, and however often; only of what is wanted."""
        raised = raise_(5)
        other = start()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda worker: fan_out(worker, limit=1), [store, other]))
        assert ids(claim(store)) == raised
        assert not claim(other)
        fan_out(store)
        assert store.outbox.counts() == [HandlerCounts("ops", 5, 0, 0)]

    def test_what_is_not_wanted_is_looked_at_once(self, store, raise_):
        """By ordinals of a row."""
        raise_(3)
        rows = []
        fan_out(store, wanted=lambda row: rows.append(row.id) or np.zeros(len(row), bool))
        fan_out(store, wanted=lambda row: rows.append(row.id) or np.zeros(len(row), bool))
        assert len(rows) == len(set(rows)) == 3
        assert claim(store) == []

    def test_claimed_by_one_until_the_lease_ends(self, store, raise_, start, clock):
        """Then by another, who sees how often it was tried; renewing keeps it."""
        raised, other = raise_(2), start()
        fan_out(store)
        [first] = claim(store, limit=1)
        assert (first.handler, first.event.id, first.attempts) == ("ops", raised[0], 0)
        assert ids(claim(other, "b")) == raised[1:]
        clock.now_us += LEASE_US - 3_000_000
        store.outbox.renew("a", [first])
        clock.now_us += LEASE_US - 3_000_000
        again = claim(other, "c")
        assert [(d.event.id, d.attempts) for d in again] == [(raised[1], 1)]
        clock.now_us += LEASE_US
        assert {d.event.id for d in claim(other, "d")} == set(raised)

    def test_done_is_done(self, store, raise_, clock):
        """And told with the event; also where the lease had ended, since the receiver has it."""
        [raised] = raise_(1)
        fan_out(store)
        claimed = claim(store)
        clock.now_us += LEASE_US
        assert ids(claim(store, "b")) == [raised]
        finish(store, claimed)
        clock.now_us += 10 * LEASE_US
        assert claim(store) == []
        [status] = store.events.deliveries("here", raised)
        assert (status.handler, status.state) == ("ops", DeliveryState.DONE)

    def test_again_when_it_is_due(self, store, raise_, clock):
        """Not before; attempts count, and the reason is told."""
        [raised] = raise_(1)
        fan_out(store)
        due_us = clock.now_us + 60_000_000
        finish(store, claim(store), Outcome.RETRY, retry_at_us=due_us, error="answered 500")
        assert claim(store) == []
        [status] = store.events.deliveries("here", raised)
        assert (status.state, status.due_at_us, status.error) == (
            DeliveryState.PENDING,
            due_us,
            "answered 500",
        )
        clock.now_us = due_us
        [delivery] = claim(store)
        assert (delivery.event.id, delivery.attempts) == (raised, 1)

    def test_given_back_was_not_tried(self, store, raise_):
        """Somebody else may have it at once."""
        raise_(1)
        fan_out(store)
        finish(store, claim(store), Outcome.RELEASED)
        [delivery] = claim(store, "b")
        assert delivery.attempts == 0

    def test_another_owners_are_not_ours_to_fail(self, store, raise_, clock):
        """Only ``done`` counts from who lost the lease."""
        raise_(1)
        fan_out(store)
        lost = claim(store)
        clock.now_us += LEASE_US
        [mine] = claim(store, "b")
        finish(store, lost, Outcome.DEAD, error="x")
        finish(store, lost, Outcome.RETRY, retry_at_us=1, error="x")
        assert claim(store, "c") == []
        finish(store, [mine], owner="b")
        assert store.outbox.counts()[0].open == 0

    def test_dead_raises_an_event_and_may_be_retried(self, store, raise_):
        """One by one, or all of them; a death of a death raises none."""
        [raised] = raise_(1)
        fan_out(store)
        with pytest.raises(ConflictError):
            store.outbox.retry("here", raised, "ops")
        finish(store, claim(store), Outcome.DEAD, error="answered 410")
        death = store.events.select("here", types=[EventType.DEAD]).events
        assert [(event.data["handler"], event.data["event"]["id"]) for event in death] == [("ops", raised)]
        fan_out(store)
        finish(store, claim(store), Outcome.DEAD, error="answered 410")
        assert len(store.events.select("here", types=[EventType.DEAD]).events) == 1
        assert store.outbox.counts() == [HandlerCounts("ops", 0, 2, 0)]
        store.outbox.retry("here", raised, "ops")
        [again] = claim(store)
        assert (again.event.id, again.attempts) == (raised, 0)
        assert store.outbox.retry_dead() == 1
        assert store.outbox.retry_dead("ops") == 0

    def test_no_other_orgs_deliveries(self, store, raise_):
        """Not found, as another handler's aren't."""
        [raised] = raise_(1)
        fan_out(store)
        finish(store, claim(store), Outcome.DEAD, error="x")
        for org, handler in (("there", "ops"), ("here", "nobody")):
            with pytest.raises(NotFoundError):
                store.outbox.retry(org, raised, handler)

    def test_in_order_of_series(self, store, raise_, here):
        """The next of a series once the one before it is finished, dead ones included; series don't wait for others."""
        metric = store.catalog.create("here", MetricSpec(**{**fields_of(SPEC), "code": "o"}))
        first, second, third = raise_(3)
        [other] = raise_(1, metric.series_first)
        fan_out(store, ordered=True)
        claimed = claim(store)
        assert ids(claimed) == [first, other]
        assert claim(store, "b") == []
        finish(store, claimed[:1])
        claimed = claim(store, "b")
        assert ids(claimed) == [second]
        finish(store, claimed, Outcome.DEAD, owner="b", error="x")
        assert ids(claim(store)) == [third]

    def test_of_those_held_back_the_newest_stays(self, store, raise_, clock):
        """And the others are done with a note that names it; nobody was told of them."""
        first, second, third = raise_(3)
        fan_out(store, ordered=True)
        claimed = claim(store)
        assert store.outbox.last_done("ops", claimed) == [None]
        assert store.outbox.supersede("a", claimed[0])
        [newest] = claim(store)
        assert newest.event.id == third
        assert not store.outbox.supersede("a", newest)
        for id_ in (first, second):
            [status] = store.events.deliveries("here", id_)
            assert status.state == DeliveryState.DONE
            assert third in status.error
        finish(store, [newest])
        raise_(1)
        fan_out(store, ordered=True)
        [done_us] = store.outbox.last_done("ops", claim(store))
        assert done_us is not None
        assert done_us <= clock.now_us

    def test_it_is_kept(self, store, raise_, start):
        """Over a restart: what is open, what is dead, how far was looked."""
        raised = raise_(3)
        fan_out(store, limit=2)
        finish(store, claim(store, limit=1), Outcome.DEAD, error="x")
        counts = store.outbox.counts()
        store.close()
        other = start()
        assert other.outbox.counts() == counts
        fan_out(other)
        assert set(raised[1:]) <= set(ids(claim(other, "b")))


def fields_of(spec):
    return {name: getattr(spec, name) for name in spec.__slots__}
