"""Rows that failed their check: what of an org they may have held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from meterite.model.time import AT_FIRST_US, AT_LAST_US, format_rfc3339
from meterite.storage.schema import quarantine as quarantine_table

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from meterite.storage.journal_index import Fault

HOLD_READINGS: Final = frozenset({"journal", "segment", "live_runs"})
"""Kinds of rows in which readings lie."""


def read_quarantine(conn: Connection, org_id: int) -> list[Row[Any]]:
    return list(conn.execute(select(quarantine_table).where(quarantine_table.c.org == org_id)))


def gap_of(row: Row[Any] | Fault) -> str:
    """What a reader is told of a row that held readings."""
    if row.kind == "live_runs":
        return "The list of what is stored was damaged: readings may be missing."
    return (
        f"A damaged {row.kind} row is left out: readings from {format_rfc3339(_clip(row.at_first))} "
        f"to {format_rfc3339(_clip(row.at_last))} may be missing."
    )


def _clip(at_us: int) -> int:
    return max(AT_FIRST_US, min(AT_LAST_US, at_us))
