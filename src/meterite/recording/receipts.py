"""What became of a push, as the doors tell it; and how it is kept for one that is sent again.

What this file guarantees: a receipt that was kept comes back equal, and answers no other body; what is kept of one is
bounded by bytes, so that of very many that were rejected the first come back, and how many more there were.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from meterite.model.columns import Rejected
from meterite.model.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.storage.once import KeptReceipt, Once

REJECTED_KEPT_MAX: Final = 1000
"""As many as a receipt shows."""
RECEIPT_BYTES_MAX: Final = 16 * 1024
"""As much is kept of one, packed: a thousand rejected for the same few reasons take 5 KB."""
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


def encode_kept(receipt: Receipt) -> bytes:
    """As it stands when its readings are written, but for what the commit says by itself."""
    shown = REJECTED_KEPT_MAX
    while len(data := _packed(_kept_of(receipt, shown))) > RECEIPT_BYTES_MAX and shown:
        shown //= 2
    return data


def _kept_of(receipt: Receipt, shown: int) -> _Kept:
    """With as many at most of what there may be many of."""
    rejected = [(one.index, one.code, one.reason) for one in receipt.rejected[:shown]]
    full, events = receipt.events is not None, list((receipt.events or ())[:shown])
    kept = _Kept(receipt.accepted, rejected, receipt.counted, full, events, receipt.events_more)
    kept.events_more += len(receipt.events or ()) - len(events)
    kept.skipped = receipt.skipped
    kept.rejected_more = len(receipt.rejected) - len(rejected)
    return kept


def _packed(kept: _Kept) -> bytes:
    data = msgspec.json.encode(kept)
    return data if len(data) < _PACKED_FROM_BYTES else zlib.compress(data, 1)


def _unpacked(data: bytes) -> bytes:
    return zlib.decompress(data) if data.startswith(_PACKED) else data


def encode_kept_one(metric_id: int, reading_at_us: int) -> bytes:
    """``reading_at_us`` doesn't count where the commit gave the time."""
    return msgspec.json.encode(_KeptOne(metric_id, reading_at_us))


def kept_receipt(kept: KeptReceipt) -> Receipt:
    """The first answer."""
    one = msgspec.json.decode(_unpacked(kept.data), type=_Kept)
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
    one = msgspec.json.decode(kept.data, type=_KeptOne)
    return Recorded(one.metric_id, kept.given_us or one.reading_at_us, kept.recorded_at_us)


def check_same(kept: KeptReceipt, once: Once) -> None:
    """InvalidInputError where the key came with another body first."""
    if kept.body != once.body:
        raise InvalidInputError(
            "idempotency-key-reused",
            "This Idempotency-Key came with another body within the last day; take a new key for each request.",
            place=("header", "idempotency-key"),
        )
