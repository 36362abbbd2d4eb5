"""Deliveries: made once, leased to one at a time, given back, in order where asked for, and dead where they must be."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest

from meterite.model.errors import ConflictError, NotFoundError
from meterite.model.event import TYPE_BITS, EventType
from meterite.model.event_row import Document
from meterite.model.limits import ABOVE_MAX, BELOW_MIN, QUIET
from meterite.storage import outbox as outbox_module
from meterite.storage.event_interface import Delivery, DeliveryState, Outcome, Result
from meterite.storage.outbox import LEASE_US
from storage.raised import SECOND, YEAR_2030, Raised, transition


@pytest.fixture
def raised(tmp_path):
    raised = Raised(tmp_path / "m.db")
    yield raised
    raised.close()


def everything(row):
    return np.ones(len(row), bool)


def no_deaths(row):
    return row.kinds() != TYPE_BITS[EventType.DEAD]


def fan_out(raised, handler="ops", wanted=everything, **options):
    while raised.store.outbox.fan_out(handler, wanted, **options):
        pass


def ids(found):
    """Of events or deliveries."""
    return [each.event.id if isinstance(each, Delivery) else each.id for each in found]


def finish(raised, owner, deliveries, outcome=Outcome.DONE, **fields):
    raised.store.outbox.finish(owner, [Result(d, outcome, **fields) for d in deliveries])


def ready(raised, count, handler="ops", **options):
    """So many events of one series, each with its delivery; answers their ids."""
    raised.store.outbox.register([handler])
    metric = raised.metric("m")
    raised.raise_(*[transition(metric.series_first) for _ in range(count)])
    fan_out(raised, handler, **options)
    return ids(raised.all())


def status(raised, id_, handler="ops"):
    (found,) = [d for d in raised.store.events.deliveries("here", id_) if d.handler == handler]
    return found


# From events to deliveries


def test_a_new_handler_begins_behind_the_newest_event(raised):
    """Old events are no news; one that comes back goes on where it was."""
    metric = raised.metric("m")
    raised.raise_(transition(metric.series_first))
    raised.store.outbox.register(["ops", "log"])
    raised.raise_(transition(metric.series_first))
    fan_out(raised)
    assert ids(raised.store.outbox.claim("me", "ops", 10)) == ids(raised.all())[1:]
    raised.store.outbox.register(["ops"])
    raised.raise_(transition(metric.series_first))
    raised.store.outbox.register(["ops", "log"])
    fan_out(raised, "log")
    assert ids(raised.store.outbox.claim("me", "log", 10)) == ids(raised.all())[1:]
    with pytest.raises(NotFoundError):
        raised.store.outbox.fan_out("other", everything)


def test_each_event_is_looked_at_once_whatever_the_limit(raised):
    """Wanted ones become deliveries; quiet transitions never do, though a mask names them."""
    metrics = [raised.metric(code) for code in "ab"]
    raised.store.outbox.register(["ops"])
    for n in range(5):
        raised.raise_(
            *[transition(metrics[k % 2].series_first, (ABOVE_MAX, BELOW_MIN)[k % 2]) for k in range(n)],
            transition(metrics[0].series_first, flags=QUIET),
        )
    looked = []

    def above(row):
        looked.append(row.id)
        return row.kinds() | 2 != 2

    calls = 0
    while raised.store.outbox.fan_out("ops", lambda row: above(row) | (row.metrics() == 0), limit=3):
        calls += 1
    assert calls >= 4
    claimed = raised.store.outbox.claim("me", "ops", 100)
    assert ids(claimed) == ids(raised.all(types=[EventType.ABOVE_MAX]))
    assert len(claimed) == 6
    looked.clear()
    assert not raised.store.outbox.fan_out("ops", above)
    assert looked == []


def test_events_that_nobody_wants_cost_no_writes(raised, monkeypatch):
    """The cursor is remembered, and written once in a while; another worker looks at them again, to no effect."""
    monkeypatch.setattr(outbox_module, "ROWS_AHEAD_MAX", 3)
    raised.store.outbox.register(["ops"])
    before = raised.rows("SELECT cursor_row FROM handler")
    looked = []

    def none(row):
        looked.append(row.id)
        return np.zeros(len(row), bool)

    metric = raised.metric("m")
    rows = []
    for n in range(2):
        rows.append(raised.raise_(transition(metric.series_first)))
        assert not raised.store.outbox.fan_out("ops", none)
        assert looked == rows[: n + 1]
    assert raised.rows("SELECT cursor_row FROM handler") == before
    other = raised.opened()
    assert not other.outbox.fan_out("ops", none)
    assert looked == rows * 2
    other.close()
    rows.append(raised.raise_(transition(metric.series_first)))
    fan_out(raised, wanted=none)
    assert raised.rows("SELECT cursor_row FROM handler") == [(rows[2],)]
    raised.raise_(transition(metric.series_first))
    raised.store.outbox.fan_out("ops", none)
    raised.now += outbox_module.AHEAD_US
    last = raised.raise_(transition(metric.series_first))
    raised.store.outbox.fan_out("ops", none)
    assert raised.rows("SELECT cursor_row FROM handler") == [(last,)]


def test_two_workers_that_look_at_the_same_events_make_one_delivery_each(raised):
    """The second finds the cursor moved, and drops what it found."""
    raised.store.outbox.register(["ops"])
    metric = raised.metric("m")
    raised.raise_(transition(metric.series_first))
    other = raised.opened()

    def meanwhile(row):
        assert not other.outbox.fan_out("ops", everything)
        return everything(row)

    assert raised.store.outbox.fan_out("ops", meanwhile)
    assert not raised.store.outbox.fan_out("ops", everything)
    assert raised.rows("SELECT count(*) FROM delivery") == [(1,)]
    other.close()


# Leases


def test_a_delivery_is_claimed_once_until_its_lease_ends(raised):
    """Then another may have it; who renews keeps it. Attempts count, the first one's time stays."""
    (id_,) = ready(raised, 1)
    (mine,) = raised.store.outbox.claim("me", "ops", 10)
    assert (mine.attempts, mine.first_at_us, mine.event.id) == (0, YEAR_2030, id_)
    assert status(raised, id_).state is DeliveryState.LEASED
    raised.now += LEASE_US - 1
    assert raised.store.outbox.claim("you", "ops", 10) == []
    raised.store.outbox.renew("me", [mine])
    raised.now += LEASE_US - 1
    assert raised.store.outbox.claim("you", "ops", 10) == []
    raised.now += 1
    (yours,) = raised.store.outbox.claim("you", "ops", 10)
    assert (yours.attempts, yours.first_at_us) == (1, YEAR_2030)
    raised.store.outbox.renew("me", [mine])
    raised.now += LEASE_US
    assert len(raised.store.outbox.claim("her", "ops", 10)) == 1


