"""Connections that the fast door answers: what they hold, how they end, and who is told."""

from __future__ import annotations

import asyncio
import re
import ssl

import pytest
import trustme
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.house import AT, ENDING, LAST, LINE, PUSH, QUIET_STEPS, opened, quiet, request, same, until
from meterite.api.fast_door import STATE, FastDoor
from meterite.model.errors import UnavailableError

UNKNOWN = request("/metric/unknown", AT)


def test_a_body_is_waited_for(runner, house):
    """Clients send head and body apart: that is a push like any other."""
    house.asked.clear()
    head, _, body = PUSH.partition(b"\r\n\r\n")
    pieces = [head + b"\r\n\r\n", *(body[n : n + 1] for n in range(len(body)))]
    answer, closed = runner.run(house.ask(pieces))
    assert answer.startswith(b"HTTP/1.1 200")
    assert not closed
    assert house.asked == []


def test_pipelined_pushes_are_committed_together(runner, house):
    """What came in one piece is one commit, and answered in order."""
    sizes = []
    commit = house.app._service._group._commit

    def counted(appends):
        sizes.append(len(appends))
        commit(appends)

    house.app._service._group._commit = counted
    try:
        pushes = [request("/metric/W0", b'{"reading":%d}' % n) for n in range(20)]
        answer, _ = runner.run(house.ask([b"".join(pushes)]))
    finally:
        house.app._service._group._commit = commit
    assert sizes == [20]
    assert re.findall(rb'"reading":(\d+),', answer) == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize("last", [False, True])
def test_what_could_not_be_committed_is_tried_by_the_app(runner, house, last):
    """Which has the words for it. Those behind it are answered behind it, none is lost, and the last one ends all."""
    group = house.app._service._group
    commit = group._commit

    def failing(appends):
        group._commit = commit
        commit(appends[1:])
        appends[0].error = UnavailableError("queue-full", "no")

    group._commit = failing
    house.asked.clear()
    first, second = request("/metric/W0", b'{"reading":1}'), request("/metric/W1", b'{"reading":2}')
    third = first.replace(b"Host: test", b"Connection: close") if last else first
    answer, closed = runner.run(house.ask([first + second + third]))
    assert house.asked == ["/metric/W0"]
    assert re.findall(rb'"reading":(\d)', answer) == [b"1", b"2", b"1"]
    assert closed == last == answer.partition(b'"reading":2')[2].count(b"connection: close")


def test_a_client_that_does_not_read_is_not_read(runner, house):
    """Its answers pile up to a bound: then reading stops until it reads again, and nothing is lost."""

    async def scenario():
        connection, wire = house.connect()
        connection.pause_writing()
        connection.data_received(LINE * 50)
        for _ in range(QUIET_STEPS):
            await asyncio.sleep(0.001)
        connection.data_received(LINE)
        sent, reading = bytes(wire.sent), wire.reading
        connection.resume_writing()
        await until(lambda: wire.sent.count(b"204 No Content") == 51)
        return sent, reading, wire.reading

    sent, reading, after = runner.run(scenario())
    assert (sent, reading, after) == (b"", False, True)


def test_a_connection_holds_a_bounded_number_of_pushes(runner, house):
    """Those behind wait, unread, for a turn of their own."""

    async def scenario():
        connection, wire = house.connect()
        connection.data_received(LINE * 1000)
        turns, reading = len(connection._turns), wire.reading
        await until(lambda: wire.sent.count(b"204 No Content") == 1000)
        return turns, reading, wire.reading

    turns, reading, after = runner.run(scenario())
    assert (turns <= 128, reading, after) == (True, False, True)


