"""Graphite's and StatsD's listeners of a real server, over sockets."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import sqlite3
import struct
import time

import pytest

from clients.found import codes, expect, readings, until
from clients.test_collectd import Collectd
from e2e.server import ONE, TWO, Server, free_port

WRITE_GRAPHITE = """
Hostname "h1"
FQDNLookup false
Interval 3600
BaseDir "{path}"
PIDFile "{path}/pid"
TypesDB "/usr/share/collectd/types.db"
LoadPlugin unixsock
LoadPlugin write_graphite
<Plugin unixsock>
  SocketFile "{path}/socket"
</Plugin>
<Plugin write_graphite>
  <Node "plain">
    Host "127.0.0.1"
    Port "{url}"
    Protocol "tcp"
  </Node>
  <Node "tagged">
    Host "127.0.0.1"
    Port "{url}"
    Protocol "tcp"
    Prefix "tagged."
    UseTags true
  </Node>
</Plugin>
"""
AT = 1_769_860_800
AT_US = AT * 10**6
LOCAL = ["127.0.0.0/8", "::1/128"]
START_SECONDS = 30


def listener(kind, **options):
    return {"kind": kind, "port": free_port(), "org": "org_01", "allow": LOCAL, "flush": "200ms"} | options


def environment(*listeners):
    return {"LISTENERS": json.dumps(listeners)}


SHARED = {
    "graphite": listener("graphite"),
    "graphite-pickle": listener("graphite-pickle"),
    "statsd": listener("statsd", flush="1s"),
    "statsd-tcp": listener("statsd-tcp", flush="1s"),
    "foreign": listener("graphite", allow=["10.0.0.0/8"]),
    "foreign-statsd": listener("statsd", allow=["10.0.0.0/8"]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One with a listener of each kind, for those tests that don't end it."""
    one = Server(tmp_path_factory.mktemp("server"), env=environment(*SHARED.values()))
    try:
        yield one.start()
        assert "Traceback" not in one.text()
    finally:
        one.close()


@pytest.fixture
def listening(start):
    """A server with these listeners, and a client of org_01."""

    def starting(*listeners, **options):
        server = start(env=environment(*listeners), **options)
        return server, server.client(ONE)

    return starting


def connect(listener):
    """A connection, when there is a listener."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", listener["port"]), 30)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)


def send(listener, *parts):
    with connect(listener) as connection:
        for part in parts:
            connection.sendall(part)


def is_cut(connection):
    """Whether the other side closed it, in whatever way."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def frame(points, protocol=2):
    body = pickle.dumps(points, protocol)
    return struct.pack("!L", len(body)) + body


def datagrams(listener, *parts):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for part in parts:
            sender.sendto(part, ("127.0.0.1", listener["port"]))


def test_graphite(server, client):
    """Lines with and without tags, in pieces, a bad one among them; each reading once, in the listener's org alone, of
    metrics that are made for them.
    """
    many = b"".join(b"cpu.load %d %d\n" % (n, AT + n) for n in range(5000))
    last = f"disk;host=a;mount=/ 1.5 {AT}\n".encode()
    send(SHARED["graphite"], many[:33], many[33:], b"nonsense\n", last)
    expect(client, "cpu.load", {((), AT_US + n * 10**6): n for n in range(5000)})
    expect(client, "disk", {((("host", "a"), ("mount", "/")), AT_US): 1.5})
    assert "cpu.load" not in codes(server.client(TWO))
    until(lambda: "line-invalid" in server.text())


def test_graphite_now(client):
    """Without a time, or with -1, it is now."""
    begun = time.time()
    send(SHARED["graphite"], b"now 1\nnow 2 -1\n")
    until(lambda: len(readings(client, "now")) == 2)
    times = [at / 1e6 for _, at in readings(client, "now")]
    assert all(begun - 1 < at < time.time() + 1 for at in times)


def test_collectds_write_graphite(client, tmp_path):
    """A real client: its values, each at its time, under the names that it makes; with tags where it is told to."""
    graphite = SHARED["graphite"]
    with Collectd(tmp_path, graphite["port"], "", WRITE_GRAPHITE) as collectd:
        for n in range(3):
            assert collectd.ask(f'PUTVAL "h1/load/load" {AT + n}:{n}:U:{n / 2}').startswith("0 ")

        def flushed(code, wanted):
            """What wrote them is a thread of its own, which may come after the flush."""
            collectd.ask("FLUSH")
            return readings(client, code) == wanted

        labels = (("ds_name", "shortterm"), ("host", "h1"), ("plugin", "load"), ("type", "load"))
        tagged = {(labels, AT_US + n * 10**6): n for n in range(3)}
        until(
            lambda: flushed("tagged.load.load.shortterm", tagged),
            told=lambda: (codes(client), readings(client, "tagged.load.load.shortterm")),
        )
        plain = {((), AT_US + n * 10**6): n / 2 for n in range(3)}
        until(lambda: flushed("h1.load.load.longterm", plain), told=lambda: codes(client))


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_pickles(server, client, protocol):
    """Frames of each protocol; one that would call something is refused, and what comes after it is taken."""
    code = f"pickled.{protocol}"
    evil = b"cos\nsystem\n(S'touch owned'\ntR."
    frames = [
        frame([(code, (AT, 1)), (f"{code};host=x", (AT, "2"))], protocol),
        struct.pack("!L", len(evil)) + evil,
        frame([(code, (AT + 1, 3.5))], protocol),
    ]
    send(SHARED["graphite-pickle"], *frames)
    expect(client, code, {((), AT_US): 1, ((("host", "x"),), AT_US): 2, ((), AT_US + 10**6): 3.5})
    until(lambda: "pickle-invalid" in server.text())
    assert not (server.path / "owned").exists()


