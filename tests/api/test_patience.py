"""How long is waited for a body's pieces, whatever a server's ``receive`` answers to be awaited."""

from __future__ import annotations

import asyncio

import pytest

from meterite.api.patience import Patience
from meterite.model.errors import TooSlowError

SCOPE = {"type": "http", "method": "POST"}


class Piece:
    """ASGI asks for no more than this."""

    def __init__(self, receive):
        self._receive = receive

    def __await__(self):
        return self._receive().__await__()


def bodies(pieces, *, stands_still=False):
    """What an app is given of the pieces by a ``receive`` that answers coroutines, other awaitables, and futures."""

    async def app(scope, receive, send):
        got.append([(await receive())["body"] for _ in pieces])
        if stands_still:
            await receive()

    async def ask(wrapped):
        left = list(pieces)

        async def next_piece():
            await asyncio.sleep(0)
            if not left:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or stands_still}

        await Patience(app, 0.05)(SCOPE, lambda: wrapped(next_piece), None)

    got = []
    for wrapped in (lambda one: one(), Piece, lambda one: asyncio.ensure_future(one())):
        if stands_still:
            with pytest.raises(TooSlowError):
                asyncio.run(ask(wrapped))
        else:
            asyncio.run(ask(wrapped))
    return got


def test_any_awaitable():
    assert bodies([b"a", b"b", b""]) == [[b"a", b"b", b""]] * 3


def test_any_awaitable_is_given_up():
    """A piece that doesn't come, however it is waited for."""
    assert bodies([b"a"], stands_still=True) == [[b"a"]] * 3
