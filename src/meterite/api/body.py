"""The request's body, within limits.

Guaranteed: a body whose Content-Length is over the limit is refused before a byte of it is read; none is held
beyond ``body_bytes_max`` as sent or ``unpacked_bytes_max`` unpacked, and all together fit into their room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from meterite.api.room import Room, Share
from meterite.api.unpack import BodyLimits, unpacker
from meterite.model.errors import TooLargeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNSAFE_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

UNPACKED_AT_ONCE_BYTES_MAX: Final = 256 * 1024
"""Packed; more is unpacked beside the event loop where its coding is unpacked in one go."""

CODING: Final = "meterite.coding"
"""Where the scope says which coding a body was unpacked from; some protocols' clients don't name theirs."""


class ClientGone(Exception):  # noqa: N818 - nothing went wrong here: the client left
    """The client went away before its request was whole. There is nobody to answer."""


async def read_body(scope: Scope, receive: Receive, limits: BodyLimits, share: Share) -> bytes:
    """The whole body, unpacked. TooLargeError, UnavailableError, and what unpacking raises."""
    length, encoding = _announced(scope)
    if length is not None and length > limits.body_bytes_max:
        raise _too_large(limits)
    unpacking = unpacker(encoding, limits) if encoding else None
    chunks: list[bytes] = []
    received = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        if not received:  # the server has let go of what came: were it refused before, it would keep that
            share.check(length or 0)
        received += len(chunk)
        if received > limits.body_bytes_max:
            raise _too_large(limits)
        if unpacking is not None:
            unpacking.feed(chunk)
        elif chunk:
            chunks.append(chunk)
        share.grow(received if unpacking is None else unpacking.held)
    if unpacking is not None:
        large = received > UNPACKED_AT_ONCE_BYTES_MAX
        body = await asyncio.to_thread(unpacking.finish) if large else unpacking.finish()
        share.grow(len(body))
        return body
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _announced(scope: Scope) -> tuple[int | None, bytes]:
    length: int | None = None
    encodings = []
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value[:20])
        elif name == b"content-encoding":
            encodings += [each.strip().lower() for each in value.split(b",")]
    return length, b",".join(each for each in encodings if each not in {b"", b"identity"})


def _too_large(limits: BodyLimits) -> TooLargeError:
    return TooLargeError(
        "body-too-large",
        f"The body is larger than {limits.body_bytes_max} bytes; send it in several requests.",
    )


class BodyLimit:
    """ASGI middleware: requests that change something reach the app with their body whole and unpacked.

    What it refuses it raises: the middleware that answers errors stands outside.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits, room: Room) -> None:
        self._app = app
        self._limits = limits
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in UNSAFE_METHODS:
            await self._app(scope, receive, send)
            return
        with Share(self._room) as share:
            body = await read_body(scope, receive, self._limits, share)
            await self._app(_plain(scope, len(body)), _replay(body, receive), send)


def _plain(scope: Scope, length: int) -> Scope:
    dropped = {b"content-encoding", b"content-length", b"transfer-encoding"}
    headers = [pair for pair in scope["headers"] if pair[0] not in dropped]
    scope[CODING] = _announced(scope)[1]
    scope["headers"] = [*headers, (b"content-length", str(length).encode())]
    return scope


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()  # a disconnect, once there is one
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
