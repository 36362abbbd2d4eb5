"""The request's body, within limits.

Guaranteed: a body whose Content-Length is over the limit is refused before a byte of it is read; none is held
beyond ``body_bytes_max`` as sent or ``unpacked_bytes_max`` unpacked; a bomb is noticed while it unpacks; an
unpacked body is whole (a stream cut short, or with something behind its end, is refused).

Content codings: RFC 9110 section 8.4.1; gzip RFC 1952 (several members are one body); deflate is zlib's format
(RFC 1950), and the raw one (RFC 1951) that some clients send under its name.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meterite.model.errors import MalformedError, TooLargeError, UnsupportedMediaError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIB: Final = 1024 * 1024
UNSAFE_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_STEP_BYTES: Final = 64 * 1024
_MEMBERS_MAX: Final = 4096  # each costs a new decompressor
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class ClientGone(Exception):  # noqa: N818 - nothing went wrong here: the client left
    """The client went away before its request was whole. There is nobody to answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Bytes as sent, bytes unpacked, and how many times larger a body beyond ``ratio_free_bytes`` may become."""

    body_bytes_max: int = 32 * MIB
    unpacked_bytes_max: int = 64 * MIB
    ratio_max: int = 200
    ratio_free_bytes: int = MIB


async def read_body(scope: Scope, receive: Receive, limits: BodyLimits) -> bytes:
    """The whole body, unpacked."""
    length, encoding = _announced(scope)
    if length is not None and length > limits.body_bytes_max:
        raise _too_large(limits)
    unpacker = _unpacker(encoding, limits)
    chunks: list[bytes] = []
    received = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        received += len(chunk)
        if received > limits.body_bytes_max:
            raise _too_large(limits)
        if unpacker is not None:
            unpacker.feed(chunk)
        elif chunk:
            chunks.append(chunk)
    if unpacker is not None:
        return unpacker.finish()
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


def _unpacker(encoding: bytes, limits: BodyLimits) -> _Unpacker | None:
    if not encoding:
        return None
    if encoding in {b"gzip", b"x-gzip"}:
        return _Unpacker(limits, gzip=True)
    if encoding == b"deflate":
        return _Unpacker(limits, gzip=False)
    raise UnsupportedMediaError(
        "content-encoding-unknown", "This Content-Encoding is not taken; use gzip, deflate or none."
    )


class _Unpacker:
    """Unpacks in bounded steps and watches size and ratio after each."""

    def __init__(self, limits: BodyLimits, *, gzip: bool) -> None:
        self._limits = limits
        self._gzip = gzip
        self._stream: zlib._Decompress | None = None
        self._head = b""
        self._members = 0
        self._taken = 0
        self._size = 0
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        for start in range(0, len(chunk), _STEP_BYTES):
            self._feed(chunk[start : start + _STEP_BYTES])

    def finish(self) -> bytes:
        """The unpacked body; an empty one, as sent, is empty."""
        if self._head or (self._stream is not None and not self._stream.eof):
            raise _malformed("is cut short")
        return b"".join(self._parts)

    def _feed(self, chunk: bytes) -> None:
        self._taken += len(chunk)
        chunk = self._head + chunk
        if self._stream is None and not self._gzip and len(chunk) < 2:
            self._head = chunk  # two bytes tell zlib's format from the raw one
            return
        self._head = b""
        while chunk:
            if self._stream is None or self._stream.eof:
                self._stream = self._next_member(chunk)
            chunk = self._step(self._stream, chunk)

    def _next_member(self, chunk: bytes) -> zlib._Decompress:
        if self._stream is not None and not self._gzip:
            raise _malformed("has bytes behind its end")
        self._members += 1
        if self._members > _MEMBERS_MAX:
            raise _malformed(f"has more than {_MEMBERS_MAX} parts")
        if self._gzip:
            return zlib.decompressobj(_GZIP)
        is_zlib = chunk[0] & 15 == 8 and (chunk[0] << 8 | chunk[1]) % 31 == 0
        return zlib.decompressobj(_ZLIB if is_zlib else _RAW)

    def _step(self, stream: zlib._Decompress, chunk: bytes) -> bytes:
        """Unpack a chunk in bounded pieces, and give back what lies behind the member's end."""
        while True:
            try:
                part = stream.decompress(chunk, MIB)
            except zlib.error as exc:
                raise _malformed("is damaged") from exc
            chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
            if part:
                self._parts.append(part)
                self._size += len(part)
                self._check(self._taken - len(chunk))
            if stream.eof:
                return chunk
            if not chunk and len(part) < MIB:  # a full piece may leave more inside without input left
                return b""

    def _check(self, consumed: int) -> None:
        limits = self._limits
        if self._size > limits.unpacked_bytes_max:
            raise TooLargeError(
                "body-too-large-unpacked",
                f"The body is larger than {limits.unpacked_bytes_max} bytes unpacked; send it in several requests.",
            )
        if self._size > limits.ratio_free_bytes and self._size > limits.ratio_max * consumed:
            raise TooLargeError(
                "body-ratio",
                f"The body unpacks to more than {limits.ratio_max} times its size; send it unpacked.",
            )


def _malformed(what: str) -> MalformedError:
    return MalformedError(
        "body-not-unpackable", f"The packed body {what}; pack it again, or send it unpacked."
    )


class BodyLimit:
    """ASGI middleware: requests that change something reach the app with their body whole and unpacked.

    What it refuses it raises: the middleware that answers errors stands outside.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in UNSAFE_METHODS:
            await self._app(scope, receive, send)
            return
        body = await read_body(scope, receive, self._limits)
        await self._app(_plain(scope, len(body)), _replay(body, receive), send)


def _plain(scope: Scope, length: int) -> Scope:
    dropped = {b"content-encoding", b"content-length", b"transfer-encoding"}
    headers = [pair for pair in scope["headers"] if pair[0] not in dropped]
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
