"""Several workers on one file: what they answer is what one would have answered."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from e2e.server import ONE, ROOT, SERVE, Server
from meterite.parent import LOOK_S

WORKERS = 3
AT = "2026-01-31T12:00:00Z"
CONNECTIONS_MAX = 200
ORPHANS_SECONDS = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Three workers, all up."""
    one = Server(tmp_path_factory.mktemp("server"), WORKERS)
    try:
        yield one.start()
        assert "Traceback" not in one.text()
    finally:
        one.close()


def one_each(server):
    """A keep-alive connection to each of the workers, which the kernel gives out as it likes."""
    found = {}
    for _ in range(CONNECTIONS_MAX):
        client = server.client(ONE)
        with client.stream("GET", "/health") as answer:
            answer.read()
            stream = answer.extensions["network_stream"]
            worker = server.worker_of(stream.get_extra_info("client_addr")[1])
        if found.setdefault(worker, client) is not client:
            client.close()
        if len(found) == WORKERS:
            return list(found.values())
        if len(found) == 1:
            time.sleep(0.001)
    raise AssertionError(f"{CONNECTIONS_MAX} connections reached only {len(found)} workers")


@pytest.fixture(scope="module")
def each(server):
    return one_each(server)


def at_once(clients, count, work):
    """``work(client, n)`` for n below count, from as many threads, over all workers."""
    barrier = threading.Barrier(count)
    turns = list(itertools.islice(itertools.cycle(clients), count))

    def run(n):
        barrier.wait()
        return work(turns[n], n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def make(client, code, **fields):
    assert client.post("/metric/", json={"code": code, "name": code, **fields}).status_code == 200


def test_upserts_to_one_key(each):
    """100 at once: one of them is kept, that of the latest commit, and a receipt tells what it replaced."""
    make(each[0], "upsert")

    def upsert(client, n):
        body = [{"metric": "upsert", "reading": n, "reading_at": AT}]
        return client.post("/readings", json=body, params={"receipt": "full"}).json()

    receipts = at_once(each, 100, upsert)
    assert all(receipt["accepted"] == 1 for receipt in receipts)
    (kept,) = each[0].get("/metric/upsert/readings").json()
    last = max(receipt["committed_at"] for receipt in receipts)
    assert kept["recorded_at"] == last
    assert receipts[kept["reading"]]["committed_at"] == last
    # Of one commit each request is compared with the state before it: only those of the first found nothing.
    first = min(receipt["committed_at"] for receipt in receipts)
    for receipt in receipts:
        assert receipt["replaced"] == (receipt["committed_at"] != first)
        assert receipt["unchanged"] == 0
    for client in each:
        assert client.get("/metric/upsert").json()["current_reading"] == kept["reading"]


@pytest.mark.parametrize(("policy", "kept"), [("sum", 4950), ("min", 0), ("max", 99)])
def test_policies(each, policy, kept):
    """100 at once under a policy come to what any order comes to: nothing is lost, nothing counts twice."""
    make(each[0], policy, on_conflict=policy)

    def push(client, n):
        return client.post(f"/metric/{policy}", json={"reading": n, "reading_at": AT}).status_code

    assert set(at_once(each, 100, push)) == {200}
    for client in each:
        metric = client.get(f"/metric/{policy}").json()
        assert metric["current_reading"] == kept
        assert [meter["reading"] for meter in metric["meters"]] == [kept]


def test_first_policy(each):
    """The one that is kept was acknowledged with the earliest commit."""
    make(each[0], "first", on_conflict="first")

    def push(client, n):
        return client.post("/metric/first", json={"reading": n, "reading_at": AT}).json()["recorded_at"]

    recorded = at_once(each, 60, push)
    (kept,) = each[1].get("/metric/first/readings").json()
    assert recorded[kept["reading"]] == min(recorded) == kept["recorded_at"]


def test_server_times_are_never_the_same(each):
    """Readings without a time, of one series, through all workers at once."""
    make(each[0], "clock")

    def push(client, n):
        return client.post("/metric/clock", json={"reading": n}).json()["reading_at"]

    assert len(set(at_once(each, 60, push))) == 60
    assert len(each[0].get("/metric/clock/readings").json()) == 60


def test_a_write_is_seen_by_the_next_read_anywhere(each):
    """Current, last, range, summary and list, by whichever worker, once another has acknowledged."""
    make(each[0], "seen")
    for n in range(1, 61):
        writer, reader = each[n % WORKERS], each[(n // WORKERS + n + 1) % WORKERS]
        at = f"2026-01-31T00:{n // 60:02}:{n % 60:02}Z"
        if n % 2:
            assert writer.post("/metric/seen", json={"reading": n, "reading_at": at}).status_code == 200
        else:
            body = {"metric": "seen", "reading": [n], "reading_at": [at], "labels": {"n": str(n)}}
            assert writer.post("/readings", json=body).json()["accepted"] == 1
        metric = reader.get("/metric/seen", params={"limit": 2}).json()
        assert metric["current_reading"] == n
        assert metric["last_reading"] == (n - 1 or None)
        assert metric["meters"][0]["reading"] == n
        newest = reader.get("/metric/seen/readings", params={"order": "desc", "limit": 1}).json()
        assert newest[0]["reading"] == n
        summary = reader.get("/metric/seen/summary", params={"fn": "max,count"}).json()
        assert summary["rows"][0]["max"] == n
        assert summary["rows"][0]["count"] == n


def test_a_delete_is_seen_by_the_next_read_anywhere(each):
    """And a reading written after it, by another worker, stays."""
    make(each[0], "erased")
    for n in range(15):
        writer, eraser, reader = (each[(n + k) % WORKERS] for k in range(3))
        writer.post("/metric/erased", json={"reading": n, "reading_at": AT})
        assert eraser.delete("/metric/erased/readings", params={"all": "true"}).status_code == 200
        assert reader.get("/metric/erased/readings").json() == []
        assert reader.get("/metric/erased").json()["current_reading"] is None
        reader.post("/metric/erased", json={"reading": n + 0.5, "reading_at": AT})
        assert writer.get("/metric/erased").json()["current_reading"] == n + 0.5


def test_the_catalogue_is_seen_anywhere(each):
    """A metric that one worker made, changed, stopped or deleted is so at any other, at the next request."""
    for n in range(12):
        code = f"moving-{n}"
        a, b, c = (each[(n + k) % WORKERS] for k in range(3))
        assert b.get(f"/metric/{code}").status_code == 404
        make(a, code)
        assert b.post(f"/metric/{code}", json={"reading": 1, "reading_at": AT}).status_code == 200
        body = {"code": code, "name": "n", "truncate_reading_to": "day"}
        assert c.put(f"/metric/{code}", json=body).status_code == 200
        pushed = b.post(f"/metric/{code}", json={"reading": 1, "reading_at": AT}).json()
        assert pushed["reading_at"].startswith("2026-01-31T00:00:00")
        a.post(f"/metric/{code}/deactivate")
        assert b.post(f"/metric/{code}", json={"reading": 1}).status_code == 409
        assert c.delete(f"/metric/{code}").status_code == 200
        assert b.post(f"/metric/{code}", json={"reading": 1}).status_code == 404
        make(a, code)
        assert b.get(f"/metric/{code}").json()["meters"] == []
        assert b.post(f"/metric/{code}", json={"reading": 2}).status_code == 200
        assert c.get(f"/metric/{code}").json()["current_reading"] == 2


def test_one_code_is_made_once(each):
    """20 at once: one 200, the others 409."""

    def create(client, _):
        return client.post("/metric/", json={"code": "once", "name": "n"}).status_code

    assert sorted(at_once(each, 20, create)) == [200] + [409] * 19


def test_series_are_made_once(server, each):
    """Many workers meet the same new labels at once; each has one series, and one reading at one time."""
    make(each[0], "labelled")
    body = [
        {"metric": "labelled", "reading": n, "reading_at": AT, "labels": {"host": str(n)}} for n in range(50)
    ]

    def send(client, _):
        return client.post("/readings", json=body).json()["accepted"]

    assert set(at_once(each, 12, send)) == {50}
    rows = each[0].get("/metric/labelled/readings").json()
    assert sorted(int(row["labels"]["host"]) for row in rows) == list(range(50))
    assert all(row["reading"] == int(row["labels"]["host"]) for row in rows)
    metric = each[0].get("/metric/labelled").json()["id"]
    with sqlite3.connect(server.database) as database:
        counted = database.execute(
            "SELECT count(*), count(DISTINCT labels) FROM series WHERE metric = ?", [metric]
        ).fetchone()
    database.close()
    assert counted == (50, 50)


def test_no_reading_is_taken_after_a_deactivation(each):
    """A push that was sent after the answer of ``deactivate`` is never a 200; what was taken is there."""
    for n in range(3):
        code = f"stopped-{n}"
        make(each[0], code)
        stopped = threading.Event()
        enough = threading.Semaphore(0)
        taken = []

        def push(client, code=code, stopped=stopped, enough=enough, taken=taken):
            for _ in range(2000):
                late = stopped.is_set()
                answer = client.post(f"/metric/{code}", json={"reading": 1})
                if answer.status_code == 200:
                    assert not late, "taken after the metric was stopped"
                    taken.append(answer.json()["reading_at"])
                    enough.release()
                else:
                    assert answer.status_code == 409
                    if late:
                        return

        with ThreadPoolExecutor(6) as pool:
            pushing = [pool.submit(push, client) for client in each * 2]
            for _ in range(20):
                enough.acquire(timeout=10)
            assert each[n].post(f"/metric/{code}/deactivate").status_code == 200
            stopped.set()
            for each_one in pushing:
                each_one.result()
        rows = each[(n + 1) % WORKERS].get(f"/metric/{code}/readings").json()
        assert sorted(row["reading_at"] for row in rows) == sorted(taken)


def gunicorn(server):
    return [
        *(sys.executable, "-m", "gunicorn", "app.main:app", "-c", str(ROOT / "gunicorn.conf.py")),
        *("--bind", f"127.0.0.1:{server.port}", "--workers", str(server.workers)),
    ]


def uvicorn(server):
    return [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(server.port)]


@pytest.mark.parametrize(("command", "workers"), [(gunicorn, 3), (uvicorn, 1)])
def test_other_servers(start, command, workers):
    """``gunicorn app.main:app`` and ``uvicorn app.main:app`` from the repository's root; both end in peace."""
    server = start(workers, command=command, cwd=ROOT)
    clients = one_each(server) if workers == WORKERS else [server.client(ONE)]
    make(clients[0], "M1")

    def push(client, n):
        return client.post("/metric/M1", json={"reading": n}).status_code

    assert set(at_once(clients, 30, push)) == {200}
    for client in clients:
        assert len(client.get("/metric/M1/readings").json()) == 30
        client.close()
    assert server.stop() in {0, -15}  # uvicorn by itself ends by the signal it was sent
    assert "Traceback" not in server.text()
    server.start()
    assert len(server.client(ONE).get("/metric/M1/readings").json()) == 30


def pushed_until_the_end(client, taken, enough):
    """Readings of M1, one after the other, each of them named once it is acknowledged."""
    for n in range(100_000):
        try:
            answer = client.post("/metric/M1", json={"reading": n})
        except httpx.TransportError:
            return
        if answer.status_code == 200:
            taken.append(answer.json()["reading_at"])
            enough.release()


def is_free(port):
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def within(seconds, holds):
    until = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


@pytest.mark.parametrize("command", [SERVE, gunicorn])
def test_workers_end_with_their_parent(start, command):
    """Killed with -9, it leaves none: they end as by SIGTERM, what they took is kept, and the port is free at once."""
    server = start(2, command=command, cwd=ROOT)
    make(server.client(ONE), "M1")
    taken, enough = [], threading.Semaphore(0)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(pushed_until_the_end, server.client(ONE), taken, enough)
        for _ in range(20):
            assert enough.acquire(timeout=10)
        server.process.kill()
        server.process.wait(10)
        assert within(ORPHANS_SECONDS, lambda: is_free(server.port))
    assert within(ORPHANS_SECONDS, lambda: server.text().count("Finished server process") == 2)
    assert server.text().count("parent.gone") == 2
    assert "Traceback" not in server.text()
    server.start()
    kept = server.client(ONE).get("/metric/M1/readings", params={"limit": 100_000})
    assert {row["reading_at"] for row in kept.json()} >= set(taken)


def test_one_alone_outlives_its_shell(start):
    """``meterite serve`` has no parent that minds it: the shell that started it may end."""

    def of_a_shell(server):
        serve = " ".join([f"'{sys.executable}'", "-m", "meterite", "serve", "--port", str(server.port)])
        return ["sh", "-c", f"{serve} & wait"]

    server = start(1, command=of_a_shell, cwd=ROOT)
    server.process.kill()
    server.process.wait(10)
    client = server.client(ONE)
    until = time.monotonic() + 2 * LOOK_S
    while time.monotonic() < until:
        assert client.get("/health").status_code == 200
    assert "parent.gone" not in server.text()
