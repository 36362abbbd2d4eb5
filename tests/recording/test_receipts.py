"""What is kept of a receipt, and how much of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meterite.model.columns import Rejected
from meterite.recording.receipts import RECEIPT_BYTES_MAX, Receipt, encode_kept, kept_receipt
from meterite.storage.once import KeptReceipt

AT = 1_700_000_000_000_000
EVENTS = [f"018bcfe5-6800-7000-8000-{n:012x}" for n in range(1000)]


def again(receipt):
    """As it comes back, and how many bytes were kept."""
    data = encode_kept(receipt)
    return kept_receipt(KeptReceipt(b"", AT, 0, 3, 4, data)), len(data)


def rejected(count, reason="The value 'abc' is no number."):
    return [Rejected(n, "reading-invalid", f"{reason} {n}") for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 1000])
@pytest.mark.parametrize("events", [None, EVENTS])
def test_it_comes_back_equal(count, events):
    """With as many as an answer shows, rejected for reasons that differ a little, and within its bound."""
    receipt = Receipt(7, rejected(count), AT, counted="line", skipped=2)
    if events:
        receipt = replace(receipt, replaced=3, unchanged=4, events=events, events_more=5)
    back, size = again(receipt)
    assert back == receipt
    assert size <= RECEIPT_BYTES_MAX


def test_reasons_that_have_nothing_in_common():
    """No more is kept than may be: the first come back, of the others how many they are."""
    noise = random.Random(1)
    reasons = ["".join(noise.choices("abcdefghijklmnop0123456789äöü", k=300)) for _ in range(1500)]
    receipt = Receipt(7, [Rejected(n, "x", reason) for n, reason in enumerate(reasons)], AT)
    back, size = again(receipt)
    assert size <= RECEIPT_BYTES_MAX
    assert len(back.rejected) > 30
    assert back.rejected == receipt.rejected[: len(back.rejected)]
    assert back.rejected_more == 1500 - len(back.rejected)


def test_one_of_an_earlier_version():
    """Was not packed."""
    data = b'{"accepted":1,"rejected":[[0,"x","y"]],"counted":"index","full":false}'
    assert kept_receipt(KeptReceipt(b"", AT, 0, 0, 0, data)) == Receipt(1, [Rejected(0, "x", "y")], AT)
