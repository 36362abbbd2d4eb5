"""A headless Chromium, and as much of the DevTools protocol as it takes to look at a page.

Guaranteed: nothing outside of this machine is reached, since no name but ours is resolved; the browser has a profile of
its own and ends, with all its processes, with the test.

The protocol: https://chromedevtools.github.io/devtools-protocol/, one JSON message a WebSocket frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

import aiohttp

HOST = "localtest.me"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND",
    "--remote-debugging-port=0",
)
SECONDS = 30
MESSAGE_BYTES_MAX = 64 << 20
DOMAINS = ("Page", "Network", "Runtime", "Log", "Audits")


class Page:
    """A tab of its own, with cookies of its own. ``events`` has what it told, in order."""

    def __init__(self, socket):
        self._socket = socket
        self._session = {}
        self._numbers = itertools.count(1)
        self._answers = {}
        self._told = asyncio.Condition()
        self.events = []

    async def begin(self):
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": session["sessionId"]}
        for domain in DOMAINS:
            await self.call(f"{domain}.enable")
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)

    async def listen(self):
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
                continue
            async with self._told:
                self.events.append((told["method"], told["params"]))
                self._told.notify_all()

    async def call(self, method, **params):
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | self._session)
        told = await asyncio.wait_for(answer, SECONDS)
        assert "error" not in told, (method, told["error"])
        return told["result"]

    async def event(self, method, since, **fields):
        """The first such event from number ``since`` on; waits for it."""

        def found():
            return next(
                (
                    params
                    for name, params in self.events[since:]
                    if name == method and fields.items() <= params.items()
                ),
                None,
            )

        async with self._told:
            await asyncio.wait_for(self._told.wait_for(found), SECONDS)
        return found()

    async def evaluate(self, expression):
        """The value of an expression; of a promise what it comes to."""
        done = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, condition):
        """Until an expression holds in the page, which looks at it with each frame it draws."""
        look = f"const look = () => ({condition}) ? done(true) : requestAnimationFrame(look); look();"
        await self.evaluate(f"new Promise((done) => {{ {look} }})")

    async def open(self, url, rendered):
        """Until ``rendered`` holds and nothing is asked for any more."""
        since = len(self.events)
        loader = (await self.call("Page.navigate", url=url))["loaderId"]
        await self.event("Page.loadEventFired", since)
        await self.until(rendered)
        await self.event("Page.lifecycleEvent", since, name="networkIdle", loaderId=loader)

    def requests(self):
        """Addresses and headers of all that was asked for, but for what lies in the page itself."""
        found = (params["request"] for name, params in self.events if name == "Network.requestWillBeSent")
        return [one for one in found if not one["url"].startswith(("data:", "blob:"))]

    def complaints(self):
        """Errors on the console, exceptions that nobody caught, and what the policies kept from happening."""
        for name, params in self.events:
            if name == "Runtime.consoleAPICalled" and params["type"] in {"error", "assert"}:
                yield [one.get("value", one.get("description")) for one in params["args"]]
            elif name == "Runtime.exceptionThrown":
                yield params["exceptionDetails"]
            elif name == "Log.entryAdded" and params["entry"]["level"] == "error":
                yield params["entry"]
            elif name == "Audits.issueAdded" and params["issue"]["code"] == "ContentSecurityPolicyIssue":
                yield params["issue"]["details"]


@asynccontextmanager
async def chromium(program):
    """A browser; the address at which it is told what to do."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            env=kept | {"HOME": profile},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            told = []
            async with asyncio.timeout(SECONDS):
                while not told or b"DevTools listening on" not in told[-1]:
                    told.append(await process.stderr.readline())
                    assert told[-1], b"".join(told).decode(errors="replace")
            rest = asyncio.create_task(_drained(process.stderr))
            yield told[-1].decode().split()[-1]
            rest.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _drained(stream):
    """A browser whose complaints nobody reads would stop at last."""
    async for _ in stream:
        pass


@asynccontextmanager
async def page(address):
    """A new page of the browser."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(address, max_msg_size=MESSAGE_BYTES_MAX) as socket,
    ):
        one = Page(socket)
        listening = asyncio.create_task(one.listen())
        await one.begin()
        yield one
        listening.cancel()
