"""How long is waited for a body.

What this file guarantees: a body that doesn't come on is given up, and with it all that its request holds. No piece of
it is waited for longer than ``wait_s``, and all of them together no longer than that and a second for each
:data:`BYTES_A_S_MIN` that came. Only waiting counts, not what is done with a piece.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from meterite.api.body import UNSAFE_METHODS
from meterite.model.errors import TooSlowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

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
        message = await self._piece(self._receive())
        self._left_s += len(message.get("body", b"")) / BYTES_A_S_MIN
        self._whole = not message.get("more_body", False)
        return message

    async def _piece(self, receiving: Awaitable[Message]) -> Message:
        if not isinstance(receiving, Coroutine):  # ASGI promises no more than something to await
            return await self._wait(receiving)
        try:
            waits_for = receiving.send(None)
        except StopIteration as done:  # it was there already, as most are: a timer would cost 5 µs
            message: Message = done.value
            return message
        return await self._wait(_Begun(receiving, waits_for))

    async def _wait(self, piece: Awaitable[Message]) -> Message:
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        try:
            async with asyncio.timeout(min(self._wait_s, self._left_s)):
                return await piece
        except TimeoutError:
            raise TooSlowError(
                "body-too-slow", "The body comes too slowly, or its end doesn't come; send it again."
            ) from None
        finally:
            self._left_s -= clock() - begun_s


class _Begun:
    """A coroutine that ran up to its first wait, to be awaited from there on."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Message], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        waits_for = self._waits_for
        while True:
            try:
                sent = yield waits_for
            except BaseException as exc:  # noqa: BLE001 - it is the coroutine's
                step = functools.partial(self._coroutine.throw, exc)
            else:
                step = functools.partial(self._coroutine.send, sent)
            try:
                waits_for = step()
            except StopIteration as done:
                message: Message = done.value
                return message
