"""Clients that write and remember: which readings a request had, and whether it was acknowledged.

Guaranteed: every reading has a number of its own, and a time of its own unless the server gives it; its value is made
of the number and looks random, so that what is read back tells which request it is from, and doesn't compress to
nothing. A request that wasn't answered with 200 may be there whole or not at all.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from e2e.found import Found, Told, judge

METRICS = ("load-a", "load-b", "load-c")
BY_CLOCK = "load-clock"
ERASED = "load-erased"
LARGE = "load-large"
SELDOM = tuple(f"seldom-{n}" for n in range(48))  # what a lost state of theirs was isn't covered up at once
CODES = (*METRICS, BY_CLOCK, ERASED, LARGE, *SELDOM)
SUMMED = {
    METRICS[0],
    ERASED,
    LARGE,
    *SELDOM[::2],
}  # whose readings, where one is there twice, aren't what was sent
PLACES = {code: n for n, code in enumerate(CODES)}
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
BEGIN_US = int(BEGIN.timestamp()) * 1_000_000
ROWS_MAX = 40
LARGE_READINGS = 240_000  # four journal rows, and a run that is written in more than one transaction
NUMBERS_MAX = 1 << 24
SERIES_NUMBERS = 500  # a new series every so often
MASK = (1 << 52) - 1  # whole numbers that a float holds, twice of them too
FACTOR = 0x9_E377_9B97_F4A7
BACK = pow(FACTOR, -1, MASK + 1)


def time_of(number):
    return (BEGIN + timedelta(microseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def value_of(number):
    return int(values_of([number])[0])


def values_of(numbers):
    return _mix(_fold(_mix(np.asarray(numbers, np.uint64), FACTOR)), FACTOR)


def numbers_of(values):
    """The inverse of :func:`values_of`."""
    mixed = np.asarray(values, np.float64).astype(np.uint64)
    return _mix(_fold(_mix(mixed, BACK)), BACK).astype(np.int64)


def _mix(numbers, factor):
    return numbers * np.uint64(factor) & np.uint64(MASK)


def _fold(numbers):
    """Its own inverse: without it, the values of following numbers would be a constant apart."""
    return numbers ^ numbers >> np.uint64(26)


def micros(text):
    """µs since 1970 of times as the server writes them."""
    return np.array([t.rstrip("Z") for t in text], "datetime64[us]").astype(np.int64)


@dataclass(slots=True)
class Sent:
    """One request: numbers from ``first`` on; ``erase`` is 1 once somebody asked to erase them, 2 where it was done."""

    first: int
    count: int
    place: str
    body: bytes
    method: str = "POST"
    acknowledged: bool = False
    status: int | None = None
    recorded_us: int = 0
    passing: bool = False
    erase: int = 0
    makes: str = ""


class Load:
    """``with`` runs the clients; between, :attr:`sent` has everything."""

    def __init__(self, server, clients=8, seed=0):
        self._server = server
        self._clients = clients
        self._random = random.Random(seed)
        self._next = 1
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._threads = []
        self._wanted = deque()
        self._signs = deque()
        self._places = np.zeros(NUMBERS_MAX, np.uint8)
        self._given = {}
        self._faults = []
        self.sent = []
        self.acknowledged = threading.Semaphore(0)

    def prepare(self):
        connection = connect(self._server)
        for code in CODES:
            status, body = ask(connection, "POST", "/metric/", metric(code))
            assert status == 200, body
        connection.close()

    def __enter__(self):
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(self._random.random(),)) for _ in range(self._clients)
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

    def stop(self):
        """Nobody sends any more: where the server was, another program's may soon be."""
        self._stop.set()

    def at_next_acknowledgement(self, do):
        """``do`` runs in the thread of the client that is acknowledged next, before it does anything else."""
        self._signs.append(do)

    def send_large(self):
        """A client sends one large request next; returns when it is about to."""
        begun = threading.Event()
        sent = self._large()
        self._wanted.append((sent, begun))
        assert begun.wait(20)

    def _run(self, seed):
        choice = random.Random(seed)
        connection = connect(self._server)
        while not self._stop.is_set():
            sent, begun = self._wanted.popleft() if self._wanted else (self._request(choice), None)
            self.sent.append(sent)
            if begun is not None:
                begun.set()
            if self._send(connection, sent) and sent.passing:
                sent.erase = 1
                sent.erase += self._send(connection, _erase(sent))
        connection.close()

    def _send(self, connection, sent):
        """Whether it was acknowledged."""
        try:
            sent.status, body = ask(connection, sent.method, sent.place, sent.body)
        except (OSError, http.client.HTTPException):
            connection.close()
            self._stop.wait(0.01)
            return False
        if sent.status != 200:
            if sent.status != 503:
                self._faults.append(
                    f"{sent.status} {body[:500]} for {sent.method} {sent.place} {sent.body[:200]}"
                )
            return False
        sent.acknowledged = True
        if self._signs:
            with suppress(IndexError):
                self._signs.popleft()()
        self.acknowledged.release()
        self._learn(sent, json.loads(body))
        return True

    def _learn(self, sent, answer):
        if "accepted" in answer:
            if answer["accepted"] != sent.count:
                self._faults.append(f"{answer} for {sent}")
            sent.recorded_us = int(micros([answer["committed_at"]])[0])
        elif "reading_at" in answer:
            at_us, sent.recorded_us = micros([answer["reading_at"], answer["recorded_at"]]).tolist()
            self._given[sent.first] = at_us

    # Requests

    def _take(self, count, codes):
        with self._guard:
            first = self._next
            self._next += count
        self._places[first : first + count] = [PLACES[code] for code in codes]
        return first

    def _request(self, choice):
        make = choice.choices(
            (self._by_clock, self._single, self._seldom, self._rows, self._columns, self._erased, self._made),
            (18, 20, 20, 20, 20, 1, 1),
        )[0]
        return make(choice)

    def _by_clock(self, _choice):
        first = self._take(1, [BY_CLOCK])
        return Sent(first, 1, f"/metric/{BY_CLOCK}", encode({"reading": value_of(first)}))

    def _single(self, choice, codes=METRICS):
        code = choice.choice(codes)
        first = self._take(1, [code])
        body = {"reading": value_of(first), "reading_at": time_of(first)}
        return Sent(first, 1, f"/metric/{code}", encode(body))

    def _seldom(self, choice):
        return self._single(choice, SELDOM)

    def _rows(self, choice):
        codes = choice.choices(METRICS, k=choice.randint(2, ROWS_MAX))
        first = self._take(len(codes), codes)
        numbers = range(first, first + len(codes))
        body = [
            {
                "metric": code,
                "reading": value,
                "reading_at": time_of(n),
                "labels": {"w": str(n // SERIES_NUMBERS)},
            }
            for n, code, value in zip(numbers, codes, values_of(numbers).tolist(), strict=True)
        ]
        return Sent(first, len(codes), "/readings", encode(body))

    def _columns(self, choice, code=None):
        count = choice.randint(2, ROWS_MAX)
        code = code or choice.choice(METRICS)
        first = self._take(count, [code])
        numbers = range(first, first + count)
        body = {
            "metric": code,
            "reading": values_of(numbers).tolist(),
            "reading_at": [time_of(n) for n in numbers],
        }
        return Sent(first, count, "/readings", encode(body))

    def _erased(self, choice):
        """Its readings are erased as soon as they are acknowledged."""
        sent = self._columns(choice, ERASED)
        sent.passing = True
        return sent

    def _made(self, _choice):
        code = f"made-{self._take(1, [BY_CLOCK])}"
        return Sent(0, 0, "/metric/", metric(code), makes=code)

    def _large(self):
        first = self._take(LARGE_READINGS, [LARGE])
        numbers = np.arange(first, first + LARGE_READINGS)
        body = {
            "metric": LARGE,
            "reading": values_of(numbers).tolist(),
            "reading_at": (BEGIN_US + numbers).tolist(),
        }
        return Sent(first, LARGE_READINGS, "/readings?precision=us", encode(body))

    # What is there

    def told(self):
        """What is known at this moment."""
        sent = list(self.sent)
        assert not self._faults, self._faults[0]
        given = dict(self._given)
        return Told(
            codes=CODES,
            places=self._places[: self._next],
            own_time=PLACES[BY_CLOCK],
            begin_us=BEGIN_US,
            first=np.array([s.first for s in sent], np.int64),
            count=np.array([s.count for s in sent], np.int64),
            acknowledged=np.array([s.acknowledged for s in sent], bool),
            recorded_us=np.array([s.recorded_us for s in sent], np.int64),
            erase=np.array([s.erase for s in sent], np.int64),
            given=np.array(list(given.items()), np.int64).reshape(-1, 2),
            made={s.makes for s in sent if s.makes and s.acknowledged},
        )

    def check(self, server=None):
        """Each acknowledged reading is there once with its value, each request whole or not at all."""
        told = self.told()
        judge(self._found(server or self._server), told)
        return int(told.acknowledged.sum())

    def _found(self, server):
        connection = connect(server)
        found = Found()
        for known in get(connection, "/metric/?limit=10000"):
            found.metrics.add(known["code"])
            newest = [(known[f"{name}_reading_at"], known[f"{name}_reading"]) for name in ("current", "last")]
            newest = [(at, value) for at, value in newest if at is not None]
            times = micros([at for at, _ in newest]).tolist()
            numbers = numbers_of([value for _, value in newest]).tolist()
            found.states[known["code"]] = list(zip(times, numbers, strict=True))
        for place, code in enumerate(CODES):
            if code != LARGE:
                self._rows_of(connection, code, place, found)
        for sent in self.sent:
            if sent.count == LARGE_READINGS:
                _sum_up(connection, sent, found)
        connection.close()
        return found

    def _rows_of(self, connection, code, place, found):
        rows = get(connection, f"/metric/{code}/readings")
        at_us = micros([row["reading_at"] for row in rows])
        assert (np.diff(at_us) >= 0).all()
        found.add(
            place,
            numbers_of([row["reading"] for row in rows]),
            at_us,
            micros([row["recorded_at"] for row in rows]),
        )


def _sum_up(connection, sent, found):
    """A large request by its count, its first and its last reading: all of it as rows would take a second."""
    last = sent.first + sent.count - 1
    place = f"/metric/{LARGE}/summary?start={time_of(sent.first)}&end={time_of(last + 1)}&fn=count,first,last"
    rows = get(connection, place)["rows"]
    if rows:
        assert rows[0]["count"] == sent.count, f"half there, {rows[0]['count']} of {sent.first}"
        assert (rows[0]["first"], rows[0]["last"]) == (value_of(sent.first), value_of(last))
        numbers = np.arange(sent.first, last + 1)
        found.add(PLACES[LARGE], numbers, BEGIN_US + numbers, np.zeros(sent.count, np.int64))


def _erase(sent):
    end = sent.first + sent.count
    place = f"/metric/{ERASED}/readings?start={time_of(sent.first)}&end={time_of(end)}"
    return Sent(0, 0, place, b"", "DELETE")


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)


def encode(body):
    return json.dumps(body, separators=(",", ":")).encode()


def metric(code):
    policy = "sum" if code in SUMMED else "last"
    return encode(
        {"code": code, "name": code, "min_reading": -1e16, "max_reading": 1e16, "on_conflict": policy}
    )


def ask(connection, method, place, body=None):
    headers = {"x-auth-token": "123456", "content-type": "application/json"}
    connection.request(method, place, body or None, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def get(connection, place):
    headers = {"x-auth-token": "123456"}
    connection.request("GET", place, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    assert answer.getheader("meterite-warning") is None
    return json.loads(body)
