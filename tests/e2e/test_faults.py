"""What goes wrong outside: a clear answer, nothing half written, reads go on, and it mends by itself."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import sqlite3
import threading
import time

import pytest

from e2e.load import Load
from e2e.server import ONE

AT = "2026-01-31T12:00:00Z"
STOP_SECONDS = 10
KIB, MIB = 1024, 1024 * 1024


def make(client, code):
    assert client.post("/metric/", json={"code": code, "name": code}).status_code == 200
    return code


def is_unavailable(answer):
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"].startswith("/problems/")


def raw_request(server, code, body, sent=None, close=True):
    """The bytes of a push down to ``sent`` of its body, on a socket that is then closed at once."""
    head = f"POST /metric/{code} HTTP/1.1\r\nhost: x\r\nx-auth-token: {ONE}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(head.encode() + body[:sent])
    if close:
        connection.close()
    return connection


# --- The database is locked


def test_another_program_holds_the_database(server, client, code):
    """Writes of every kind get 503 with Retry-After within seconds (a second each, since they stand in line), reads go
    on; then it works again.
    """
    client.post(f"/metric/{code}", json={"reading": 1, "reading_at": AT})
    holder = sqlite3.connect(server.database, isolation_level=None)
    writers = [server.client(ONE) for _ in range(4)]
    answers = []

    def write(client, place, body):
        answers.append(client.post(place, json=body))

    try:
        holder.execute("BEGIN IMMEDIATE")
        writes = [
            (f"/metric/{code}", {"reading": 2, "reading_at": AT}),
            ("/readings", [{"metric": code, "reading": 3, "reading_at": AT, "labels": {"new": "label"}}]),
            ("/metric/", {"code": f"{code}-new", "name": "n"}),
            (f"/metric/{code}/deactivate", None),
        ]
        threads = [
            threading.Thread(target=write, args=(each, *what))
            for each, what in zip(writers, writes, strict=True)
        ]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        reads = 0
        while any(thread.is_alive() for thread in threads):
            metric = client.get(f"/metric/{code}")
            assert metric.status_code == 200
            assert metric.elapsed.total_seconds() < 1
            assert metric.json()["current_reading"] == 1
            assert len(client.get(f"/metric/{code}/readings").json()) == 1
            reads += 1
        assert reads > 10
        assert time.monotonic() - begun < 10
        for answer in answers:
            is_unavailable(answer)
    finally:
        holder.rollback()
        holder.close()
    assert len(client.get(f"/metric/{code}/readings").json()) == 1
    assert client.get(f"/metric/{code}-new").status_code == 404
    assert client.post(f"/metric/{code}", json={"reading": 2, "reading_at": AT}).status_code == 200
    assert client.get(f"/metric/{code}").json()["current_reading"] == 2


# --- The disk is full


def file_limit(size):
    """Files of the server can't grow beyond it; Python ignores SIGXFSZ, so writing fails as on a full disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit


def fill(client, code, begin):
    """Batches until one is refused; answers how many readings were acknowledged."""
    for batch in range(begin, begin + 2000):
        times = [batch * 1000 + n for n in range(1000)]
        values = [n * 0.1234567 + batch for n in range(1000)]
        body = {"metric": code, "reading_at": times, "reading": values}
        answer = client.post("/readings", json=body, params={"precision": "s"})
        if answer.status_code != 200:
            is_unavailable(answer)
            return batch
        assert answer.json()["accepted"] == 1000
    raise AssertionError("the disk never became full")


def is_whole(client, code, batches):
    rows = client.get(f"/metric/{code}/readings").json()
    assert len(rows) == batches * 1000
    assert rows[-1]["reading"] == 999 * 0.1234567 + batches - 1
    assert client.get(f"/metric/{code}").json()["current_reading"] == rows[-1]["reading"]


def test_disk_full_and_room_again(start):
    """503, nothing half written, reads go on; with room again the same process goes on by itself."""
    server = start(prepare=file_limit(2 * MIB))
    client = server.client(ONE)
    make(client, "M1")
    batches = fill(client, "M1", 0)
    assert batches
    for _ in range(3):
        is_whole(client, "M1", batches)
        for _ in range(3):
            is_unavailable(client.post("/readings", json={"metric": "M1", "reading": list(range(5000))}))
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (4 * MIB, resource.RLIM_INFINITY))
    more = fill(client, "M1", batches)
    assert more > batches
    is_whole(client, "M1", more)
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, no_limit)
    assert client.post("/metric/M1", json={"reading": 5}).status_code == 200
    assert client.get("/metric/M1").json()["current_reading"] == 5
    assert "Traceback" not in server.text()


