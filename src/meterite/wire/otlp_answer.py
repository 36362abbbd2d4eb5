"""What OTLP's clients are answered (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).

What this file guarantees: each answer is the message that the specification names, as protobuf or as JSON, and small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.columns import Rejected

REASONS_MAX: Final = 10

INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
_MORE: Final = 0x80
_LENGTH: Final = 2


def encode_success(rejected: Sequence[Rejected], more: int = 0, *, json: bool) -> bytes:
    """ExportMetricsServiceResponse; ``partial_success`` only where something was rejected.

    ``more`` were rejected behind those at hand.
    """
    points = len({each.index for each in rejected}) + more
    if not points:
        return b"{}" if json else b""
    reasons = tell_rejected(rejected, more)
    if json:
        return _json({"partialSuccess": {"rejectedDataPoints": str(points), "errorMessage": reasons}})
    return _bytes(1, _varint(1, points) + _bytes(2, reasons.encode("utf-8", "replace")))


def encode_status(code: int, message: str, *, json: bool) -> bytes:
    """``google.rpc.Status``."""
    if json:
        return _json({"code": code, "message": message})
    return _varint(1, code) + _bytes(2, message.encode("utf-8", "replace"))


def tell_rejected(rejected: Sequence[Rejected], more: int = 0) -> str:
    """The first reasons, by the data point's number in the request, from 0."""
    told = [f"data point {each.index}: {each.code}: {each.reason}" for each in rejected[:REASONS_MAX]]
    more += len(rejected) - len(told)
    return " ".join(told) + (f" And {more} more." if more else "")


def _json(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document)


def _varint(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _unsigned(value)


def _bytes(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | _LENGTH]) + _unsigned(len(value)) + value


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value >= _MORE:
        out.append(value % _MORE | _MORE)
        value //= _MORE
    out.append(value)
    return bytes(out)
