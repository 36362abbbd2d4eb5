"""Clients that begin a body and don't end it, against a real server."""

from __future__ import annotations

import json
import select
import socket
import time

import pytest

from e2e.server import ONE, Server

WAIT_S = 0.4
ROOM_BYTES = 1 << 20
PATIENCE_S = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    env = {"BODY_WAIT": f"{int(WAIT_S * 1000)}ms", "QUEUE_BYTES_MAX": str(ROOM_BYTES)}
    one = Server(tmp_path_factory.mktemp("server"), env=env)
    try:
        one.start().client().post("/metric/", json={"code": "M", "name": "M"})
        yield one
        assert "Traceback" not in one.text()
    finally:
        one.close()


def begun(server, path, announced, sent):
    """A connection on which as much of a body as ``sent`` is."""
    conn = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\nx-auth-token: {ONE}\r\nContent-Length: {announced}\r\n\r\n"
    conn.sendall(head.encode() + sent)
    return conn


def answer(conn):
    """All that comes until the server closes."""
    with conn:
        return b"".join(iter(lambda: conn.recv(65_536), b""))


def answered(conn, wait_s):
    """Whether anything comes within so long."""
    return bool(select.select([conn], [], [], wait_s)[0])


@pytest.mark.parametrize(
    ("path", "status"),
    [("/readings", 408), ("/metric/M", 408), ("/write", 503), ("/v1/metrics", 503)],
)
@pytest.mark.parametrize("sent", [b"", b"[1"])
def test_a_body_that_stands_still(server, path, status, sent):
    """By whichever way it goes: an answer that says so, as the protocol does, and the end of the connection."""
    begun_s = time.monotonic()
    head, _, body = answer(begun(server, path, 100, sent)).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"\r\nconnection: close" in head.lower()
    assert b"too slowly" in body or path == "/write"
    if status == 408:
        assert json.loads(body)["type"] == "/problems/body-too-slow"
    assert time.monotonic() - begun_s >= WAIT_S


def test_a_body_that_trickles(server):
    """A byte now and then isn't enough."""
    conn = begun(server, "/readings", 10_000, b"[")
    sent = 0
    while not answered(conn, WAIT_S / 10) and sent < 10_000:
        conn.sendall(b" ")
        sent += 1
    assert 3 < sent < 100
    assert answer(conn).startswith(b"HTTP/1.1 408")


def test_its_room_is_free_again(server):
    """What fills it keeps others out for as long as it is waited for, and no longer."""
    client = server.client()
    row = [{"metric": "M", "reading": 1}]
    until = time.monotonic() + PATIENCE_S
    statuses = [200]
    while statuses[-1] != 503:  # one that came while the large one was read was in its way
        with begun(server, "/readings", ROOM_BYTES, b" " * (ROOM_BYTES - 1)) as conn:
            while statuses[-1] != 503 and not answered(conn, 0.01) and time.monotonic() < until:
                statuses.append(client.post("/readings", json=row).status_code)
            assert time.monotonic() < until
            if statuses[-1] == 503:
                assert answer(conn).startswith(b"HTTP/1.1 408")
    assert client.post("/readings", json=row).status_code == 200


def test_nobody_else_is_given_up(server):
    """A stream of events, and who sends slowly but surely, have all the time."""
    with server.client().stream("GET", "/events/stream") as stream:
        conn = begun(server, "/readings", 4096, b"[" + b" " * 2047)
        assert not answered(conn, WAIT_S / 2)
        conn.sendall(b" " * 1024)
        assert not answered(conn, WAIT_S / 2)
        conn.sendall(b'{"metric": "M", "reading": 7}]'.rjust(1024))
        assert conn.recv(65_536).startswith(b"HTTP/1.1 200")
        conn.close()
        server.client().put("/metric/M", json={"code": "M", "name": "N"})
        assert any("metric.changed" in line for line in stream.iter_lines())
