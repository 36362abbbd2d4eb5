"""Streams of events against real servers: several workers, cut connections, restarts, stops, other orgs."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import threading
import time

import httpx
import pytest

from e2e.server import ONE, ROOT, TWO
from e2e.test_servers import gunicorn
from e2e.test_workers import one_each

LIMITED = {"min_reading": 0, "max_reading": 10, "notify": "every"}
STOP_SECONDS = 10


class Stream:
    """Reads a stream in a thread: (id, event) of each block with data, and the last id of all."""

    def __init__(self, client, *, last_id=None, until=None, **params):
        self.told = []
        self.last_id = last_id
        self.status = None
        self.began = threading.Event()
        self.ended = threading.Event()
        self._until = until
        self._answer = None
        headers = {} if last_id is None else {"last-event-id": last_id}
        arguments = (client, headers, params)
        self._thread = threading.Thread(target=self._read, args=arguments, daemon=True)
        self._thread.start()
        assert self.began.wait(20)

    def _read(self, client, headers, params):
        asked = client.stream("GET", "/events/stream", headers=headers, params=params)
        with contextlib.suppress(httpx.TransportError, httpx.StreamError, OSError), asked as answer:
            self._answer, self.status = answer, answer.status_code
            self._blocks(answer)
        self.began.set()
        self.ended.set()

    def _blocks(self, answer):
        id_ = None
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                id_ = value
            elif name == "data":
                self.told.append((id_, json.loads(value)))
            elif not line:
                self.last_id = id_ or self.last_id
                self.began.set()
                if self._until is not None and len(self.told) >= self._until:
                    return

    def cut(self):
        """As a connection that breaks."""
        sock = self._answer.extensions["network_stream"].get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        self.wait()

    def wait(self, seconds=20):
        assert self.ended.wait(seconds)
        self._thread.join()

    @property
    def ids(self):
        return [id_ for id_, _ in self.told]


def make(client, code, **fields):
    assert client.post("/metric/", json={"code": code, "name": code, **LIMITED, **fields}).status_code == 200


def cross(client, code, reading=11):
    assert client.post(f"/metric/{code}", json={"reading": reading}).status_code == 200


def all_ids(client, **params):
    found, after = [], None
    while True:
        page = client.get("/events", params=params | ({"after": after} if after else {})).json()
        found += [event["id"] for event in page["events"]]
        if page["next"] == after:
            return found
        after = page["next"]


@pytest.mark.parametrize("workers", [1, 3])
def test_everybody_is_told_everything_in_order(start, workers):
    """Whichever worker commits: who follows at any of them gets each event once, as the list has them."""
    server = start(workers)
    writers = one_each(server) if workers > 1 else [server.client()]
    make(writers[0], "M1")
    readers = [server.client() for _ in range(6)]
    streams = [Stream(reader, until=60, metric="M1") for reader in readers]
    assert [stream.status for stream in streams] == [200] * 6
    for n, writer in zip(range(60), itertools.cycle(writers), strict=False):
        cross(writer, "M1", 11 + n)
    for stream in streams:
        stream.wait()
        assert [event["data"]["readings"]["last"]["reading"] for _, event in stream.told] == [
            11 + n for n in range(60)
        ]
        assert stream.ids == all_ids(writers[0]) == [event["id"] for _, event in stream.told]


@pytest.mark.parametrize("workers", [1, 3])
def test_cut_connections_lose_nothing(start, workers):
    """Cut at any moment, in the middle of a burst and before the first event, and resumed by the last id, anywhere."""
    server = start(workers)
    writer = server.client()
    make(writer, "M1")
    told, last_id = [], None
    done, often_cut = threading.Event(), threading.Event()
    rng = random.Random(4)
    written = itertools.count()

    def write():
        for n in range(5000):
            if n >= 250 and often_cut.is_set():
                break
            cross(writer, "M1", 11 + next(written))
        done.set()

    thread = threading.Thread(target=write)
    for turn in itertools.count():
        if turn > 5:
            often_cut.set()
        stream = Stream(server.client(), last_id=last_id)
        if turn == 0:
            thread.start()
        elif turn > 1:
            stream.ended.wait(rng.random() * 0.1)
        finished = done.is_set()
        if finished:
            expected = all_ids(writer)
            until = time.monotonic() + 20
            while len(told) + len(stream.told) < len(expected) and time.monotonic() < until:
                stream.ended.wait(0.02)
        stream.cut()
        told += stream.ids
        last_id = stream.last_id
        if finished:
            break
    thread.join()
    assert told == expected
    assert len(expected) == next(written)
    assert turn > 5


def test_killed_and_started_again(start):
    """A client of the old process goes on at the new one; what was recorded in between is told."""
    server = start()
    make(server.client(), "M1")
    stream = Stream(server.client())
    for n in range(5):
        cross(server.client(), "M1", 11 + n)
    server.kill()
    stream.wait()
    server.start()
    cross(server.client(), "M1", 20)
    again = Stream(server.client(), last_id=stream.last_id, until=6 - len(stream.told))
    again.wait()
    assert stream.ids + again.ids == all_ids(server.client())


def test_another_org_is_told_nothing(start):
    """Neither from now on, nor behind a cursor that it has from elsewhere, nor of a metric by name."""
    server = start(2)
    ours, theirs = server.client(ONE), server.client(TWO)
    make(ours, "M1")
    make(theirs, "M1")
    cross(ours, "M1")
    (first,) = all_ids(ours)
    streams = [
        Stream(server.client(TWO), until=1),
        Stream(server.client(TWO), until=1, last_id="00000000-0000-7000-8000-000000000000"),
        Stream(server.client(TWO), until=1, after=first, metric="M1"),
    ]
    for n in range(20):
        cross(ours, "M1", 12 + n)
    cross(theirs, "M1", 99)
    for stream in streams:
        stream.wait()
        assert [event["org"] for _, event in stream.told] == ["org_02"]
        assert stream.ids == all_ids(theirs)


@pytest.mark.parametrize(("workers", "options"), [(1, {}), (3, {}), (2, {"command": gunicorn, "cwd": ROOT})])
def test_a_stop_ends_open_streams(start, workers, options):
    """At once and in order: SIGTERM isn't delayed by those who listen; each stream has its end."""
    server = start(workers, **options)
    streams = [Stream(server.client()) for _ in range(20)]
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < STOP_SECONDS / 2
    for stream in streams:
        stream.wait()
    assert "Traceback" not in server.text()
    assert "exceeded" not in server.text()


def test_a_client_that_never_reads_harms_nobody(start):
    """Others are answered, a second stream is told, and a stop takes no longer than it may."""
    server = start()
    client = server.client()
    make(client, "M1")
    labels = {"text": "x" * 1000}
    rows = [{"metric": "M1", "reading": 11, "labels": labels | {"n": str(n)}} for n in range(5000)]
    assert client.post("/readings", json=rows).json()["accepted"] == 5000
    with socket.create_connection(("127.0.0.1", server.port)) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        start_id = "00000000-0000-7000-8000-000000000000"
        asked = f"GET /events/stream?after={start_id} HTTP/1.1\r\nhost: h\r\nx-auth-token: {ONE}\r\n\r\n"
        stuck.sendall(asked.encode())
        assert stuck.recv(100).startswith(b"HTTP/1.1 200")
        stream = Stream(server.client(), last_id=start_id, until=5001)
        cross(client, "M1")
        stream.wait()
        assert stream.ids == all_ids(client, limit=1000)
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < STOP_SECONDS
    assert "Traceback" not in server.text()
