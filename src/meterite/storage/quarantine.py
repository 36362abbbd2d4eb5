"""Rows that failed their check: what of an org they may have held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from meterite.model.time import AT_FIRST_US, AT_LAST_US, format_rfc3339
from meterite.storage.database import driver_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meterite.storage.journal_index import Fault

HOLD_READINGS: Final = frozenset({"journal", "segment", "live_runs"})
"""Kinds of rows in which readings lie."""


class Quarantined(NamedTuple):
    """A row, and its bounds as far as they are known."""

    kind: str
    row_id: int
    series_first: int
    series_last: int
    at_first: int
    at_last: int


_SELECT: Final = f"SELECT {', '.join(Quarantined._fields)} FROM quarantine WHERE org = ?"  # noqa: S608 -- our own names


def read_quarantine(conn: Connection, org_id: int) -> list[Quarantined]:
    """By the driver itself: each snapshot asks, and by SQLAlchemy it took 42 µs, by the driver 1.3."""
    return [Quarantined(*row) for row in driver_of(conn).execute(_SELECT, (org_id,))]


def gap_of(row: Quarantined | Fault) -> str:
    """What a reader is told of a row that held readings."""
    if row.kind == "live_runs":
        return "The list of what is stored was damaged: readings may be missing."
    return (
        f"A damaged {row.kind} row is left out: readings from {format_rfc3339(_clip(row.at_first))} "
        f"to {format_rfc3339(_clip(row.at_last))} may be missing."
    )


def _clip(at_us: int) -> int:
    return max(AT_FIRST_US, min(AT_LAST_US, at_us))
