"""What is kept of a receipt, and how much of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meterite.model.columns import Rejected
from meterite.model.errors import DamagedError
from meterite.recording.receipts import (
    REJECTED_BYTES_MAX,
    Receipt,
    encode_kept,
    encode_kept_one,
    keepable,
    kept_receipt,
    kept_recorded,
)
from meterite.storage.once import KeptReceipt

AT = 1_700_000_000_000_000
EVENTS = [f"018bcfe5-6800-7000-8000-{n:012x}" for n in range(1000)]


def kept_as(data):
    return KeptReceipt(b"", AT, 0, 3, 4, data)


def again(receipt):
    """As it comes back, and how many bytes were kept."""
    data = encode_kept(receipt)
    return kept_receipt(kept_as(data)), len(data)


def rejected(count, reason="The value 'abc' is no number."):
    return [Rejected(n, "reading-invalid", f"{reason} {n}") for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("events", [None, EVENTS])
def test_it_comes_back_equal(count, events):
    """With all that an answer shows, rejected for reasons that differ a little, and within its bound."""
    receipt = Receipt(7, rejected(count), AT, counted="line", skipped=2)
    if events:
        receipt = replace(receipt, replaced=3, unchanged=4, events=events, events_more=5)
    assert keepable(receipt) == receipt
    back, size = again(receipt)
    assert back == receipt
    assert size <= REJECTED_BYTES_MAX


@pytest.mark.parametrize("characters", [300, 30_000])
def test_reasons_that_have_nothing_in_common(characters):
    """As many as can be kept are answered, at first and again, one at least; of the others how many they are."""
    noise = random.Random(1)
    reasons = ["".join(noise.choices("abcdefghijklmnop0123456789äöü", k=characters)) for _ in range(1500)]
    receipt = Receipt(7, [Rejected(n, "x", reason) for n, reason in enumerate(reasons)], AT)
    first = keepable(receipt)
    assert len(first.rejected) >= (60 if characters == 300 else 1)
    assert first.rejected == receipt.rejected[: len(first.rejected)]
    assert first.rejected_more == 1500 - len(first.rejected)
    back, size = again(first)
    assert back == first
    assert size <= REJECTED_BYTES_MAX + 100 or len(first.rejected) == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"x", b"{}", b'{"accepted":1', encode_kept(Receipt(7, rejected(100), AT))[:-9]],
)
def test_one_that_is_damaged(data):
    """Is called so, and answers nothing that it may not have been."""
    with pytest.raises(DamagedError):
        kept_receipt(kept_as(data))
    with pytest.raises(DamagedError):
        kept_recorded(kept_as(data))
    assert kept_recorded(kept_as(encode_kept_one(3, AT))).metric_id == 3


def test_one_of_an_earlier_version():
    """Was not packed."""
    data = b'{"accepted":1,"rejected":[[0,"x","y"]],"counted":"index","full":false}'
    assert kept_receipt(KeptReceipt(b"", AT, 0, 0, 0, data)) == Receipt(1, [Rejected(0, "x", "y")], AT)
