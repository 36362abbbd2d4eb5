"""The fast door against uvicorn's own protocol, both before the same app: whoever asks can't tell them apart."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from meterite.api.fast_door import STATE, FastDoor
from meterite.app import create_app
from meterite.model.errors import UnavailableError
from meterite.settings import Settings

TOKENS = {"token-one": "org_01", "token-two": "org_02"}
CODES = ("W0", "W1", "cpu_load")
NOW_US = 1_769_860_800_123_456
NO_HTTP = b"Invalid HTTP request received."
STEPS_MAX = 5000
QUIET_STEPS = 25
"""So many turns of the loop without a sign: the app waits for the client."""


class Wire(asyncio.Transport):
    """A connection's other end: what was sent, and whether anything more is read."""

    def __init__(self):
        super().__init__()
        self.sent = bytearray()
        self.closed = False
        self.reading = True

    def write(self, data):
        if not self.closed:  # as a socket's does
            self.sent += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def get_extra_info(self, name, default=None):
        return {"peername": ("127.0.0.1", 4711), "sockname": ("127.0.0.1", 8000)}.get(name, default)


class House:
    """One app, and connections to it by either protocol; ``asked`` are the paths that reached the app."""

    def __init__(self, app):
        self.app = app
        self.asked = []
        self.state = {}
        self.server = ServerState()
        self.server.default_headers = [(b"date", b"Sat, 31 Jan 2026 12:00:00 GMT")]

    async def __call__(self, scope, receive, send):
        self.asked.append(scope["path"])
        await self.app(scope, receive, send)

    def connect(self, protocol=FastDoor, **options):
        config = Config(self, lifespan="off", log_config=None, **options)
        config.load()
        connection = protocol(config, self.server, self.state, asyncio.get_running_loop())
        wire = Wire()
        connection.connection_made(wire)
        return connection, wire

    async def ask(self, pieces, protocol=FastDoor, *, patient=False, **options):
        """What is answered, and whether the connection was closed; its client stays until all is quiet.

        A ``patient`` one sends the next piece only then.
        """
        connection, wire = self.connect(protocol, **options)
        for piece in pieces:
            await until(lambda: wire.reading or wire.closed)
            if wire.closed:
                break
            connection.data_received(piece)
            if patient:
                await quiet(connection, wire)
        await quiet(connection, wire)
        answer, closed = bytes(wire.sent), wire.closed
        wire.closed = True
        connection.connection_lost(None)
        return answer, closed

    async def alike(self, pieces):
        """Whether both doors answer the same.

        To what isn't HTTP uvicorn answers at once, and forgets requests before it in the same piece. Here those are
        answered first, as they are to who sends byte by byte and waits.
        """
        fast = same(await self.ask(pieces))
        if fast == same(await self.ask(pieces, HttpToolsProtocol)):
            return True
        data = b"".join(pieces)
        slow = same(
            await self.ask([data[n : n + 1] for n in range(len(data))], HttpToolsProtocol, patient=True)
        )
        before, _, last = fast[0].rpartition(b"HTTP/1.1 400")
        return fast[1] and last.endswith(NO_HTTP) and slow[0].startswith(before)

    async def metric(self, code):
        body = json.dumps({"code": code, "name": code}).encode()
        answer, _ = await self.ask([request("/metric/", body)], HttpToolsProtocol)
        assert answer.startswith(b"HTTP/1.1 200"), answer

    async def readings(self, code):
        head = f"GET /metric/{code}/readings HTTP/1.1\r\nx-auth-token: token-one\r\n\r\n"
        answer, _ = await self.ask([head.encode()], HttpToolsProtocol)
        return answer.partition(b"\r\n\r\n")[2]


async def until(holds):
    for _ in range(STEPS_MAX):
        if holds():
            return
        await asyncio.sleep(0.0005)
    raise AssertionError("it never came to it")


