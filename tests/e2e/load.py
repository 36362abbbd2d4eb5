"""Clients that write and remember: which readings a request had, and whether it was acknowledged.

Guaranteed: every reading has a value of its own, and a time of its own unless the server gives it; so what is read
back tells which request it is from. A request that wasn't answered with 200 may be there whole or not at all.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

METRICS = ("load-a", "load-b", "load-c")
BY_CLOCK = "load-clock"
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
ROWS_MAX = 40


def time_of(number):
    return (BEGIN + timedelta(microseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Sent:
    """One request: (metric, value) of its readings; the times of those that have one lie in the value."""

    readings: list[tuple[str, int]]
    acknowledged: bool = False
    status: int | None = None
    times: dict[int, str] = field(default_factory=dict)


class Load:
    """``with`` runs the clients; between, :attr:`sent` has everything."""

    def __init__(self, server, clients=8, seed=0):
        self._server = server
        self._clients = clients
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._threads = []
        self.sent = []
        self.acknowledged = threading.Semaphore(0)

    def prepare(self):
        with self._client() as client:
            for code in (*METRICS, BY_CLOCK):
                assert client.post("/metric/", json={"code": code, "name": code}).status_code == 200

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

    def _client(self):
        return httpx.Client(
            base_url=self._server.url,
            headers={"x-auth-token": "123456"},
            trust_env=False,
            verify=False,
            timeout=20,
        )

    def _run(self, seed):
        choice = random.Random(seed)
        with self._client() as client:
            while not self._stop.is_set():
                sent, place, body, params = self._request(choice)
                self.sent.append(sent)
                try:
                    answer = client.post(place, json=body, params=params)
                except httpx.TransportError:
                    self._stop.wait(0.01)
                    continue
                self._answered(sent, place, answer)

    def _answered(self, sent, place, answer):
        sent.status = answer.status_code
        if answer.status_code != 200:
            return
        body = answer.json()
        if place == "/readings":
            assert body["accepted"] == len(sent.readings)
        else:
            sent.times[sent.readings[0][1]] = body["reading_at"]
        sent.acknowledged = True
        self.acknowledged.release()

    def _take(self, count):
        with self._guard:
            return [next(self._numbers) for _ in range(count)]

    def _request(self, choice):
        kind = choice.random()
        if kind < 0.2:
            (number,) = self._take(1)
            return Sent([(BY_CLOCK, number)]), f"/metric/{BY_CLOCK}", {"reading": number}, None
        if kind < 0.5:
            (number,) = self._take(1)
            code = choice.choice(METRICS)
            body = {"reading": number, "reading_at": time_of(number)}
            return Sent([(code, number)]), f"/metric/{code}", body, None
        numbers = self._take(choice.randint(2, ROWS_MAX))
        if kind < 0.75:
            rows = [(choice.choice(METRICS), number) for number in numbers]
            body = [
                {"metric": code, "reading": n, "reading_at": time_of(n), "labels": {"w": str(n % 7)}}
                for code, n in rows
            ]
            return Sent(rows), "/readings", body, None
        code = choice.choice(METRICS)
        body = {"metric": code, "reading": numbers, "reading_at": [time_of(n) for n in numbers]}
        return Sent([(code, n) for n in numbers]), "/readings", body, None

    def check(self):
        """Each acknowledged reading is there once with its value, each request whole or not at all."""
        found = Counter()
        with self._client() as client:
            for code in (*METRICS, BY_CLOCK):
                self._read(client, code, found)
        twice = [reading for reading, count in found.items() if count > 1]
        assert not twice, f"there more than once: {twice[:10]}"
        known = set()
        for sent in self.sent:
            assert sent.status in {200, 503, None}, sent
            there = sum(reading in found for reading in sent.readings)
            assert there in {0, len(sent.readings)}, f"half there, {there}: {sent}"
            assert there or not sent.acknowledged, f"acknowledged and lost: {sent}"
            known.update(sent.readings)
        assert found.keys() <= known
        return sum(sent.acknowledged for sent in self.sent)

    def _read(self, client, code, found):
        answer = client.get(f"/metric/{code}/readings")
        assert answer.status_code == 200, answer.text
        assert "meterite-warning" not in answer.headers
        given = {n: at for sent in self.sent for n, at in sent.times.items()}
        last = ""
        for row in answer.json():
            number = row["reading"]
            at = row["reading_at"]
            assert datetime.fromisoformat(at) >= BEGIN
            assert last <= at
            last = at
            if code != BY_CLOCK:
                assert datetime.fromisoformat(at) == BEGIN + timedelta(microseconds=number)
            if number in given:
                assert datetime.fromisoformat(at) == datetime.fromisoformat(given[number])
            found[code, number] += 1