def test_outcomes(raised):
    """Done, again later, dead and released; each says so when asked for."""
    every = ready(raised, 4)
    done, later, dead, back = raised.store.outbox.claim("me", "ops", 10)
    raised.now += SECOND
    raised.store.outbox.finish(
        "me",
        [
            Result(done, Outcome.DONE),
            Result(later, Outcome.RETRY, retry_at_us=raised.now + SECOND, error="503"),
            Result(dead, Outcome.DEAD, error="410"),
            Result(back, Outcome.RELEASED),
        ],
    )
    found = [status(raised, id_) for id_ in every]
    at = YEAR_2030 + SECOND
    assert [(s.state, s.attempts, s.due_at_us, s.first_at_us, s.done_at_us, s.error) for s in found] == [
        (DeliveryState.DONE, 1, None, YEAR_2030, at, None),
        (DeliveryState.PENDING, 1, at + SECOND, YEAR_2030, None, "503"),
        (DeliveryState.DEAD, 1, None, YEAR_2030, at, "410"),
        (DeliveryState.PENDING, 0, at, None, None, None),
    ]
    assert ids(raised.store.outbox.claim("me", "ops", 10)) == [every[3]]
    raised.now += SECOND
    (again,) = raised.store.outbox.claim("me", "ops", 10)
    assert (again.event.id, again.attempts, again.first_at_us) == (every[1], 1, YEAR_2030)


def test_who_lost_his_lease_can_only_say_done(raised):
    """The other's claim stands against retry, dead and release; done is done, whoever did it."""
    (id_,) = ready(raised, 1)
    mine = raised.store.outbox.claim("me", "ops", 10)
    raised.now += LEASE_US
    yours = raised.store.outbox.claim("you", "ops", 10)
    for outcome in (Outcome.RETRY, Outcome.DEAD, Outcome.RELEASED):
        finish(raised, "me", mine, outcome)
        assert status(raised, id_).state is DeliveryState.LEASED
    finish(raised, "me", mine)
    assert status(raised, id_).state is DeliveryState.DONE
    for outcome in (Outcome.RETRY, Outcome.DEAD, Outcome.RELEASED):
        finish(raised, "you", yours, outcome)
        assert status(raised, id_).state is DeliveryState.DONE
    assert len(raised.all()) == 1