async def quiet(connection, wire):
    """Nothing is to come: answered, closed, or the next move is the client's."""
    still = 0
    for _ in range(STEPS_MAX):
        cycle, turns = connection.cycle, getattr(connection, "_turns", None)
        owing = cycle is not None and not cycle.response_complete
        if wire.closed or not (turns or owing):
            return
        still = 0 if turns or connection.pipeline or not cycle.more_body else still + 1
        if still > QUIET_STEPS:
            return
        await asyncio.sleep(0 if still else 0.0005)
    raise AssertionError("it never came to rest")


@asynccontextmanager
async def opened(path, **options):
    """As a server opens it: by the lifespan protocol, with a state to share."""
    url = f"sqlite:///{path}/m.db"
    app = create_app(Settings(_env_file=None, database_url=url, api_tokens=TOKENS, **options))
    service = app._service
    service.store.clock = service.store.journal._now = service.store.catalog._now = lambda: NOW_US
    service.recorder._now = service.store.clock
    house, come, gone = House(app), asyncio.Queue(), asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "state": house.state}, come.get, gone.put))
    await come.put({"type": "lifespan.startup"})
    assert (await gone.get())["type"] == "lifespan.startup.complete"
    for code in CODES:
        await house.metric(code)
        await house.ask([request(f"/metric/{code}", b'{"reading":0,"reading_at":"2019-01-01"}')])
    await house.ask([request("/write", b"cpu,host=a load=1 1569860800000000000")])
    for place in (GROUP, GROUP.replace("/a", "/a%2Fb"), BASE64):
        await house.ask([request(place, EXPOSED + b"W1 0\n")])
    house.asked.clear()
    try:
        yield house
    finally:
        await come.put({"type": "lifespan.shutdown"})
        await task


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def house(runner, tmp_path_factory):
    context = opened(tmp_path_factory.mktemp("door"))
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


def request(path, body, token="x-auth-token: token-one", *more, version="1.1", method="POST"):
    lines = [f"{method} {path} HTTP/{version}", "Host: test", token, *more, f"Content-Length: {len(body)}"]
    return "\r\n".join(line for line in lines if line).encode() + b"\r\n\r\n" + body


GROUP = "/metrics/job/nightly/instance/a"
BASE64 = "/metrics/job@base64/bmlnaHRseQ==/zone/"
EXPOSED = b'# HELP cpu_load What it does.\n# TYPE cpu_load gauge\ncpu_load{core="1"} 2\nW0 NaN\n'
AT = b'{"reading":1.5,"reading_at":"2020-01-01T00:00:00Z"}'
PUSH = request("/metric/W0", AT)
LINE = request("/write", b"W1 value=2.5 1577836800000000000\n")


def same(asked):
    """Without what differs between any two answers."""
    answer, closed = asked
    text = re.sub(rb"x-request-id: [0-9a-f]{32}", b"x-request-id: *", answer)
    text = re.sub(rb'"request_id": "[0-9a-f]{32}"', b'"request_id": "*"', text)
    return re.sub(rb'"(recorded_at|reading_at|committed_at)":"2026-[^"]*"', rb'"\1":"*"', text), closed


# --- What it takes

TAKEN = {
    "metric": PUSH,
    "metric, without a time": request("/metric/W0", b'{"reading": 3}'),
    "metric, other headers": request("/metric/cpu_load", AT, "X-AUTH-TOKEN:token-one", "Accept: */*", "A: "),
    "bearer": request("/metric/W0", AT, "Authorization: Bearer token-one"),
    "token": request("/write", b"W0 value=1", "Authorization: Token token-one", "Connection: Keep-Alive"),
    "its own id": request("/metric/W0", AT, "x-auth-token: token-one", "x-request-id: mine"),
    "labels at hand": request("/metric/cpu_load", b'{"reading":1,"labels":{"host":"a"}}'),
    "a line": LINE,
    "a line without a time": request("/write?db=x&precision=ms", b"cpu load=2i"),
    "a line with labels": request("/write?p=token-one", b"cpu,host=a load=2 1577836800000000000", ""),
    "lines": request(
        "/api/v2/write?bucket=b&precision=s", b"W0 value=1 1577836800\n\nW1 value=2 1577836801\n"
    ),
    "lines of several series": request("/write", b"W0 value=1 1577836800000000000\ncpu,host=a load=2"),
    "a group's metrics": request(GROUP, EXPOSED),
    "all of a group": request(GROUP, EXPOSED, method="PUT"),
    "a group that lost a metric": request(GROUP, b"W0 3\n", method="PUT"),
    "a group that won it again": request(GROUP, EXPOSED + b"W1 1", method="PUT"),
    "a group with escapes": request(GROUP + "%2Fb?x=1&x-auth-token=token-one", b"W0 1\n", ""),
    "a group in base64": request(BASE64, b"W0 4\n"),
    "OpenMetrics": request(
        GROUP, b"W0 5\n# EOF\n", "x-auth-token: token-one", "Content-Type: application/openmetrics-text"
    ),
    "a signed 0": request("/metric/W0", b'{"reading":-0.0}'),
}


