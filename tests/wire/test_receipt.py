"""The receipt of ``POST /readings``."""

from __future__ import annotations

import json

from meterite.model.columns import Rejected
from meterite.wire.receipt import encode_receipt


def test_a_receipt_has_what_the_client_asked_for():
    """``replaced``, ``unchanged`` and ``events`` only with ``?receipt=full``; ``events_more`` where there are more."""
    assert encode_receipt(2, [], 1767225600 * 10**6) == (
        b'{"accepted":2,"rejected":[],"committed_at":"2026-01-01T00:00:00Z"}'
    )
    full = json.loads(encode_receipt(2, [], 0, replaced=0, unchanged=1, events=()))
    assert (full["replaced"], full["unchanged"], full["events"]) == (0, 1, [])
    assert "events_more" not in full
    more = json.loads(encode_receipt(2, [], 0, events=["id"], events_more=3))
    assert (more["events"], more["events_more"]) == (["id"], 3)


def test_skipped_is_told_where_something_was():
    """And isn't there otherwise."""
    assert json.loads(encode_receipt(1, [], 0, skipped=2))["skipped"] == 2
    assert "skipped" not in json.loads(encode_receipt(1, [], 0))


def test_formats_of_lines_tell_lines():
    """A rejected reading's place is its line where its format counts lines."""
    receipt = json.loads(encode_receipt(0, [Rejected(3, "code-invalid", "No.")], None, counted="line"))
    assert receipt["rejected"] == [{"line": 3, "code": "code-invalid", "reason": "No."}]


def test_rejections_are_bounded():
    """1,000 are listed, the rest is counted; nothing was written: no time."""
    rejected = [Rejected(n, "code-invalid", "No.") for n in range(1500)]
    receipt = json.loads(encode_receipt(0, rejected, None))
    assert receipt["rejected"][999] == {"index": 999, "code": "code-invalid", "reason": "No."}
    assert (len(receipt["rejected"]), receipt["rejected_more"], receipt["committed_at"]) == (1000, 500, None)
    assert "rejected_more" not in json.loads(encode_receipt(0, rejected[:1000], None))
