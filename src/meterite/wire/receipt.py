"""The answer to ``POST /readings``.

What this file guarantees: however many readings were rejected, at most :data:`REJECTED_SHOWN_MAX` are listed;
the rest is counted in ``rejected_more``, which stands there only where there is a rest. So of events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from meterite.model.time import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.columns import Rejected

REJECTED_SHOWN_MAX: Final = 1000


def encode_receipt(
    accepted: int,
    rejected: Sequence[Rejected],
    committed_at_us: int | None,
    replaced: int | None = None,
    unchanged: int | None = None,
    *,
    counted: Literal["index", "line"] = "index",
    rejected_more: int = 0,
    events: Sequence[str] | None = None,
    events_more: int = 0,
    skipped: int = 0,
) -> bytes:
    """``committed_at`` is null where nothing was written; ``replaced``, ``unchanged`` and ``events`` stand where
    they were asked for; a rejected reading's place is its ``index`` or its ``line``, as ``counted``; ``rejected_more``
    were rejected behind those at hand; ``skipped`` stands where something was.
    """
    shown = rejected[:REJECTED_SHOWN_MAX]
    receipt: dict[str, Any] = {
        "accepted": accepted,
        "rejected": [{counted: r.index, "code": r.code, "reason": r.reason} for r in shown],
        "committed_at": None if committed_at_us is None else format_rfc3339(committed_at_us),
    }
    rejected_more += len(rejected) - len(shown)
    if rejected_more:
        receipt["rejected_more"] = rejected_more
    if skipped:
        receipt["skipped"] = skipped
    if replaced is not None:
        receipt["replaced"] = replaced
    if unchanged is not None:
        receipt["unchanged"] = unchanged
    if events is not None:
        receipt["events"] = list(events)
    if events_more:
        receipt["events_more"] = events_more
    return msgspec.json.encode(receipt)
