"""Clients that push readings across limits, and what must have become of them.

Guaranteed: each client has series of its own, and pushes to each in the order of ``reading_at``, one request at a time,
so that the readings which are there tell which events there must be: the walk in :func:`expected` sees one reading
after the other. A request that wasn't answered with 200 may be there whole or not at all.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass

from e2e.load import BEGIN_US, encode, micros, time_of
from meterite.storage.database import driver_of
from meterite.storage.event_reader import read_labels
from meterite.storage.store import SqliteStore

LOW, HIGH = 0.0, 10.0
SIDES = {-1: (-9.0, -0.01), 0: (0.0, 10.0), 1: (10.01, 19.0)}
KINDS = {-1: "meterite.reading.below_min", 0: "meterite.limits.cleared", 1: "meterite.reading.above_max"}
ORGS = {"org_01": "123456", "org_02": "567890"}
SERIES = 4
PAUSE_S = 0.01
RECONNECT = 0.1
"""Of the requests begin a connection, so that each worker is met by each series."""


@dataclass(frozen=True, slots=True)
class Way:
    """A metric that one client writes to."""

    org: str
    code: str
    every: bool

    @property
    def token(self):
        return ORGS[self.org]


@dataclass(slots=True)
class Sent:
    """One request: number, series (its label) and value of each reading."""

    way: Way
    readings: list[tuple[int, str, float]]
    acknowledged: bool = False


class Crossings:
    """``with`` runs the clients; between, :attr:`sent` has everything."""

    def __init__(self, server, clients=6, seed=0):
        self._server = server
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._threads = []
        self._signs = []
        self.ways = [
            Way("org_02" if n % 3 == 2 else "org_01", f"cross-{n}", every=n % 3 == 1) for n in range(clients)
        ]
        self.sent = []
        self.acknowledged = threading.Semaphore(0)

    def prepare(self):
        connection = self._connect()
        for way in self.ways:
            body = {"code": way.code, "name": way.code, "min_reading": LOW, "max_reading": HIGH}
            body["notify"] = "every" if way.every else "change"
            status, answer = ask(connection, way, "POST", "/metric/", encode(body))
            assert status == 200, answer
        connection.close()

    def _connect(self):
        return http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=20)

    def __enter__(self):
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(way, self._random.random())) for way in self.ways
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, count):
        """For so many more acknowledgements."""
        while self.acknowledged.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self.acknowledged.acquire(timeout=20)

    def at_next_acknowledgement(self, do):
        """``do`` runs in the thread of the client that is acknowledged next."""
        self._signs.append(do)

    def _run(self, way, seed):
        choice = random.Random(seed)
        with closing(self._connect()) as connection:
            while not self._stop.wait(choice.uniform(0, PAUSE_S)):
                if choice.random() < RECONNECT:
                    connection.close()
                self._send(connection, way, choice)

    def _send(self, connection, way, choice):
        place, sent, body = self._request(way, choice)
        self.sent.append(sent)
        try:
            status, answer = ask(connection, way, "POST", place, body)
        except (OSError, http.client.HTTPException):
            connection.close()
            return
        assert status in {200, 503}, f"{status} {answer[:500]} for {place} {body[:200]}"
        if status == 200:
            sent.acknowledged = True
            with suppress(IndexError):
                self._signs.pop()()
            self.acknowledged.release()

    def _request(self, way, choice):
        """One reading, or one of each of some series."""
        if choice.random() < 0.7:
            reading = (self._number(), "", self._value(choice))
            body = {"reading": reading[2], "reading_at": time_of(reading[0])}
            return f"/metric/{way.code}", Sent(way, [reading]), encode(body)
        series = choice.sample(range(SERIES), choice.randint(1, SERIES))
        readings = [(self._number(), str(name), self._value(choice)) for name in series]
        body = [
            {"metric": way.code, "reading": value, "reading_at": time_of(number), "labels": {"s": name}}
            for number, name, value in readings
        ]
        return "/readings", Sent(way, readings), encode(body)

    def _number(self):
        with self._guard:
            return next(self._numbers)

    def _value(self, choice):
        return round(choice.uniform(*SIDES[choice.choice((-1, 0, 0, 1))]), 2)

    def judge(self, source):
        """Readings as they were acknowledged, events as the readings; answers the events by id."""
        sent = list(self.sent)
        acknowledged = [one.acknowledged for one in sent]
        with source:
            return self._judge(source, list(zip(sent, acknowledged, strict=True)))

    def _judge(self, source, told):
        events = {}
        for way in self.ways:
            stored = source.stored(way)
            mine = [(sent, acknowledged) for sent, acknowledged in told if sent.way == way]
            for sent, acknowledged in mine:
                here = [stored.get(number) for number, _, _ in sent.readings]
                there = [(name, value) for _, name, value in sent.readings]
                assert here == there or not any(here), f"half there or changed: {sent}, {here}"
                assert any(here) or not acknowledged, f"lost: {sent}"
            assert stored.keys() <= {number for sent, _ in mine for number, _, _ in sent.readings}
            found = source.events(way)
            same(
                sorted(fact(event) for event in found.values()),
                sorted(expected(stored, every=way.every)),
                way,
            )
            events |= found
        return events


class Answers:
    """What a server says there is."""

    def __init__(self, server):
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def stored(self, way):
        """Number -> (series, value)."""
        rows = self._get(way, f"/metric/{way.code}/readings")
        numbers = (micros([row["reading_at"] for row in rows]) - BEGIN_US).tolist()
        assert len(set(numbers)) == len(rows)
        return {
            number: (row.get("labels", {}).get("s", ""), row["reading"])
            for number, row in zip(numbers, rows, strict=True)
        }

    def events(self, way):
        """Id -> event."""
        found, after, page = {}, "", {}
        while after != page.get("next"):
            after = page.get("next") or after
            page = self._get(way, f"/events?metric={way.code}&limit=1000" + (after and f"&after={after}"))
            new = {event["id"]: event for event in page["events"]}
            assert not new.keys() & found.keys()
            found |= new
        return found

    def _get(self, way, place):
        status, body = ask(self._connection, way, "GET", place)
        assert status == 200, body
        return json.loads(body)


class Left:
    """What lies in a file that nobody serves, read by the program's own store."""

    def __init__(self, database):
        self._store = SqliteStore(database)

    def __enter__(self):
        self._store.open()
        return self

    def __exit__(self, *_):
        self._store.close()

    def stored(self, way):
        store = self._store
        metric = store.catalog.metric(way.org, way.code)
        view = store.view(store.catalog.org_id(way.org))
        found = {}
        for columns in view.scan(store.span(metric, None, None, ())):
            with store.database.reading() as conn:
                labels = read_labels(driver_of(conn), set(columns.series.tolist()))
            numbers = (columns.at_us - BEGIN_US).tolist()
            for number, series, value in zip(
                numbers, columns.series.tolist(), columns.values.tolist(), strict=True
            ):
                assert number not in found
                found[number] = dict(labels.get(series, ())).get("s", ""), value
        view.close()
        return found

    def events(self, way):
        events = self._store.events.select(way.org, metric=way.code, limit=1_000_000).events
        return {event.id: event.to_dict() for event in events}


def ask(connection, way, method, place, body=None):
    headers = {"x-auth-token": way.token, "content-type": "application/json"}
    connection.request(method, place, body, headers)
    with connection.getresponse() as answer:
        return answer.status, answer.read()


def fact(event):
    """What an event says: the number of its first reading, its series, its type, how many readings it sums up."""
    data = event["data"]
    first = data["readings"]["first"]
    assert not data["late"]
    number = int(micros([first["reading_at"]])[0]) - BEGIN_US
    return number, data["labels"].get("s", ""), event["type"], first["reading"], data["readings"]["count"]


def expected(stored, *, every):
    """One reading after the other, by series: no two of one series were in one request, so each is told by itself."""
    sides = defaultdict(int)
    for number, (name, value) in sorted(stored.items()):
        side = (value > HIGH) - (value < LOW)
        if side != sides[name] or (every and side):
            yield number, name, KINDS[side], value, 1
        sides[name] = side


def same(told, there, about):
    """Equal, or what the difference is."""
    missing, more = [e for e in there if e not in told], [e for e in told if e not in there]
    assert not missing, f"{about}: readings without their events: {missing[:5]}"
    assert not more, f"{about}: events without their readings: {more[:5]}"
    assert told == there
