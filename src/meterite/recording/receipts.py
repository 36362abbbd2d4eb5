"""What became of a push, as the doors tell it; and how it is kept for one that is sent again.

What this file guarantees: a receipt that is kept comes back equal, and answers no other body; what is kept of one is
bounded by bytes. So a request that may be sent again is answered, the first time, too, with as many of its rejected
readings as are kept, and with how many more there were. What is kept and can't be read fails its own key alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from meterite.model.columns import Rejected
from meterite.model.errors import DamagedError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.storage.once import KeptReceipt, Once

REJECTED_KEPT_MAX: Final = 1000
"""As many as a receipt shows."""
REJECTED_BYTES_MAX: Final = 16 * 1024
"""As much is kept of them, packed: a thousand rejected for the same few reasons take 5 KB."""
_T = TypeVar("_T")
_PACKED_FROM_BYTES: Final = 512
_PACKED: Final = b"x"
"""What zlib's format begins with; JSON begins otherwise."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a single push."""

    metric_id: int
    reading_at_us: int
    recorded_at_us: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request's readings; ``committed_at_us`` is None where nothing was written.

    ``counted`` says what the places of ``rejected`` count, and ``skipped`` how much was no reading, as in
    :class:`Decoded`; ``rejected_more`` were rejected behind those. ``replaced``, ``unchanged`` and ``events`` (ids of
    the first that were raised, ``events_more`` counts the others) are None where nobody asked.
    """

    accepted: int
    rejected: list[Rejected]
    committed_at_us: int | None
    replaced: int | None = None
    unchanged: int | None = None
    counted: Literal["index", "line"] = "index"
    events: Sequence[str] | None = None
    events_more: int = 0
    skipped: int = 0
    rejected_more: int = 0


class _Kept(msgspec.Struct, gc=False):
    """A request's part of what is kept; the commit's part stands in columns."""

    accepted: int
    rejected: list[tuple[int, str, str]]
    counted: Literal["index", "line"]
    full: bool
    events: list[str] = []
    events_more: int = 0
    skipped: int = 0
    rejected_more: int = 0


class _KeptOne(msgspec.Struct, gc=False):
    metric_id: int
    reading_at_us: int


def keepable(receipt: Receipt) -> Receipt:
    """What a request that may be sent again is answered: with as many of the rejected as are kept, one at least."""
    rejected = receipt.rejected[:REJECTED_KEPT_MAX]
    while (size := len(_packed(_rows_of(rejected)))) > REJECTED_BYTES_MAX and len(rejected) > 1:
        fitting = len(rejected) * REJECTED_BYTES_MAX // size
        rejected = rejected[: min(max(fitting, 1), len(rejected) - 1)]
    return replace(receipt, rejected=rejected, rejected_more=len(receipt.rejected) - len(rejected))


def encode_kept(receipt: Receipt) -> bytes:
    """A :func:`keepable` one as it stands when its readings are written, but for what the commit says by itself."""
    return _packed(
        _Kept(
            receipt.accepted,
            _rows_of(receipt.rejected),
            receipt.counted,
            receipt.events is not None,
            list(receipt.events or ()),
            receipt.events_more,
            receipt.skipped,
            receipt.rejected_more,
        )
    )


def _rows_of(rejected: Sequence[Rejected]) -> list[tuple[int, str, str]]:
    return [(one.index, one.code, one.reason) for one in rejected]


def _packed(kept: _Kept | list[tuple[int, str, str]]) -> bytes:
    data = msgspec.json.encode(kept)
    return data if len(data) < _PACKED_FROM_BYTES else zlib.compress(data, 1)


def _read(data: bytes, type_: type[_T]) -> _T:
    """DamagedError."""
    try:
        data = zlib.decompress(data) if data.startswith(_PACKED) else data
        return msgspec.json.decode(data, type=type_)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DamagedError("damaged", "What is kept of the request with this key can't be read.") from exc


def encode_kept_one(metric_id: int, reading_at_us: int) -> bytes:
    """``reading_at_us`` doesn't count where the commit gave the time."""
    return msgspec.json.encode(_KeptOne(metric_id, reading_at_us))


def kept_receipt(kept: KeptReceipt) -> Receipt:
    """The first answer. DamagedError."""
    one = _read(kept.data, _Kept)
    receipt = Receipt(
        one.accepted,
        [Rejected(*row) for row in one.rejected],
        kept.recorded_at_us,
        counted=one.counted,
        skipped=one.skipped,
        rejected_more=one.rejected_more,
    )
    if not one.full:
        return receipt
    return replace(
        receipt,
        replaced=kept.replaced,
        unchanged=kept.unchanged,
        events=one.events,
        events_more=one.events_more,
    )


def kept_recorded(kept: KeptReceipt) -> Recorded:
    """The same of a single push."""
    one = _read(kept.data, _KeptOne)
    return Recorded(one.metric_id, kept.given_us or one.reading_at_us, kept.recorded_at_us)


def check_same(kept: KeptReceipt, once: Once) -> None:
    """InvalidInputError where the key came with another body first."""
    if kept.body != once.body:
        raise InvalidInputError(
            "idempotency-key-reused",
            "This Idempotency-Key came with another body within the last day; take a new key for each request.",
            place=("header", "idempotency-key"),
        )
