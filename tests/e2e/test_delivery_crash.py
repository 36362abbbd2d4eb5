"""kill -9 between recording, claiming, calling and marking: whoever was to be told of a crossing is told of it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing, contextmanager, suppress

import pytest

from e2e.crossings import Answers, Crossings, Left
from e2e.frozen import copy, frozen, gone, turn
from e2e.receiver import Receiver, environment, good
from meterite.model.event import EventPlace, event_id, parse_event_id
from meterite.storage.schema import DONE, LEASED

KILLS = 5
SOAK_KILLS = 250
KILLS_A_FILE = 10
ACKNOWLEDGED = 20  # before the first look after a start
LOOKS = ("turn", "random", "turn", "answered", "turn")
SOAK_LOOKS = ("turn", "random")
MOMENTS = ("answered", "turn", "acknowledged", "called", "random")
DRAIN_S = 90
ANY, ORDERED = "any", "ordered"
DELIVERIES = (
    "SELECT name, delivery.state, recorded_at, event_row, ordinal"
    " FROM delivery JOIN handler ON handler.id = handler JOIN event ON event.id = event_row"
)
OPEN = (
    "SELECT (SELECT count(*) FROM event, handler WHERE event.id > cursor_row),"
    f" (SELECT count(*) FROM delivery WHERE state <> {DONE})"
)


def moody(choice):
    """Mostly takes it; fails now and then, is slow, or cuts the connection."""

    def answer(call):
        chance = choice.random()
        if call.path == f"/{ORDERED}":
            chance = 1 - chance / 2
        if chance < 0.12:
            return 500
        if chance < 0.2:
            return None
        if chance < 0.35 or chance > 0.97:
            time.sleep(choice.uniform(0, 0.15))
        return 200

    return answer


class Killer:
    """Looks what a kill at some moment would leave, or kills; either is judged before the next start mends anything."""

    def __init__(self, server, crossings, receiver, choice):
        self._server = server
        self._crossings = crossings
        self._receiver = receiver
        self._choice = choice
        self.met = Counter()

    def look(self, moment):
        with self._at(moment, signal.SIGSTOP), frozen(self._server.process.pid):
            self._judge()

    def kill(self, moment):
        with self._at(moment, signal.SIGKILL):
            self._server.kill()
            gone(self._server.process.pid)
            self._judge()

    @contextmanager
    def _at(self, moment, number):
        """The signal is sent by who met the moment; "turn" is while somebody else has the writer's turn."""
        time.sleep(self._choice.uniform(0, 0.05))
        if moment == "turn":
            with turn(self._server):
                time.sleep(0.02)
                self._send(number)
                yield
            return
        met = threading.Event()

        def now():
            self._send(number)
            met.set()

        if moment == "random":
            now()
        elif moment == "acknowledged":
            self._crossings.at_next_acknowledgement(now)
        else:
            self._receiver.at_next(moment, now)
        assert met.wait(30)
        yield

    def _send(self, number):
        with suppress(ProcessLookupError):
            os.killpg(self._server.process.pid, number)

    def _judge(self):
        """On a copy. Each event up to a handler's cursor has its delivery, and what is marked was told."""
        calls = list(self._receiver.calls)
        told = {(call.path[1:], call.id) for call in calls if call.status == 200}
        called = {(call.path[1:], call.id) for call in calls}
        database = copy(self._server, self._server.path / "copy")
        events = self._crossings.judge(Left(database))
        with closing(sqlite3.connect(database)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            cursors = conn.execute("SELECT name, cursor_row, cursor_ordinal FROM handler").fetchall()
            rows = conn.execute(DELIVERIES).fetchall()
        states = {
            (name, event_id(recorded_at, EventPlace(*place))): state
            for name, state, recorded_at, *place in rows
        }
        for name, *cursor in cursors:
            looked_at = {id_ for id_ in events if place_of(id_) <= tuple(cursor)}
            assert looked_at == {id_ for handler, id_ in states if handler == name}
            self.met["recorded, not looked at"] += len(events) - len(looked_at)
        self._note(states, called, told)

    def _note(self, states, called, told):
        for key, state in states.items():
            if state == DONE:
                assert key in told, f"marked, but nobody was told: {key}"
            elif key in told:
                self.met["told, not marked"] += 1
            elif state == LEASED:
                self.met["claimed, called" if key in called else "claimed, not called"] += 1


def place_of(id_):
    _, place = parse_event_id(id_)
    return place.row, place.ordinal


def drained(server):
    """Whether every event was looked at by every handler, and every delivery is done."""
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True)) as conn:
        return conn.execute(OPEN).fetchone() == (0, 0)


def judge(receiver, events):
    """Every event was taken once at least, nothing else was sent, and each time the same bytes."""
    receiver.check()
    for name in (ANY, ORDERED):
        assert {call.id for call in receiver.taken(name)} == events.keys(), name
    bodies = defaultdict(set)
    for call in receiver.calls:
        bodies[call.id].add(call.body)
        assert call.event == events.get(call.id), f"not what GET /events says: {call}"
    assert all(len(sent) == 1 for sent in bodies.values())
    in_order([call for call in receiver.calls if call.path == f"/{ORDERED}"])


def in_order(calls):
    """An event is sent when those of its series before it were taken: ids sort as events happened."""
    newest = {}
    for call in calls:
        event = call.event
        series = event["org"], event["subject"]
        assert call.id >= newest.get(series, ""), f"sent after a newer one was taken: {call}"
        if call.status == 200:
            newest[series] = call.id


def rounds(start, workers, kills, seed, looks):
    choice = random.Random(seed)
    with Receiver(moody(random.Random(seed))) as receiver:
        settings = receiver.setting(ANY), receiver.setting(ORDERED, ordered=True)
        server = start(workers, env=environment(*settings))
        crossings = Crossings(server, seed=seed)
        crossings.prepare()
        killer = Killer(server, crossings, receiver, choice)
        for n in range(kills):
            with crossings:
                crossings.wait(ACKNOWLEDGED)
                for moment in looks:
                    killer.look(moment)
                killer.kill(MOMENTS[(n + seed) % len(MOMENTS)])
            server.start()
        receiver.answer = good
        until = time.monotonic() + DRAIN_S
        while not drained(server) and time.monotonic() < until:
            time.sleep(0.1)
        events = crossings.judge(Answers(server))
        judge(receiver, events)
        assert drained(server)
        assert "handler.paused" not in server.text()
        calls = len(receiver.calls)
    assert server.stop() == 0
    print(f"{len(events)} events, {calls} calls by 2 handlers, met {dict(killer.met)}")
    server.close()
    return killer.met


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_while_delivering(start, workers):
    """6 clients of 2 orgs push across limits, one reading or several; 2 handlers tell of it, one of them in order, a
    receiver that is slow, fails and cuts connections. The process group is killed 5 times: when a push was
    acknowledged, when the receiver is called, when it answered, while nothing can be committed, and at random;
    between the kills it is stopped at such moments, for a look at what a kill would leave.
    """
    met = rounds(start, workers, KILLS, workers, LOOKS)
    assert met["told, not marked"]


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_while_delivering_for_long(start, workers):
    """The same, 500 times in all, at other moments each time it runs; all that may lie between was met."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    met = Counter()
    for n in range(SOAK_KILLS // KILLS_A_FILE):
        met += rounds(start, workers, KILLS_A_FILE, seed + n, SOAK_LOOKS)
    assert set(met) == {
        "recorded, not looked at",
        "claimed, not called",
        "claimed, called",
        "told, not marked",
    }