def test_oldest_first_and_so_many(raised):
    """By when they are due, and among those by event."""
    every = ready(raised, 5)
    first = raised.store.outbox.claim("me", "ops", 2)
    assert ids(first) == every[:2]
    finish(raised, "me", first, Outcome.RETRY, retry_at_us=raised.now + 1)
    raised.now += 1
    assert ids(raised.store.outbox.claim("me", "ops", 4)) == [*every[2:], every[0]]


def test_a_batch_is_one_transaction(raised):
    """Claiming 200 is one commit, and so is finishing them; nothing due is none."""
    ready(raised, 200)
    taken = []
    writing = raised.store.database.writing
    raised.store.database.writing = lambda **options: taken.append(1) or writing(**options)
    claimed = raised.store.outbox.claim("me", "ops", 200)
    assert (len(claimed), len(taken)) == (200, 1)
    assert raised.store.outbox.claim("me", "ops", 200) == []
    assert raised.store.outbox.fan_out("ops", everything) is False
    finish(raised, "me", claimed)
    assert len(taken) == 2


# In order


def test_an_ordered_handler_gets_a_series_events_one_after_the_other(raised):
    """Others go on beside it; a retry holds its series up; a dead one doesn't."""
    raised.store.outbox.register(["ops"])
    a, b = raised.metric("a").series_first, raised.metric("b").series_first
    raised.raise_(transition(a), transition(b), transition(a))
    fan_out(raised, ordered=True)
    raised.raise_(transition(a), transition(b))
    fan_out(raised, ordered=True)
    a1, b1, a2, a3, b2 = ids(raised.all())
    first = raised.store.outbox.claim("me", "ops", 10)
    assert ids(first) == [a1, b1]
    assert status(raised, a2).state is DeliveryState.PENDING
    assert status(raised, a2).due_at_us is None
    finish(raised, "me", first[1:])
    assert ids(raised.store.outbox.claim("me", "ops", 10)) == [b2]
    finish(raised, "me", first[:1], Outcome.RETRY, retry_at_us=raised.now + SECOND)
    assert raised.store.outbox.claim("me", "ops", 10) == []
    raised.now += SECOND
    again = raised.store.outbox.claim("me", "ops", 10)
    assert ids(again) == [a1]
    finish(raised, "me", again, Outcome.DEAD)
    second = raised.store.outbox.claim("me", "ops", 10)
    assert ids(second) == [a2]
    finish(raised, "me", second)
    assert ids(raised.store.outbox.claim("me", "ops", 10)) == [a3]
    assert raised.store.outbox.counts()[0].open == 2


def test_order_survives_crashes(raised):
    """A lease that ended is claimed before what waits behind it."""
    every = ready(raised, 3, ordered=True)
    raised.store.outbox.claim("me", "ops", 10)
    raised.now += LEASE_US
    other = raised.opened()
    (claimed,) = other.outbox.claim("you", "ops", 10)
    assert claimed.event.id == every[0]
    other.close()


def test_an_event_that_was_dead_and_is_retried_does_not_stop_its_series(raised):
    """It comes beside the oldest that is open, and all are delivered."""
    every = ready(raised, 4, ordered=True)
    finish(raised, "me", raised.store.outbox.claim("me", "ops", 10), Outcome.DEAD)
    raised.store.outbox.retry("here", every[0], "ops")
    both = raised.store.outbox.claim("me", "ops", 10)
    assert sorted(ids(both)) == every[:2]
    finish(raised, "me", both[:1])
    finish(raised, "me", both[1:])
    for id_ in every[2:]:
        claimed = raised.store.outbox.claim("me", "ops", 10)
        assert ids(claimed) == [id_]
        finish(raised, "me", claimed)


# The dead


def test_a_death_raises_an_event(raised):
    """It says whose and which and why; its own death raises none."""
    raised.store.outbox.register(["ops"])
    metric = raised.metric("m", org="there")
    raised.raise_(transition(metric.series_first), org="there")
    fan_out(raised)
    (claimed,) = raised.store.outbox.claim("me", "ops", 10)
    finish(raised, "me", [claimed], Outcome.DEAD, error="gone")
    _, death = raised.all(org="there")
    assert raised.all() == []
    assert (death.type, death.subject) == ("meterite.delivery.dead", "m")
    assert death.data == {
        "metric": {"id": metric.id, "code": "m", "name": "M", "unit": None},
        "handler": "ops",
        "event": {
            "id": claimed.event.id,
            "type": "meterite.reading.above_max",
            "subject": "m",
            "time": "2030-01-01T00:00:00Z",
        },
        "attempts": 1,
        "first_at": "2030-01-01T00:00:00Z",
        "error": "gone",
    }
    fan_out(raised)
    (claimed,) = raised.store.outbox.claim("me", "ops", 10)
    assert claimed.event == death
    finish(raised, "me", [claimed], Outcome.DEAD, error="gone")
    assert len(raised.all(org="there")) == 2


