"""Runs of one window become one; erased readings are taken out of a run.

What this file guarantees: new runs take the place of old ones in one small transaction, and only if every one of the
old is still live. A reading's window follows from its time, so that runs of different windows never hold one key.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from meterite.storage.flip_runs import flip_runs, raise_applied
from meterite.storage.live_runs import orgs_with_runs, read_live_runs
from meterite.storage.merge import merge
from meterite.storage.run_writer import RunWriter
from meterite.storage.schema import SEGMENT_BITS
from meterite.storage.state import everything
from meterite.storage.tombstones import mask_erased
from meterite.storage.work import DroppedError, blocked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from meterite.storage.live_runs import Run
    from meterite.storage.snapshot import Snapshot
    from meterite.storage.tombstones import Tombstone, Tombstones
    from meterite.storage.work import Limits, Work


def windows_to_look_at(conn: Connection) -> set[tuple[int, int]]:
    """(org, window) of all windows with more than one live run."""
    found = set()
    for org_id in orgs_with_runs(conn):
        windows = Counter(run.window for run in read_live_runs(conn, org_id).runs)
        found |= {(org_id, window) for window, count in windows.items() if count > 1}
    return found


def choose_runs(
    conn: Connection, limits: Limits, org_id: int, window: int, now_us: int, closes_us: int
) -> list[int]:
    """The runs of the window that are to become one now; none where it isn't time."""
    live = read_live_runs(conn, org_id).runs
    runs = [run for run in live if run.window == window]
    if len(runs) < 2:
        return []
    if limits.last_tier:
        return _ids(sorted(runs, key=_count)[: limits.inputs_max])
    newest = max(run.at_last for run in live)
    closed = newest >= closes_us and now_us >= closes_us
    if (
        closed
        and now_us - max(run.live_at for run in runs) >= limits.quiet_s * 1e6
        and _worth_it(runs, limits, now_us)
    ):
        return _ids(sorted(runs, key=_count)[: limits.inputs_max])
    return _one_class(runs, limits)


def _count(run: Run) -> int:
    return run.count


def _ids(runs: Sequence[Run]) -> list[int]:
    return sorted(run.id for run in runs)


def _worth_it(runs: Sequence[Run], limits: Limits, now_us: int) -> bool:
    """Whether what lies beside the largest run is a tenth of it, or old."""
    *others, largest = sorted(runs, key=_count)
    waits = now_us - min(run.live_at for run in others)
    return sum(map(_count, others)) * 10 >= largest.count or waits >= limits.late_s * 1e6


def _one_class(runs: Sequence[Run], limits: Limits) -> list[int]:
    """Where a size class (a factor of 8 wide) is full: its runs and all smaller ones."""
    classes = np.array([_size_class(run.count) for run in runs])
    counts = np.bincount(classes)
    wanted = np.full(len(counts), limits.fan_in)
    wanted[_size_class(limits.large) :] = limits.fan_in_large
    full = np.flatnonzero(counts >= wanted)
    if not len(full):
        return []
    chosen = np.flatnonzero(classes <= full[0])[: limits.inputs_max]
    return _ids([runs[n] for n in chosen.tolist()])


def _size_class(count: int) -> int:
    return (max(1, count).bit_length() - 1) // 3


def merge_runs(work: Work, org_id: int, window: int, run_ids: list[int]) -> bool:
    """Whether it could be done: not in a window with a damaged row."""
    with work.database.reading() as conn:
        snapshot = work.snapshot(conn, org_id)
    chosen = [run for run in snapshot.runs if run.id in run_ids]
    if len(chosen) != len(run_ids):
        raise DroppedError
    if blocked(snapshot, window):
        return False
    complete = len(chosen) == sum(run.window == window for run in snapshot.runs)
    oldest = min(run.applied_seq for run in chosen)
    tombstones = snapshot.tombstones.after(oldest)
    tombstones = tombstones.chosen(np.logical_or.reduce([_touch(tombstones, run) for run in chosen]))
    writer = RunWriter(work, org_id)
    writer.begin(window, snapshot.seq)
    inputs = [snapshot.pieces(run, everything()) for run in chosen]
    for chunk in merge(inputs, snapshot.policies, tombstones, complete=complete):
        writer.add(chunk)
        work.breathe()
    writer.finish()
    _replace(work, writer, run_ids)
    work.done.merges += 1
    return True


def _replace(work: Work, writer: RunWriter, run_ids: list[int]) -> None:
    """The flip: all of the old are live until now, or nothing happens."""
    with work.write() as conn:
        writer.flush(conn)
        now = work.now()
        flip_runs(conn, writer.org_id, now, live=writer.runs, dead=run_ids)
    work.dead.update(dict.fromkeys(run_ids, now))


# ------------------------------------------------------------------------------------------------------------
# Tombstones.


def _touch(tombstones: Tombstones, run: Run) -> NDArray[np.bool_]:
    return tombstones.touch(run.series_first, run.series_last, run.at_first, run.at_last)


def unapplied(snapshot: Snapshot, run: Run) -> Tombstones:
    """Tombstones that may still hide readings of the run."""
    later = snapshot.tombstones.after(max(run.applied_seq, run.seq_first))
    return later.chosen(_touch(later, run))


def _touched(directory: NDArray[np.void], tombstone: Tombstone) -> NDArray[np.bool_]:
    """The row groups that may hold readings which the tombstone hides."""
    mask: NDArray[np.bool_] = (
        (directory["seq_first"] < tombstone.seq)
        & (directory["series_first"] <= tombstone.series_last)
        & (directory["series_last"] >= tombstone.series_first)
        & (directory["at_first"] <= tombstone.at_last)
        & (directory["at_last"] >= tombstone.at_first)
    )
    return mask


def apply_tombstones(
    work: Work, snapshot: Snapshot, run: Run, tombstones: Tombstones, *, rewrite: bool
) -> bool:
    """Take out of the run what they hide, unless ``rewrite`` forbids what is dear; whether anything was done."""
    directory = snapshot.directory(run)
    touched = np.logical_or.reduce([_touched(directory, t) for t in tombstones])
    if not touched.any():
        with work.write() as conn:
            return raise_applied(conn, snapshot.org_id, run.id, snapshot.seq)
    if not rewrite or blocked(snapshot, run.window):
        return False
    writer = RunWriter(work, snapshot.org_id)
    writer.begin(run.window, snapshot.seq)
    for number in range(len(directory)):
        work.breathe()
        segment_id = run.id << SEGMENT_BITS | number
        if touched[number]:
            group = snapshot.row_group(segment_id, directory[number])
            writer.add(mask_erased(group.columns(), tombstones))
        else:
            writer.copy(snapshot.blob(segment_id, directory[number]), directory[number : number + 1])
    writer.finish()
    _replace(work, writer, [run.id])
    return True