@pytest.mark.parametrize("kind", ["statsd", "statsd-tcp"])
def test_statsd(client, kind):
    """Counters add up, gauges step, sets count, timers have their figures; all at the interval's end."""
    figures = [
        f"{kind}.t.{name}" for name in ("count", "sum", "mean", "lower", "upper", "median", "upper_90")
    ]
    plain = [f"{kind}.{name}" for name in ("hits", "temp", "users")]
    said = ["hits:1|c", "hits:2|c|@0.5|#env:prod", "hits:4|c", "temp:20|g", "temp:-1.5|g"]
    said += ["users:ann|s", "users:bob|s", "users:ann|s", "t:320|ms", "t:1:2|ms", "bad"]
    lines = [f"{kind}.{line}".encode() for line in said]
    if kind == "statsd":
        datagrams(SHARED[kind], b"\n".join(lines[:3]), *lines[3:])
    else:
        send(SHARED[kind], b"\n".join(lines) + b"\n")
    until(lambda: all(readings(client, code) for code in plain + figures))

    def total(code):
        """An interval may end between any two of the samples."""
        found = {}
        for (labels, _), value in readings(client, code).items():
            found[labels] = found.get(labels, 0) + value
        return found

    hits, temp, users = plain
    until(lambda: total(hits) == {(): 5, (("env", "prod"),): 4}, told=lambda: total(hits))
    until(lambda: total(figures[0]) == {(): 3})
    assert total(figures[1]) == {(): 323}
    assert list(readings(client, temp).values())[-1] == 18.5
    assert 1 <= max(readings(client, users).values()) <= 2


def test_foreign_addresses(server, client):
    """Who isn't in the allow-list is cut, or not heard; it is told without what was sent."""
    with connect(SHARED["foreign"]) as connection:
        assert is_cut(connection)
    datagrams(SHARED["foreign-statsd"], b"foreign:1|c")
    send(SHARED["graphite"], f"foreign 2 {AT}\n".encode())
    expect(client, "foreign", {((), AT_US): 2})
    until(lambda: server.text().count("isn't in the allow-list") == 2, told=server.text)
    assert "foreign:1" not in server.text()


def test_off_by_default(start):
    """Without the setting there is no lock and no socket but the server's own."""
    server = start()
    assert not list(server.path.glob("*.listeners.lock"))


def test_stopping_keeps_what_was_read(listening):
    """Asked to end, a server records what it gathered, long before the interval is over."""
    graphite, statsd = listener("graphite", flush="1h"), listener("statsd-tcp", flush="1h")
    server, client = listening(graphite, statsd)
    with connect(graphite) as one, connect(statsd) as two:
        one.sendall(f"a 1 {AT}\n".encode())
        two.sendall(b"b:5|c\nbad\n")
        until(lambda: "line-invalid" in server.text())  # it was read, and so was the other before it
        assert readings(client, "a") == {}
        assert server.stop() == 0
    server.start()
    assert readings(client, "a") == {((), AT_US): 1}
    assert list(readings(client, "b").values()) == [5]


def test_one_worker_of_several(listening):
    """One listens, so that counters add up in one place; when it is killed, another takes over."""
    statsd = listener("statsd-tcp", flush="100ms")
    server, client = listening(statsd, workers=2)

    for _ in range(20):
        send(statsd, b"hits:1|c\n")
    until(lambda: sum(readings(client, "hits").values()) == 20)
    with connect(statsd) as connection:
        local = connection.getsockname()[1]
        until(lambda: server.worker_of(local, statsd["port"]))
        worker = server.worker_of(local, statsd["port"])
        os.kill(worker, signal.SIGKILL)
        assert is_cut(connection)
    client = server.client(ONE)

    def more():
        send(statsd, b"hits:1|c\n")  # nobody says whether the worker that ends still took the connection
        return sum(readings(client, "hits").values()) > 20

    until(more)


@pytest.mark.parametrize("kind", ["graphite", "statsd"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_port_that_is_taken(tmp_path, kind, workers):
    """Stops the start before there is a worker, with one line that says which."""
    type_ = socket.SOCK_DGRAM if kind == "statsd" else socket.SOCK_STREAM
    with socket.socket(type=type_) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        server = Server(tmp_path, workers, env=environment(listener(kind, port=port)))
        try:
            server.launch()
            assert server.process.wait(20) == 2
            said = f"meterite: listeners: 127.0.0.1 port {port} ({kind}) can't be listened at: Address already in use"
            assert server.text().splitlines() == [said]
        finally:
            server.close()


def test_another_server_on_the_same_database(start, tmp_path):
    """Its listeners wait for those that listen, and take over from them."""
    graphite = listener("graphite")
    first = start(env=environment(graphite))
    second = Server(tmp_path, env=environment(graphite))
    second.database = first.database
    try:
        second.start()
        first.kill()
        with connect(graphite) as connection:
            local = connection.getsockname()[1]
            until(lambda: second.worker_of(local, graphite["port"]))
    finally:
        second.close()


def test_not_now(listening):
    """While another program holds the database, nothing is lost: it is recorded once that lets go."""
    graphite = listener("graphite")
    server, client = listening(graphite)
    assert client.post("/metric/", json={"code": "a", "name": "a"}).status_code == 200
    holder = sqlite3.connect(server.database, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        send(graphite, *(f"a {n} {AT + n}\n".encode() for n in range(100)))
        until(lambda: "database-locked" in server.text(), told=server.text)
        assert readings(client, "a") == {}
    finally:
        holder.close()
    expect(client, "a", {((), AT_US + n * 10**6): n for n in range(100)})