@pytest.mark.parametrize("killed", [True, False])
def test_disk_full_and_restart(start, killed):
    """Killed or stopped while the disk is full, it starts again where there is room, with all it acknowledged."""
    server = start(prepare=file_limit(1 * MIB))
    client = server.client(ONE)
    make(client, "M1")
    batches = fill(client, "M1", 0)
    if killed:
        server.kill()
    else:
        assert server.stop() == 0
    server.start()
    is_whole(server.client(ONE), "M1", batches)
    assert server.client(ONE).post("/metric/M1", json={"reading": 5}).status_code == 200
    assert "Traceback" not in server.text()


def test_disk_full_at_the_start(start):
    """A full disk is no reason not to read what is there."""
    server = start()
    client = server.client(ONE)
    make(client, "M1")
    client.post("/metric/M1", json={"reading": 1})
    server.kill()
    server.start(prepare=file_limit(64 * KIB))
    client = server.client(ONE)
    assert client.get("/metric/M1").json()["current_reading"] == 1
    resource.prlimit(
        server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    assert client.post("/metric/M1", json={"reading": 2}).status_code == 200


# --- Clients that leave


def test_a_client_that_goes_away(server, client, code):
    """In the middle of its body: nothing. After it: all or nothing; the same for a batch. The service goes on."""
    for n in range(20):
        body = json.dumps({"reading": n, "reading_at": f"2026-01-31T00:00:{n:02}Z"}).encode()
        raw_request(server, code, body, sent=n)
    assert client.get(f"/metric/{code}/readings").json() == []
    rows = [{"metric": code, "reading": n, "reading_at": f"2026-02-01T00:00:{n % 60:02}Z"} for n in range(60)]
    batch = json.dumps(rows).encode()
    head = f"POST /readings HTTP/1.1\r\nhost: x\r\nx-auth-token: {ONE}\r\n"
    for end in ("content-length: 100000\r\n\r\n", "transfer-encoding: chunked\r\n\r\nffff\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall((head + end).encode() + batch)
    assert client.get(f"/metric/{code}/readings").json() == []
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            whole = f"{head}content-length: {len(batch)}\r\n\r\n".encode() + batch
            connection.sendall(whole)
        assert len(client.get(f"/metric/{code}/readings").json()) in {0, 60}
    raw_request(server, code, b'{"reading": 1, "reading_at": "2026-03-01T00:00:00Z"}')
    assert client.post(f"/metric/{code}", json={"reading": 9}).status_code == 200
    assert client.get(f"/metric/{code}").json()["current_reading"] == 9


def test_a_reader_that_goes_away(server, client, code):
    """In the middle of a long answer, and one that reads nothing: others don't notice, deletes and writes go on."""
    times = list(range(300_000))
    body = {"metric": code, "reading_at": times, "reading": times}
    assert client.post("/readings", json=body, params={"precision": "s"}).status_code == 200
    head = f"GET /metric/{code}/readings HTTP/1.1\r\nhost: x\r\nx-auth-token: {ONE}\r\n\r\n".encode()
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
    for connection in slow:
        connection.sendall(head)
        assert connection.recv(1000)
    assert client.post(f"/metric/{code}", json={"reading": -1}).status_code == 200
    assert client.delete(f"/metric/{code}/readings", params={"end": 1000}).status_code == 200
    assert len(client.get(f"/metric/{code}/readings").json()) == 299_001
    for connection in slow[1:]:
        connection.close()
    received = bytearray()
    while b"\r\n0\r\n\r\n" not in received[-10:]:
        received += slow[0].recv(1 << 20)
    slow[0].close()
    # What it was promised when it asked: the snapshot from before the delete.
    assert received.count(b'"reading":') >= 300_000 - 100
    assert client.get("/health").status_code == 200


# --- SIGTERM


@pytest.mark.parametrize("workers", [1, 3])
def test_sigterm_under_load(start, workers):
    """Exits 0 within 10 s, with everything that was acknowledged; idle connections don't hold it."""
    server = start(workers)
    load = Load(server)
    load.prepare()
    idle = server.client(ONE)
    assert idle.get("/health").status_code == 200
    with load:
        for _ in range(30):
            load.acknowledged.acquire()
        begun = time.monotonic()
        assert server.stop(STOP_SECONDS) == 0
        assert time.monotonic() - begun < STOP_SECONDS
    assert "Traceback" not in server.text()
    server.start()
    assert load.check() >= 30


def test_sigterm_with_a_body_that_never_comes(start):
    """It is given up in time, told so, and leaves nothing behind."""
    server = start()
    make(server.client(ONE), "M1")
    with raw_request(server, "M1", b'{"reading": 1}', sent=3, close=False) as half:
        assert server.client(ONE).get("/health").status_code == 200
        assert server.stop(STOP_SECONDS) == 0
        assert half.recv(100).startswith(b"HTTP/1.1 503")
    assert "Traceback" not in server.text()
    server.start()
    assert server.client(ONE).get("/metric/M1/readings").json() == []


# --- Bad input


def test_body_over_the_limit(server, client, code):
    """413 before it is read, announced or chunked; the unpacked size and the ratio of a gzip bomb, too."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = (
            f"POST /readings HTTP/1.1\r\nhost: x\r\nx-auth-token: {ONE}\r\ncontent-length: {33 * MIB}\r\n\r\n"
        )
        connection.sendall(head.encode())
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    chunks = (b" " * MIB for _ in range(40))
    with server.client(ONE) as another:
        assert another.post("/readings", content=chunks).status_code == 413
    packed = {"content-encoding": "gzip"}
    bomb = gzip.compress(b" " * (100 * MIB))
    for place in ("/readings", f"/metric/{code}", "/metric/"):
        assert client.post(place, content=bomb, headers=packed).status_code == 413
    small_bomb = gzip.compress(b"[" + b" " * (8 * MIB) + b"]")
    assert client.post("/readings", content=small_bomb, headers=packed).status_code == 413
    cut = gzip.compress(json.dumps([{"metric": code, "reading": 1}] * 50).encode())[:-9]
    assert client.post("/readings", content=cut, headers=packed).status_code == 400
    assert client.post("/readings", content=b"[]", headers={"content-encoding": "lz4"}).status_code == 415
    assert client.get(f"/metric/{code}/readings").json() == []


BAD_READINGS = [
    "NaN",
    "-Infinity",
    "1e999",
    "-1e999",
    "true",
    "null",
    '"NaN"',
    '"1e999"',
    '"0x10"',
    '""',
    '"١٢"',
    "1" + "0" * 400,
    "9" * 5000,
    "-" + "9" * 100_000,
    '{"a": 1}',
    '"\\ud800"',
]
BAD_TIMES = [
    '"1676-12-31T00:00:00Z"',
    '"2263-01-01T00:00:00Z"',
    '"0000-00-00"',
    '"2026-02-30T00:00:00Z"',
    '"2026-01-31T25:00:00Z"',
    '"2026-01-31T00:00:00+99:00"',
    '"9999-12-31T23:59:59Z"',
    '"+10000-01-01T00:00:00Z"',
    '"soon"',
    '""',
    "true",
    "{}",
    "1e30",
    "9" * 30,
    "-" + "9" * 5000,
    '"' + "1" * 100_000 + '"',
]
BAD_LABELS = [
    "[]",
    '"x"',
    '{"a": 1}',
    '{"a": null}',
    '{"": "x"}',
    '{"a": {"b": "c"}}',
    '{"a": "' + "x" * 100_000 + '"}',
    '{"a": "\\ud800"}',
    '{"a": "1", "a": "2"}',
    "{" + ",".join(f'"l{n}": "v"' for n in range(2000)) + "}",
]
BAD_JSON = [
    "",
    "{",
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
    '{"reading": 1, "reading": 2}',
    '{"reading": 1} x',
    "\ufeff{",
    "\x00",
    "'reading'",
    '{"reading": 01}',
    '{"reading": .5}',
    '{"reading": 1,}',
    '{"read',
]


def is_refused(answer):
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert answer.headers["content-type"].startswith(("application/problem+json", "application/json"))
    assert len(answer.content) < 4000


def put_in(code, field, text):
    """The field in a push, in a row and in columns."""
    reading = f'"reading": {text if field == "reading" else 1}'
    rest = "" if field == "reading" else f', "{field}": {text}'
    column = rest if field != "reading_at" else f', "reading_at": [{text}]'
    in_columns = f'"reading": [{text if field == "reading" else 1}]'
    yield f"/metric/{code}", f"{{{reading}{rest}}}"
    yield "/readings", f'[{{"metric": "{code}", {reading}{rest}}}]'
    yield "/readings", f'{{"metric": "{code}", {in_columns}{column}}}'


@pytest.mark.parametrize(
    ("field", "texts"), [("reading", BAD_READINGS), ("reading_at", BAD_TIMES), ("labels", BAD_LABELS)]
)
def test_bad_values(client, code, field, texts):
    """Each is a 4xx of bounded length, whichever way it comes, and nothing is written."""
    for text in texts:
        for place, body in put_in(code, field, text):
            answer = client.post(place, content=body.encode())
            assert 400 <= answer.status_code < 500, (place, body[:200], answer.text[:300])
            is_refused(answer)
    assert client.get(f"/metric/{code}/readings").json() == []


@pytest.mark.parametrize("text", BAD_JSON)
def test_bad_json(client, code, text):
    """Anywhere a body is taken."""
    for method, place in (
        ("POST", "/readings"),
        ("POST", f"/metric/{code}"),
        ("POST", "/metric/"),
        ("PUT", f"/metric/{code}"),
    ):
        is_refused(client.request(method, place, content=text.encode()))
    answer = client.post("/readings", content=text.encode(), headers={"content-type": "application/x-ndjson"})
    assert answer.status_code < 500
    assert client.get(f"/metric/{code}/readings").json() == []


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b'{"reading": "\xff"}', b'{"code": "\xed\xa0\x80", "name": "n"}', b"\x1f\x8b"]
)
def test_bytes_that_are_no_text(client, code, body):
    """Not UTF-8."""
    for place in ("/readings", f"/metric/{code}", "/metric/"):
        is_refused(client.post(place, content=body))


@pytest.mark.parametrize(
    ("place", "params"),
    [
        ("readings", {"start": "soon"}),
        ("readings", {"start": "1e999"}),
        ("readings", {"start": "NaN"}),
        ("readings", {"start": "9" * 5000}),
        ("readings", {"end": "-99999999999999999999d"}),
        ("readings", {"end": "2263-01-01T00:00:00Z"}),
        ("readings", {"limit": "0"}),
        ("readings", {"limit": "9" * 5000}),
        ("readings", {"limit": "-1"}),
        ("readings", {"order": "up"}),
        ("readings", {"labels": "x"}),
        ("readings", {"labels": "=x"}),
        ("readings", {"labels": ["a=1", "a=2"]}),
        ("summary", {"every": "0s"}),
        ("summary", {"every": "-1h"}),
        ("summary", {"every": "9" * 400 + "h"}),
        ("summary", {"every": "day", "tz": "../../etc/passwd"}),
        ("summary", {"every": "day", "tz": "\x00"}),
        ("summary", {"fn": ""}),
        ("summary", {"fn": ",".join(f"p{n / 10}" for n in range(900))}),
        ("", {"limit": "1001"}),
    ],
)
def test_bad_parameters(client, code, place, params):
    """422 with the place, and no more than 200 characters of what was sent."""
    client.post(f"/metric/{code}", json={"reading": 1})
    answer = client.get(f"/metric/{code}/{place}".rstrip("/"), params=params)
    assert answer.status_code == 422, answer.text
    is_refused(answer)


@pytest.mark.parametrize(
    "path", ["/metric/%FF", "/metric/%ED%A0%80", "/metric/%00", "/metric/%0A", "/nowhere"]
)
def test_bad_paths(client, path):
    """Codes that can't be, and places that aren't."""
    for method in ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        is_refused(client.request(method, path, json={"reading": 1}))


def test_tokens_stay_out_of_the_log(server):
    """Good or bad, in whatever place of the address."""
    nobody = server.client(None)
    nobody.get("/metric/", params={"x-auth-token": ONE})
    nobody.get("/metric/", params={"x-auth-token": "secret-wrong-token"})
    nobody.get("/nowhere", params={"x-auth-token": ONE})
    assert ONE not in server.text()
    assert "secret-wrong-token" not in server.text()
