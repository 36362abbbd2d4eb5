"""Clients that speak HTTP/1.0, which has no chunks: the old curl -0, scripts on a bare socket."""

from __future__ import annotations

import socket

import pytest

from e2e.server import ONE

PATIENCE_S = 20


def asked(server, path, method="GET"):
    """A connection on which that was asked for."""
    conn = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
    conn.sendall(f"{method} {path} HTTP/1.0\r\nx-auth-token: {ONE}\r\n\r\n".encode())
    return conn


def whole(conn):
    """Head and body, up to where the server closes."""
    with conn:
        head, _, body = b"".join(iter(lambda: conn.recv(65_536), b"")).partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("type_", ["application/json", "application/x-ndjson", "text/csv"])
def test_many_readings(server, client, code, type_):
    """The same bytes as by HTTP/1.1, and the end of the connection is theirs."""
    rows = [{"metric": code, "reading": n, "reading_at": 1_767_225_600 + n} for n in range(30_000)]
    assert client.post("/readings", json=rows, params={"precision": "s"}).status_code == 200
    path = f"/metric/{code}/readings?limit=30000"
    modern = client.get(path, headers={"accept": type_})
    assert modern.headers["transfer-encoding"] == "chunked"
    conn = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
    conn.sendall(f"GET {path} HTTP/1.0\r\nx-auth-token: {ONE}\r\naccept: {type_}\r\n\r\n".encode())
    head, body = whole(conn)
    assert head.startswith(b"http/1.1 200")
    assert b"transfer-encoding" not in head
    assert b"\r\nconnection: close" in head
    assert body == modern.content


def test_a_stream_of_events(server, client, code):
    """Lines as they are, for as long as it is listened to."""
    with asked(server, "/events/stream") as conn:
        client.put(f"/metric/{code}", json={"code": code, "name": "new"})
        told = b""
        while b"meterite.metric.changed" not in told:
            told += conn.recv(65_536)
        head, _, body = told.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body.startswith(b"retry: ")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_of_a_known_length(server, method):
    """As before: with their length, and then the end."""
    head, body = whole(asked(server, "/health", method))
    assert b"\r\ncontent-length: " in head
    assert b"\r\nconnection: close" in head
    assert bool(body) == (method == "GET")
