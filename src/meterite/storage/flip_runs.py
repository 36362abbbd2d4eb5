"""Runs become live and die, in the transaction of whoever did the work, and only as long as its inputs stand.

What this file guarantees: the list of live runs and the rows of ``run`` change together; the list decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import update

from meterite.storage.live_runs import read_live_runs, write_live_runs
from meterite.storage.schema import org as org_table
from meterite.storage.schema import run as run_table
from meterite.storage.work import DroppedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from meterite.storage.live_runs import Run


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
    table = run_table.c
    for run in live:
        made = update(run_table).where(table.id == run.id, table.live_at.is_(None), table.dead_at.is_(None))
        if conn.execute(made.values(live_at=now)).rowcount != 1:
            raise DroppedError
    if dead:
        conn.execute(update(run_table).where(table.id.in_(dead)).values(dead_at=now))
    seq = known.compacted_seq if compacted is None else compacted[1]
    if compacted:
        moved = update(org_table).where(org_table.c.id == org_id).values(compacted_seq=seq)
        if conn.execute(moved).rowcount != 1:
            raise DroppedError
    made_live = [replace(run, live_at=now) for run in live]
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