def test_deaths_of_several_orgs(raised):
    """Each org is told of its own."""
    raised.store.outbox.register(["ops"])
    here, there = raised.metric("m"), raised.metric("m", org="there")
    for _ in range(2):
        raised.raise_(transition(here.series_first), transition(here.series_first))
        raised.raise_(transition(there.series_first), org="there")
    fan_out(raised)
    finish(raised, "me", raised.store.outbox.claim("me", "ops", 10), Outcome.DEAD)
    assert len(raised.all(types=[EventType.DEAD])) == 4
    assert len(raised.all(types=[EventType.DEAD], org="there")) == 2


def test_retry(raised):
    """A dead one is as new; any other can't be retried, and nobody else's is found."""
    every = ready(raised, 2, wanted=no_deaths)
    dead, alive = raised.store.outbox.claim("me", "ops", 10)
    finish(raised, "me", [dead], Outcome.DEAD, error="gone")
    raised.now += SECOND
    for org, id_, handler, error in (
        ("here", every[1], "ops", ConflictError),
        ("there", every[0], "ops", NotFoundError),
        ("here", every[0], "log", NotFoundError),
        ("here", raised.all()[2].id, "ops", NotFoundError),
    ):
        with pytest.raises(error):
            raised.store.outbox.retry(org, id_, handler)
    raised.store.outbox.retry("here", every[0], "ops")
    (again,) = raised.store.outbox.claim("me", "ops", 10)
    assert (again.event.id, again.attempts, again.first_at_us) == (every[0], 0, raised.now)
    finish(raised, "me", [alive])


def test_retry_all_dead(raised, monkeypatch):
    """Of a handler, or of all; in short transactions."""
    monkeypatch.setattr(outbox_module, "_RETRIED_AT_ONCE", 2)
    raised.store.outbox.register(["ops", "log"])
    metric = raised.metric("m")
    raised.raise_(*[transition(metric.series_first) for _ in range(5)])
    for handler in ("ops", "log"):
        fan_out(raised, handler, no_deaths)
        finish(raised, "me", raised.store.outbox.claim("me", handler, 10), Outcome.DEAD)
    counts = {c.handler: (c.open, c.dead) for c in raised.store.outbox.counts()}
    assert counts == {"ops": (0, 5), "log": (0, 5)}
    assert raised.store.outbox.retry_dead("ops") == 5
    assert raised.store.outbox.retry_dead() == 5
    assert len(raised.store.outbox.claim("me", "ops", 10)) == 5
    assert raised.store.outbox.retry_dead() == 0


def test_counts(raised):
    """Open, dead, and event rows not looked at."""
    ready(raised, 3)
    assert [(c.handler, c.open, c.dead, c.behind) for c in raised.store.outbox.counts()] == [("ops", 3, 0, 0)]
    raised.raise_(Document(EventType.SILENT, 1, {}))
    finish(raised, "me", raised.store.outbox.claim("me", "ops", 1), Outcome.DEAD)
    assert [(c.open, c.dead, c.behind) for c in raised.store.outbox.counts()] == [(2, 1, 2)]


def test_a_damaged_event_is_dead(raised):
    """It can't be delivered; what waits behind it can."""
    raised.store.outbox.register(["ops"])
    metric = raised.metric("m")
    rows = [raised.raise_(transition(metric.series_first)) for _ in range(2)]
    fan_out(raised, ordered=True)
    raised.store.close()
    with closing(sqlite3.connect(raised.path)) as conn:
        conn.execute("UPDATE event_row SET checksum = 0 WHERE id = ?", (rows[0],))
        conn.commit()
    raised.store = raised.opened()
    assert raised.store.outbox.claim("me", "ops", 10) == []
    (claimed,) = raised.store.outbox.claim("me", "ops", 10)
    assert claimed.place.row == rows[1]
    assert raised.rows("SELECT state, error FROM delivery WHERE event_row = ?", rows[0]) == [
        (4, "The stored event is damaged.")
    ]


# Many at once


def drain(path, owner, handler="ops"):
    """Claim and finish until nothing is due; answers the ids, in the order of claiming."""
    raised = Raised(path)
    found = []
    try:
        while claimed := raised.store.outbox.claim(owner, handler, 7):
            found += ids(claimed)
            finish(raised, owner, claimed)
    finally:
        raised.close()
    return found


