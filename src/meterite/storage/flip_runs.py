"""Runs become live and die, in the transaction of whoever did the work, and only as long as its inputs stand.

What this file guarantees: the list of live runs and the rows of ``run`` change together; the list decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import update

from meterite.storage.database import driver_of
from meterite.storage.live_runs import read_live_runs, write_live_runs
from meterite.storage.schema import org as org_table
from meterite.storage.schema import run as run_table
from meterite.storage.work import DroppedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from meterite.storage.live_runs import Run


_MAKE_LIVE: Final = "UPDATE run SET live_at = ? WHERE id = ? AND live_at IS NULL AND dead_at IS NULL"
_MAKE_DEAD: Final = "UPDATE run SET dead_at = ? WHERE id = ?"
"""By the driver: a flip may be of thousands of runs, one a month, and the writer's lock is held."""


def flip_runs(
    conn: Connection,
    org_id: int,
    now: int,
    *,
    live: Sequence[Run],
    dead: Collection[int] = (),
    compacted: tuple[int, int] | None = None,
) -> None:
    """``compacted``: up to which seq the journal lies in runs, before and after.

    DroppedError where one of the dead wasn't live any more, one of the new is gone or being swept, or somebody else
    compacted the journal.
    """
    known = read_live_runs(conn, org_id)
    if not known.ids.issuperset(dead) or (compacted and compacted[0] != known.compacted_seq):
        raise DroppedError
    raw = driver_of(conn)
    if raw.executemany(_MAKE_LIVE, [(now, run.id) for run in live]).rowcount != len(live):
        raise DroppedError
    raw.executemany(_MAKE_DEAD, [(now, run_id) for run_id in dead])
    seq = known.compacted_seq if compacted is None else compacted[1]
    if compacted:
        moved = update(org_table).where(org_table.c.id == org_id).values(compacted_seq=seq)
        if conn.execute(moved).rowcount != 1:
            raise DroppedError
    made_live = [run.made_live(now) for run in live]
    write_live_runs(conn, known.changed(compacted_seq=seq, dead=dead, live=made_live))


def raise_applied(conn: Connection, org_id: int, run_id: int, seq: int) -> bool:
    """Tombstones up to ``seq`` have nothing to hide in the run; whether it was live."""
    known = read_live_runs(conn, org_id)
    if run_id not in known.ids:
        return False
    raised = [replace(run, applied_seq=seq) for run in known.runs if run.id == run_id]
    conn.execute(update(run_table).where(run_table.c.id == run_id).values(applied_seq=seq))
    write_live_runs(conn, known.changed(live=raised))
    return True
