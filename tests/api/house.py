"""One app behind either protocol, the fast door's and uvicorn's own, and the pushes that are sent to it."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from meterite.api.fast_door import FastDoor
from meterite.app import create_app
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
        answered first, and behind one that ends the connection nothing is, as they are to who sends byte by byte and
        waits.
        """
        fast, whole = same(await self.ask(pieces)), same(await self.ask(pieces, HttpToolsProtocol))
        if fast == whole:
            return True
        if not whole[0].endswith(NO_HTTP):
            return False
        data = b"".join(pieces)
        slow = same(
            await self.ask([data[n : n + 1] for n in range(len(data))], HttpToolsProtocol, patient=True)
        )
        before, _, last = fast[0].rpartition(b"HTTP/1.1 400")
        if not last.endswith(NO_HTTP):
            return fast == slow
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


def request(path, body, token="x-auth-token: token-one", *more, version="1.1", method="POST"):
    lines = [f"{method} {path} HTTP/{version}", "Host: test", token, *more, f"Content-Length: {len(body)}"]
    return "\r\n".join(line for line in lines if line).encode() + b"\r\n\r\n" + body


GROUP = "/metrics/job/nightly/instance/a"
BASE64 = "/metrics/job@base64/bmlnaHRseQ==/zone/"
EXPOSED = b'# HELP cpu_load What it does.\n# TYPE cpu_load gauge\ncpu_load{core="1"} 2\nW0 NaN\n'
AT = b'{"reading":1.5,"reading_at":"2020-01-01T00:00:00Z"}'
PUSH = request("/metric/W0", AT)
LINE = request("/write", b"W1 value=2.5 1577836800000000000\n")
LAST = request("/metric/W0", AT, "x-auth-token: token-one", "Connection: close")
ENDING = [LAST, request("/write", b"W0 value=1", version="1.0")]


def same(asked):
    """Without what differs between any two answers."""
    answer, closed = asked
    text = re.sub(rb"x-request-id: [0-9a-f]{32}", b"x-request-id: *", answer)
    text = re.sub(rb'"request_id": "[0-9a-f]{32}"', b'"request_id": "*"', text)
    return re.sub(rb'"(recorded_at|reading_at|committed_at)":"2026-[^"]*"', rb'"\1":"*"', text), closed
