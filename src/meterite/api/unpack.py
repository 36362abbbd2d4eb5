"""Content codings: a packed body, unpacked within limits.

Guaranteed: a bomb is noticed while it unpacks; an unpacked body is whole (a stream cut short, or with something behind
its end, is refused; behind the end of brotli's the library sees nothing).

Codings: RFC 9110 section 8.4.1; gzip RFC 1952 (several members are one body); deflate is zlib's format (RFC 1950), and
the raw one (RFC 1951) that some clients send under its name; zstd RFC 8878; br RFC 7932; snappy as a block, as
Prometheus' clients send it, or framed (google/snappy: format_description.txt, framing_format.txt).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from meterite.model.errors import MalformedError, TooLargeError, UnsupportedMediaError

if TYPE_CHECKING:
    from collections.abc import Callable

MIB: Final = 1024 * 1024

_STEP_BYTES: Final = 64 * 1024
_MEMBERS_MAX: Final = 4096  # each costs a new decompressor
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_SNAPPY_FRAMED: Final = b"\xff\x06\x00\x00sNaPpY"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GROWTH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Bytes as sent, bytes unpacked, and how many times larger a body beyond ``ratio_free_bytes`` may become."""

    body_bytes_max: int = 32 * MIB
    unpacked_bytes_max: int = 64 * MIB
    ratio_max: int = 200
    ratio_free_bytes: int = MIB

    def size_max(self, consumed: int) -> int:
        """How many bytes may have come out of so many."""
        return min(self.unpacked_bytes_max, max(self.ratio_free_bytes, self.ratio_max * consumed))

    def exceeded(self, size: int) -> TooLargeError:
        """For a body of this size, which is beyond :meth:`size_max`."""
        if size > self.unpacked_bytes_max:
            return TooLargeError(
                "body-too-large-unpacked",
                f"The body is larger than {self.unpacked_bytes_max} bytes unpacked; send it in several requests.",
            )
        return TooLargeError(
            "body-ratio", f"The body unpacks to more than {self.ratio_max} times its size; send it unpacked."
        )


class Unpacker(Protocol):
    """Takes a body in pieces; what is wrong with it is raised as soon as it is known."""

    @property
    def held(self) -> int:
        """Bytes in memory."""
        ...

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> bytes:
        """The unpacked body; an empty one, as sent, is empty."""
        ...


def unpacker(coding: bytes, limits: BodyLimits) -> Unpacker:
    """By the name in Content-Encoding. UnsupportedMediaError."""
    make = _CODINGS.get(coding)
    if make is None:
        raise UnsupportedMediaError(
            "content-encoding-unknown",
            "This Content-Encoding is not taken; use gzip, deflate, zstd, snappy, br or none.",
        )
    return make(limits)


def unpack(coding: bytes, body: bytes, limits: BodyLimits) -> bytes:
    """A body at hand."""
    one = unpacker(coding, limits)
    one.feed(body)
    return one.finish()


def unpack_unnamed(body: bytes, limits: BodyLimits) -> bytes:
    """A body at hand whose packing nobody named: zstd, snappy, or what is neither, as it is.

    zstd tells itself; what isn't a snappy block hardly ever comes out as long as its first bytes would say.
    """
    if body.startswith(_ZSTD):
        return unpack(b"zstd", body, limits)
    try:
        return unpack(b"snappy", body, limits)
    except MalformedError:
        return body


class _Deflated:
    """gzip and deflate: unpacks in bounded steps and watches size and ratio after each."""

    def __init__(self, limits: BodyLimits, *, gzip: bool) -> None:
        self._limits = limits
        self._gzip = gzip
        self._stream: zlib._Decompress | None = None
        self._head = b""
        self._members = 0
        self._taken = 0
        self._size = 0
        self._parts: list[bytes] = []

    @property
    def held(self) -> int:
        return self._size

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
        if self._size > self._limits.size_max(consumed):
            raise self._limits.exceeded(self._size)


class _Whole:
    """Codings that are unpacked in one go, into a buffer as large as is allowed."""

    def __init__(self, limits: BodyLimits, decompress: Callable[[bytes, BodyLimits], bytes]) -> None:
        self._limits = limits
        self._decompress = decompress
        self._parts: list[bytes] = []
        self.held = 0

    def feed(self, chunk: bytes) -> None:
        if chunk:
            self._parts.append(chunk)
            self.held += len(chunk)

    def finish(self) -> bytes:
        body = b"".join(self._parts)
        return self._decompress(body, self._limits) if body else b""


def _zstd(body: bytes, limits: BodyLimits) -> bytes:
    from cramjam import zstd

    return _into_buffer(zstd.decompress_into, body, limits)


def _brotli(body: bytes, limits: BodyLimits) -> bytes:
    from cramjam import brotli

    return _into_buffer(brotli.decompress_into, body, limits)


def _snappy(body: bytes, limits: BodyLimits) -> bytes:
    from cramjam import DecompressionError, snappy

    if body.startswith(_SNAPPY_FRAMED):
        return _into_buffer(snappy.decompress_into, body, limits)
    try:
        announced = snappy.decompress_raw_len(body)
        if announced > limits.size_max(len(body)):
            raise limits.exceeded(announced)
        return bytes(snappy.decompress_raw(body))
    except DecompressionError as exc:
        raise _malformed("is damaged") from exc


def _into_buffer(into: Callable[[Any, Any], int], body: bytes, limits: BodyLimits) -> bytes:
    """Tried with small buffers first: most bodies are far from the bound."""
    from cramjam import DecompressionError

    most = limits.size_max(len(body))
    size = min(most, max(_STEP_BYTES, _GROWTH * len(body)))
    while True:
        buffer = np.empty(size, np.uint8)
        try:
            return buffer[: into(body, buffer)].tobytes()
        except DecompressionError as exc:
            if "whole buffer" not in str(exc) or "write" not in str(exc):
                raise _malformed("is damaged or cut short") from exc
            if size == most:
                raise limits.exceeded(most + 1) from exc
        size = min(most, size * _GROWTH)


_CODINGS: Final[dict[bytes, Callable[[BodyLimits], Unpacker]]] = {
    b"gzip": lambda limits: _Deflated(limits, gzip=True),
    b"x-gzip": lambda limits: _Deflated(limits, gzip=True),
    b"deflate": lambda limits: _Deflated(limits, gzip=False),
    b"zstd": lambda limits: _Whole(limits, _zstd),
    b"br": lambda limits: _Whole(limits, _brotli),
    b"snappy": lambda limits: _Whole(limits, _snappy),
}


def _malformed(what: str) -> MalformedError:
    return MalformedError(
        "body-not-unpackable", f"The packed body {what}; pack it again, or send it unpacked."
    )