@pytest.mark.parametrize("name", TAKEN)
def test_it_answers_as_the_app_does(runner, house, name):
    """It answers what it understands itself, in the very bytes that the app would answer."""
    house.asked.clear()
    fast = runner.run(house.ask([TAKEN[name]]))
    assert house.asked == []
    slow = runner.run(house.ask([TAKEN[name]], HttpToolsProtocol))
    assert len(house.asked) == 1
    assert fast[0].startswith((b"HTTP/1.1 200", b"HTTP/1.1 204"))
    assert same(fast) == same(slow)


# --- What it doesn't

LEFT = {
    "PUT": request("/metric/W0", AT, method="PUT"),
    "another place": request("/readings", b'{"metric":"W0","reading":1}'),
    "an action": request("/metric/W0/readings", b"42", "x-auth-token: token-one", "Content-Type: text/plain"),
    "no token": request("/metric/W0", AT, ""),
    "a wrong token": request("/metric/W0", AT, "x-auth-token: token-three"),
    "a wrong token before a right one": request(
        "/write", b"W0 value=1", "x-auth-token: token-three", "Authorization: Token token-one"
    ),
    "another org": request("/metric/W0", AT, "x-auth-token: token-two"),
    "unknown": request("/metric/unknown", AT),
    "escaped": request("/metric/W%30", AT),
    "a fragment": request("/metric/W0#x", AT),
    "not JSON": request("/metric/W0", b'{"reading":'),
    "no reading": request("/metric/W0", b'{"reading":"x"}'),
    "no body": request("/metric/W0", b""),
    "closing": request("/metric/W0", AT, "x-auth-token: token-one", "Connection: close"),
    "closing, a proxy's word": request(
        "/metric/W0", AT, "x-auth-token: token-one", "Proxy-Connection: close"
    ),
    "HTTP/1.0": request("/metric/W0", AT, version="1.0"),
    "expecting": request("/metric/W0", AT, "x-auth-token: token-one", "Expect: 100-continue"),
    "packed": request("/metric/W0", AT, "x-auth-token: token-one", "Content-Encoding: gzip"),
    "two lengths": request("/metric/W0", AT, "x-auth-token: token-one", "Content-Length: 3"),
    "a key": request("/metric/W0", AT, "x-auth-token: token-one", "Idempotency-Key: a"),
    "upgrading": request("/metric/W0", AT, "x-auth-token: token-one", "Connection: Upgrade", "Upgrade: h2c"),
    "chunked": b"POST /metric/W0 HTTP/1.1\r\nx-auth-token: token-one\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(AT), AT),
    "a folded header": request("/metric/W0", AT, "x-auth-token: token-one", "A: b\r\n c"),
    "a header without a name": request("/metric/W0", AT, "x-auth-token: token-one", ": b"),
    "bare line feeds": PUSH.replace(b"\r\n", b"\n"),
    "lines with texts": request("/write", b'W0 value=1,text="x"'),
    "a line that is none": request("/write", b"W0 value=1\nW0 value=\n"),
    "too far ahead": request("/write", b"W0 value=1 1999999999000000000"),
    "another unit": request("/write?precision=ms", b"W0 value=1 1577836800"),
    "a precision that is none": request("/write?precision=d", b"W0 value=1"),
    "another parameter": request("/write?precision=s&precision=ms", b"W0 value=1"),
    "a group's times": request(GROUP, b"W0 1 1577836800000\n"),
    "a series twice": request(GROUP, b"W0 1\nW0 2\n"),
    "a line that isn't exposition": request(GROUP, b"W0\n"),
    "nothing of a group": request(GROUP, b"# EOF", method="PUT"),
    "an exemplar": request(GROUP, b'W0 1 # {a="b"} 1\n# EOF'),
    "a group that is none": request("/metrics/job/a/b", b"W0 1\n"),
    "a group without a job": request("/metrics/job/", b"W0 1\n"),
    "a job with a line feed": request("/metrics/job/a%0Ab", b"W0 1\n"),
    "lines put": request("/write", b"W0 value=1", method="PUT"),
    "large": request("/write", b"W0 value=1\n" * 2000),
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", LEFT)
def test_the_rest_is_the_apps(runner, house, name):
    """What it doesn't take, errors and all, is answered as ever, also with a push before and behind."""
    for data in (LEFT[name], PUSH + LEFT[name], LEFT[name] + PUSH, PUSH + LEFT[name] + LINE):
        assert runner.run(house.alike([data]))
    house.asked.clear()
    answer, _ = runner.run(house.ask([LEFT[name]]))
    assert len(house.asked) == 1 or answer.endswith(NO_HTTP)


def test_a_group_is_met_once(runner, house):
    """A new series, and a description that a metric lacked, are the app's to write down; then it knows them."""
    for body in (b'W1{x="new"} 1\n', b"# HELP W1 What it does.\nW1 1\n"):
        for reached in (1, 0):
            house.asked.clear()
            answer, _ = runner.run(house.ask([request(GROUP, body)]))
            assert answer.startswith(b"HTTP/1.1 200")
            assert len(house.asked) == reached


ONES = st.sampled_from([*TAKEN.values(), *LEFT.values()])


@st.composite
def streams(draw):
    """Some requests behind each other, perhaps broken somewhere, in pieces."""
    data = b"".join(draw(st.lists(ONES, min_size=1, max_size=4)))[:2000]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    if draw(st.integers(0, 9)) == 0:
        return [data[n : n + 1] for n in range(len(data))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_any_stream_is_answered_alike(runner, house, pieces):
    """Pipelined, split and malformed requests: the same bytes, and the same end."""
    assert runner.run(house.alike(pieces))


def test_both_write_the_same(runner, tmp_path):
    """What was pushed is read back alike, whichever door it came through."""

    async def written(name, protocol):
        (tmp_path / name).mkdir()
        async with opened(tmp_path / name) as house:
            for data in TAKEN.values():
                await house.ask([data], protocol)
            return [await house.readings(code) for code in CODES]

    assert runner.run(written("fast", FastDoor)) == runner.run(written("slow", HttpToolsProtocol))


# --- Connections


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


def test_what_could_not_be_committed_is_tried_by_the_app(runner, house):
    """Which has the words for it. Those behind it are answered behind it, and none is lost."""
    group = house.app._service._group
    commit = group._commit

    def failing(appends):
        group._commit = commit
        commit(appends[1:])
        appends[0].error = UnavailableError("queue-full", "no")

    group._commit = failing
    house.asked.clear()
    first, second = request("/metric/W0", b'{"reading":1}'), request("/metric/W1", b'{"reading":2}')
    answer, _ = runner.run(house.ask([first + second + first]))
    assert house.asked == ["/metric/W0"]
    assert re.findall(rb'"reading":(\d)', answer) == [b"1", b"2", b"1"]


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


@pytest.mark.parametrize("data", [PUSH, PUSH + LINE, PUSH + LEFT["unknown"]], ids=["one", "two", "mixed"])
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
    """Behind TLS a push is a push, also in pieces."""
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
        writer.close()
        server.close()
        return first, *rest

    house.asked.clear()
    answers = runner.run(asyncio.wait_for(scenario(), 20))
    assert [answer[9:12] for answer in answers] == [b"200", b"200", b"204"]
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