def test_threads_share_the_work(raised):
    """Three stores in three threads: each delivery is claimed once."""
    every = ready(raised, 300)
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: drain(raised.path, f"w{n}")})) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain.from_iterable(found.values())) == every


def test_processes_share_the_work(raised):
    """Two processes: each delivery is claimed once, none is left."""
    every = ready(raised, 300)
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        found = pool.starmap(drain, [(raised.path, "one"), (raised.path, "two")])
    assert sorted(itertools.chain.from_iterable(found)) == every
    assert raised.store.outbox.counts()[0].open == 0


def claim_and_die(path):
    raised = Raised(path)
    assert raised.store.outbox.claim("dead", "ops", 100)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_had_claimed_comes_back(raised):
    """Once its lease ended: all of it, and the attempt counts."""
    every = ready(raised, 5)
    process = multiprocessing.get_context("spawn").Process(target=claim_and_die, args=(raised.path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert raised.store.outbox.claim("me", "ops", 100) == []
    raised.now += LEASE_US
    claimed = raised.store.outbox.claim("me", "ops", 100)
    assert ids(claimed) == every
    assert {delivery.attempts for delivery in claimed} == {1}


def test_the_queries_use_their_indexes(raised):
    """However many are pending, done or dead, finding what is due costs a look into an index."""
    for query, count, index in (
        (outbox_module._DUE, 3, "delivery_due"),
        (outbox_module._OLDEST_OF_SERIES, 2, "delivery_series"),
        (outbox_module._DEAD_ONES, 3, "delivery_dead"),
    ):
        plan = raised.rows(f"EXPLAIN QUERY PLAN {query}", *[0] * count)
        assert len(plan) == 1, plan
        assert index in plan[0][3]
        assert "TEMP B-TREE" not in str(plan)


# One a while of each series


def test_when_a_series_was_last_taken(raised):
    """By an ordered handler; what was done without asking it doesn't count."""
    ready(raised, 3, ordered=True)
    first = raised.store.outbox.claim("me", "ops", 10)
    assert raised.store.outbox.last_done("ops", first) == [None]
    finish(raised, "me", first, error="left out")
    second = raised.store.outbox.claim("me", "ops", 10)
    assert raised.store.outbox.last_done("ops", second) == [None]
    finish(raised, "me", second)
    taken_us = status(raised, second[0].event.id).done_at_us
    third = raised.store.outbox.claim("me", "ops", 10)
    assert raised.store.outbox.last_done("ops", [*third, *first]) == [taken_us, taken_us]
    assert status(raised, first[0].event.id).error == "left out"


def test_one_held_back_isnt_claimed_before_its_time(raised):
    """Nor are those behind it; and it was no try."""
    ready(raised, 2, ordered=True)
    (held,) = raised.store.outbox.claim("me", "ops", 10)
    finish(raised, "me", [held], Outcome.RELEASED, retry_at_us=raised.now + 5 * SECOND)
    assert raised.store.outbox.claim("me", "ops", 10) == []
    raised.now += 5 * SECOND
    (again,) = raised.store.outbox.claim("me", "ops", 10)
    assert (again.event.id, again.attempts) == (held.event.id, 0)


def test_the_newest_of_a_series_takes_the_place_of_older_ones(raised):
    """All but it are done, each with a note that names it; of another series nothing changes."""
    all_ids = ready(raised, 4, ordered=True)
    other = raised.metric("other")
    raised.raise_(transition(other.series_first), transition(other.series_first))
    fan_out(raised, ordered=True)
    (first,) = [d for d in raised.store.outbox.claim("me", "ops", 10) if d.event.id == all_ids[0]]
    assert raised.store.outbox.supersede("me", first)
    assert [status(raised, id_).state for id_ in all_ids] == [DeliveryState.DONE] * 3 + [
        DeliveryState.PENDING
    ]
    assert {status(raised, id_).error for id_ in all_ids[:3]} == {f"superseded by {all_ids[3]}"}
    (newest,) = raised.store.outbox.claim("me", "ops", 10)
    assert newest.event.id == all_ids[3]
    assert not raised.store.outbox.supersede("me", newest)
    assert raised.store.outbox.last_done("ops", [newest]) == [None]


def test_only_the_owner_supersedes(raised):
    """Who lost his lease is told that there is nothing to deliver, and changes nothing."""
    all_ids = ready(raised, 2, ordered=True)
    (mine,) = raised.store.outbox.claim("me", "ops", 10)
    raised.now += LEASE_US
    raised.store.outbox.claim("you", "ops", 10)
    assert raised.store.outbox.supersede("me", mine)
    assert [status(raised, id_).state for id_ in all_ids] == [DeliveryState.LEASED, DeliveryState.PENDING]