@pytest.mark.parametrize("last", ENDING)
@pytest.mark.parametrize("behind", [PUSH, PUSH[:-5], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_behind_the_last_push_nothing_is_read(runner, house, last, behind):
    """Whether it comes with it or while it is on its way; those before it are answered."""

    async def scenario():
        house.asked.clear()
        whole = same(await house.ask([PUSH + last + behind]))
        connection, wire = house.connect()
        connection.data_received(PUSH + last)
        for _ in range(3):
            connection.data_received(behind)
        await quiet(connection, wire)
        apart = same((bytes(wire.sent), wire.closed))
        connection.connection_lost(None)
        return whole, apart

    whole, apart = runner.run(scenario())
    assert house.asked == []
    assert whole == apart == same(runner.run(house.ask([PUSH + last], HttpToolsProtocol)))
    assert whole[0].count(b"HTTP/1.1 ") == 2
    assert whole[1]


@pytest.mark.parametrize("last", ENDING)
def test_a_last_push_that_could_not_be_committed_is_tried_by_the_app(runner, house, last):
    """And the connection ends with the app's answer, whatever came behind it meanwhile."""
    group = house.app._service._group
    commit = group._commit

    def failing(appends):
        group._commit = commit
        appends[0].error = UnavailableError("queue-full", "no")

    async def scenario():
        group._commit = failing
        connection, wire = house.connect()
        connection.data_received(last)
        await until(lambda: not connection._turns)
        connection.data_received(PUSH)
        await until(lambda: wire.closed)
        return bytes(wire.sent), wire.closed

    house.asked.clear()
    answer = same(runner.run(scenario()))
    assert len(house.asked) == 1
    assert answer == same(runner.run(house.ask([last], HttpToolsProtocol)))


@pytest.mark.parametrize("protocol", [FastDoor, HttpToolsProtocol])
def test_an_idle_connection_is_closed(runner, house, protocol):
    """After the server's keep-alive time, and not before."""

    async def scenario():
        connection, wire = house.connect(protocol, timeout_keep_alive=0.2)
        loop = asyncio.get_running_loop()
        for _ in range(3):
            connection.data_received(PUSH)
            await quiet(connection, wire)
            await asyncio.sleep(0.1)
            assert not wire.closed
        began = loop.time()
        await until(lambda: wire.closed)
        return loop.time() - began

    assert runner.run(scenario()) < 1


@pytest.mark.parametrize(
    "data",
    [PUSH, PUSH + LINE, PUSH + UNKNOWN, PUSH + LAST],
    ids=["one", "two", "mixed", "one and the last"],
)
@pytest.mark.parametrize("protocol", [FastDoor, HttpToolsProtocol])
def test_a_stop_lets_pushes_finish(runner, house, protocol, data):
    """What is on its way is answered, the last answer says that it is the last, then the connection closes."""

    async def scenario():
        connection, wire = house.connect(protocol)
        connection.data_received(data)
        connection.shutdown()
        assert not wire.closed
        await until(lambda: wire.closed)
        return bytes(wire.sent)

    answer = runner.run(scenario())
    assert answer.count(b"HTTP/1.1 ") == 1 + (data != PUSH)
    assert answer.count(b"connection: close") == 1
    assert b"connection: close" in answer[answer.rindex(b"HTTP/1.1 ") :]


def test_a_stop_closes_what_is_idle(runner, house):
    """At once; a push that isn't whole is the app's to answer."""

    async def scenario():
        connection, wire = house.connect()
        connection.data_received(PUSH[:-5])
        connection.shutdown()
        assert not wire.closed
        connection.data_received(PUSH[-5:])
        await until(lambda: wire.closed)
        idle, other = house.connect()
        idle.shutdown()
        return bytes(wire.sent), other.closed

    answer, closed = runner.run(scenario())
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert closed


def test_a_client_that_leaves_is_not_answered(runner, house):
    """Its push is committed all the same, as nobody can tell any more."""

    async def scenario():
        connection, wire = house.connect()
        connection.data_received(request("/metric/W1", b'{"reading":77,"reading_at":"2021-01-01T00:00:00Z"}'))
        wire.closed = True
        connection.connection_lost(None)
        await until(lambda: not connection._turns)
        return bytes(wire.sent), await house.readings("W1")

    sent, readings = runner.run(scenario())
    assert sent == b""
    assert b'"reading":77' in readings


@pytest.mark.parametrize("options", [{"root_path": "/sub"}, {"limit_concurrency": 100}])
def test_it_keeps_out_of_what_it_does_not_know(runner, house, options):
    """Under a root path, and where the server limits its requests, all is the app's."""
    house.asked.clear()
    runner.run(house.ask([PUSH], **options))
    assert len(house.asked) == 1


def test_tls_is_no_matter(runner, house):
    """Behind TLS a push is a push, also in pieces; after the last one the connection ends."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)

    async def scenario():
        loop = asyncio.get_running_loop()
        config = Config(house, lifespan="off", log_config=None)
        config.load()

        def made():
            return FastDoor(config, house.server, house.state, loop)

        server = await loop.create_server(made, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_side, server_hostname="localhost"
        )
        writer.write(PUSH + PUSH[:-9])
        await writer.drain()
        first = await reader.readuntil(b"}")
        writer.write(PUSH[-9:] + LINE)
        rest = await reader.readuntil(b"}"), await reader.readuntil(b"\r\n\r\n")
        writer.write(LAST)
        last = await reader.read()
        writer.close()
        server.close()
        return first, *rest, last

    house.asked.clear()
    answers = runner.run(asyncio.wait_for(scenario(), 20))
    assert [answer[9:12] for answer in answers] == [b"200", b"200", b"204", b"200"]
    assert house.asked == []


def test_another_app_is_served_as_ever(runner, house):
    """One that shares no state of ours."""
    house.asked.clear()
    kept = house.state.pop(STATE)
    try:
        answer, _ = runner.run(house.ask([PUSH]))
    finally:
        house.state[STATE] = kept
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(house.asked) == 1


def test_the_access_log_has_an_entry_a_push(runner, tmp_path, capsys):
    """With the id that was answered, and as the app's own are."""

    async def scenario():
        async with opened(tmp_path, access_log=True, log_format="json") as house:
            capsys.readouterr()
            fast, _ = await house.ask([PUSH])
            slow, _ = await house.ask([PUSH], HttpToolsProtocol)
            await house.ask([request("/write?p=token-one", b"W0 value=1", "")])
            return fast, slow

    fast, slow = runner.run(scenario())
    out = capsys.readouterr()
    lines = [line for line in (out.out + out.err).splitlines() if "request_id" in line]
    ids = [re.search(rb"x-request-id: (\w+)", answer)[1].decode() for answer in (fast, slow)]
    assert len(lines) == 3
    assert ids[0] in lines[0]
    assert ids[1] in lines[1]
    assert "token-one" not in lines[2]

    def plain(line):
        return re.sub(r"[0-9a-f]{32}|\d+\.\d+(e-\d+)?|\d{4}-\d\d-\d\d[T ]\S+", "*", line)

    assert plain(lines[0]) == plain(lines[1])
