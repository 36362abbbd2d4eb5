"""How long is waited for a body.

What this file guarantees: a body that doesn't come on is given up, and with it all that its request holds. No piece of
it is waited for longer than ``wait_s``, and all of them together no longer than that and a second for each
:data:`BYTES_A_S_MIN` that came. Only waiting counts, not what is done with a piece.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from meterite.api.body import UNSAFE_METHODS
from meterite.model.errors import TooSlowError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BYTES_A_S_MIN: Final = 1024


class Patience:
    """ASGI middleware; what it gives up it raises: the middleware that answers errors stands outside."""

    def __init__(self, app: ASGIApp, wait_s: float) -> None:
        self._app = app
        self._wait_s = wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in UNSAFE_METHODS:
            receive = _Waiting(receive, self._wait_s).receive
        await self._app(scope, receive, send)


class _Waiting:
    """For one request's body."""

    __slots__ = ("_left_s", "_receive", "_wait_s", "_whole")

    def __init__(self, receive: Receive, wait_s: float) -> None:
        self._receive = receive
        self._wait_s = wait_s
        self._left_s = wait_s
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()  # a disconnect, which may take its time
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        try:
            async with asyncio.timeout(min(self._wait_s, self._left_s)):
                message = await self._receive()
        except TimeoutError:
            raise TooSlowError(
                "body-too-slow", "The body comes too slowly, or its end doesn't come; send it again."
            ) from None
        self._left_s += len(message.get("body", b"")) / BYTES_A_S_MIN - (clock() - begun_s)
        self._whole = not message.get("more_body", False)
        return message
