"""One org's request brings very many series; others notice little of it."""

from __future__ import annotations

import threading
import time

import httpx

from e2e.server import ONE, TWO

SERIES = 150_000
FEWER = 60_000
METRICS = 4
SHARE_MAX = 1 / 3
"""Of the time that the request takes, the longest that another waits: a tenth; it was half without steps."""
PATIENCE_S = 60


class Flood:
    """A request with new series, sent by a thread of its own."""

    def __init__(self, server, count):
        self._body = "\n".join(f"flood_{n % METRICS},host=h{n} value=1 1700000000" for n in range(count))
        self._client = server.client(ONE)
        self.status = None
        self.took_s = 0.0
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self):
        begun = time.monotonic()
        try:
            answer = self._client.post("/write?precision=s", content=self._body, timeout=PATIENCE_S)
            self.status = answer.status_code
        except httpx.TransportError:
            self.status = 0
        self.took_s = time.monotonic() - begun

    @property
    def under_way(self):
        return self._thread.is_alive()

    def join(self):
        self._thread.join()


def stored(client):
    """The readings of all series of the flood."""
    found = [client.get(f"/metric/flood_{n}/summary", params={"fn": "count"}) for n in range(METRICS)]
    return sum(row["count"] for answer in found if answer.status_code == 200 for row in answer.json()["rows"])


def test_others_make_series_beside_many(start):
    """New series, new metrics and readings of another org are taken all the while, each in a little of the request's
    time, by the one worker there is; and all of the request is there in the end.
    """
    server = start()
    other = server.client(TWO)
    flood = Flood(server, SERIES)
    waited, number = [], 0
    while flood.under_way:
        for line in (f"calm,n={number} value=1", f"calm_{number} value=1", "calm,n=0 value=2"):
            begun = time.monotonic()
            assert other.post("/write?precision=s", content=line).status_code == 204
            waited.append(time.monotonic() - begun)
        number += 1
    flood.join()
    assert flood.status == 204
    assert max(waited) < SHARE_MAX * flood.took_s
    assert len(other.get("/metric/", params={"limit": number + 2}).json()) == number + 1
    assert stored(server.client(ONE)) == SERIES


def test_a_server_that_stops_in_the_midst_of_many(start):
    """Ends in good time, and the request is there whole or not at all."""
    server = start()
    client = server.client(ONE)
    flood = Flood(server, FEWER)
    while client.get("/metric/flood_0").status_code == 404:
        assert flood.under_way
    assert server.stop(PATIENCE_S) == 0
    flood.join()
    server.restart()
    assert stored(server.client(ONE)) == (FEWER if flood.status == 204 else 0)


def test_workers_that_make_series_of_one_org(start):
    """While one makes many, the org's requests to either wait or are told to come again, and other orgs' are taken."""
    server = start(2)
    flood = Flood(server, FEWER)
    answers = {ONE: set(), TWO: set()}
    number = 0
    while flood.under_way:
        for token, seen in answers.items():
            with httpx.Client(
                base_url=server.url, headers={"x-auth-token": token}, trust_env=False, timeout=PATIENCE_S
            ) as client:
                seen.add(client.post("/write", content=f"calm,n={number} value=1").status_code)
        number += 1
    flood.join()
    assert flood.status == 204
    assert answers[TWO] == {204}
    assert answers[ONE] <= {204, 503}
    assert stored(server.client(ONE)) == FEWER
