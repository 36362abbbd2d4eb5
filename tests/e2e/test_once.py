"""``Idempotency-Key``: the first receipt comes back from any worker, and after a crash."""

from __future__ import annotations

import itertools
import json
import random
from string import ascii_letters, digits

from e2e.test_workers import WORKERS, one_each

ROW = {"metric": "once", "reading": 2, "reading_at": "2026-01-31T12:00:00Z"}
CASES = list(itertools.product((0, 1100), ({}, {"receipt": "full"})))


def push(client, rejected, full):
    noise = random.Random(1)
    acts = [ROW | {"reading": "".join(noise.choices(ascii_letters + digits, k=60))} for _ in range(rejected)]
    headers = {"Idempotency-Key": f"{rejected}"}
    return client.post("/readings", json=[ROW, *acts], params={"partial": "accept"} | full, headers=headers)


def test_the_first_receipt_anywhere(start):
    """The same bytes from each worker and after kill -9, of more rejected than are kept, too; each counts once."""
    server = start(WORKERS)
    clients = one_each(server)
    metric = {"code": "once", "name": "once", "on_conflict": "sum", "max_reading": 1, "notify": "every"}
    assert clients[0].post("/metric/", json=metric).status_code == 200
    first = [push(clients[0], *case).content for case in CASES]
    for (rejected, full), content in zip(CASES, first, strict=True):
        told = json.loads(content)
        assert told["accepted"] == 1
        assert len(told["rejected"]) + told.get("rejected_more", 0) == rejected
        assert len(told.get("events", [])) == len(full)
    for client in clients:
        assert [push(client, *case).content for case in CASES] == first
    server.restart()
    client = server.client()
    assert [push(client, *case).content for case in CASES] == first
    assert [row["reading"] for row in client.get("/metric/once/readings").json()] == [2 * len(CASES)]
