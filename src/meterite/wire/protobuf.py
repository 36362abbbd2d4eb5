"""Protocol buffers' wire format, walked in place.

What this file guarantees: any bytes whatever give fields or a MalformedError that names the byte; nothing is copied,
nothing is read outside the bounds asked for; time is linear, memory constant. It knows no schema: who walks a message
compares tags (number << 3 | wire type), and passes over those that it doesn't know, a known number with another wire
type included. Groups, which no format of ours has, are refused; so are varints of more than 64 bits. A varint with
needless bytes is taken, as every implementation does.

The format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

import numpy as np

from meterite.model.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

DEPTH_MAX: Final = 32
_MORE: Final = 0x80
_VARINT_BYTES_MAX: Final = 10
_VALUES: Final = 1 << 64
_TAG_FIRST: Final = 1 << 3
_TAGS: Final = 1 << 32
_SIGN: Final = 1 << 63
_DOUBLE: Final = Struct("<d")
_FLOAT: Final = Struct("<f")
_UINT64: Final = Struct("<Q")


def malformed(at: int, what: str) -> MalformedError:
    return MalformedError(
        "protobuf-invalid", f"The body is not the protobuf message expected: {what} at byte {at}."
    )


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """The fields of the message that lies between the bounds, each as its tag and two numbers.

    Of a varint they are its value (unsigned) and where it ends, of all else where its bytes start and end.
    MalformedError where the walk comes to what isn't a field; those before it have been given by then.
    """
    end = len(data) if end is None else end
    at = start
    while at < end:
        tag_at, tag = at, data[at]
        at += 1
        if tag >= _MORE:
            tag, at = varint(data, tag_at, end)
        if not _TAG_FIRST <= tag < _TAGS:
            raise malformed(tag_at, "no field's tag")
        kind = tag & 7
        if kind == LENGTH:
            if at < end and data[at] < _MORE:
                length = data[at]
                at += 1
            else:
                length, at = varint(data, at, end)
            stop = at + length
        elif kind == VARINT:
            value, at = varint(data, at, end)
            yield tag, value, at
            continue
        elif kind == FIXED64:
            stop = at + 8
        elif kind == FIXED32:
            stop = at + 4
        else:
            raise malformed(tag_at, "a group" if kind in {3, 4} else "an unknown wire type")
        if stop > end:
            raise malformed(tag_at, "a field that is longer than what holds it")
        yield tag, at, stop
        at = stop


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The unsigned number that starts at ``at``, and where it ends."""
    value = shift = 0
    for place in range(at, min(end, at + _VARINT_BYTES_MAX)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            if value >= _VALUES:
                raise malformed(at, "a number of more than 64 bits")
            return value, place + 1
        shift += 7
    raise malformed(
        at, "a number that doesn't end" if end - at < _VARINT_BYTES_MAX else "a number of too many bytes"
    )


def signed(value: int) -> int:
    """The int64 (or int32) that a varint means."""
    return value - _VALUES if value >= _SIGN else value


def zigzag(value: int) -> int:
    """The sint64 (or sint32) that a varint means."""
    return (value >> 1) ^ -(value & 1)


def double(data: bytes, at: int) -> float:
    number: float = _DOUBLE.unpack_from(data, at)[0]
    return number


def float32(data: bytes, at: int) -> float:
    number: float = _FLOAT.unpack_from(data, at)[0]
    return number


def fixed64(data: bytes, at: int) -> int:
    number: int = _UINT64.unpack_from(data, at)[0]
    return number


def text(data: bytes, start: int, end: int) -> str:
    """A string. MalformedError where it isn't UTF-8."""
    try:
        return data[start:end].decode("utf-8")
    except UnicodeDecodeError as exc:
        raise malformed(start + exc.start, "a string that isn't UTF-8") from exc


def packed_varints(data: bytes, start: int, end: int) -> list[int]:
    """Packed, repeated varints, unsigned."""
    numbers = list(data[start:end])
    if max(numbers, default=0) < _MORE:
        return numbers
    numbers.clear()
    at = start
    while at < end:
        byte, after = data[at], at + 1
        if byte < _MORE:
            numbers.append(byte)
            at = after
        elif after < end and data[after] < _MORE:  # most are short
            numbers.append(byte & 0x7F | data[after] << 7)
            at += 2
        else:
            number, at = varint(data, at, end)
            numbers.append(number)
    return numbers


def packed_doubles(data: bytes, start: int, end: int) -> NDArray[np.float64]:
    """Packed, repeated doubles: a view of the body, which can't be written to."""
    return np.frombuffer(data, "<f8", _packed_count(start, end), start)


def packed_fixed64(data: bytes, start: int, end: int) -> NDArray[np.uint64]:
    """Packed, repeated fixed64: a view of the body, which can't be written to."""
    return np.frombuffer(data, "<u8", _packed_count(start, end), start)


def _packed_count(start: int, end: int) -> int:
    if (end - start) % 8:
        raise malformed(start, "packed numbers of 8 bytes that don't come out even")
    return (end - start) // 8


def deeper(depth: int, at: int) -> int:
    """One level further down in messages that may hold themselves. MalformedError beyond ``DEPTH_MAX``."""
    if depth >= DEPTH_MAX:
        raise malformed(at, f"more than {DEPTH_MAX} levels of nesting")
    return depth + 1
