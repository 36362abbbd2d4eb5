"""Appending with every reading judged against its metric's limits, against the same with the judge switched off.

Four stores get the same readings, a commit of each by turns, with later times each time, so that no reading is late:
one without a judge, one in which nothing is outside, and two in which one in a hundred is. Outside are either whole
series, with all that they bring in a commit, others in each commit, so that each raises an event and clears it in the
next; or readings at random, most of which raise an event and clear it in the same commit.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.append import READINGS, SERIES, keys_of
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.stores import ORG, SECOND_US, START_US, Filled, open_filled, recorder_on, rounds
from meterite.lanes import Lanes
from meterite.model.columns import Batch, Decoded
from meterite.model.metric import DEFAULT_MAX_READING
from meterite.recording.group import GroupCommit
from meterite.recording.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meterite.model.columns import SeriesKey

OUTSIDE = DEFAULT_MAX_READING + 1
STEP_US = 10 * SECOND_US
EACH = READINGS // SERIES
SHARE = 100
OFF, INSIDE, BY_SERIES, BY_READING = (
    "no judge",
    "none outside",
    "1 % of the series outside",
    "1 % of the readings",
)
MORE_MAX = 1.1


@dataclass(slots=True)
class Kept:
    """One store, what records into it, and the CPU of each turn: of the store, and of the recorder."""

    filled: Filled
    group: GroupCommit
    recorder: Recorder
    store_us: list[float]
    recorder_us: list[float]


def run(*, full: bool) -> list[Row]:
    batches, turns = (100, 25) if full else (50, 11)
    rows = []
    for metrics in (10, 1000):
        with ExitStack() as stack:
            lanes = Lanes()
            stack.callback(lanes.close)
            kept = {kind: _kept(stack, kind, metrics, lanes) for kind in (OFF, INSIDE, BY_SERIES, BY_READING)}
            asyncio.run(_turns(kept, keys_of(metrics), batches, turns))
            rows += _rows(kept, metrics, f"median of {turns} turns of {batches}; events included")
    return rows


def _kept(stack: ExitStack, kind: str, metrics: int, lanes: Lanes) -> Kept:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    filled = open_filled(Path(directory), metrics=metrics, series=SERIES)
    stack.callback(filled.store.close)
    if kind == OFF:
        filled.store.watch.judge = lambda *_: ()
    group, recorder = recorder_on(filled.store, lanes)
    stack.callback(group.close)
    return Kept(filled, group, recorder, [], [])


async def _turns(kept: dict[str, Kept], keys: list[SeriesKey], batches: int, turns: int) -> None:
    """The first one isn't counted: a process learns the series in it, once."""
    span_us = batches * EACH * STEP_US
    for turn in range(turns + 1):
        store_us, recorder_us = dict.fromkeys(kept, 0.0), dict.fromkeys(kept, 0.0)
        for some in _by_turns(kept, batches, START_US + 2 * turn * span_us):
            for kind, batch in some.items():
                store_us[kind] += _us_of(partial(kept[kind].filled.commit, batch))
        for kind, one in kept.items():
            store_us[kind] += _us_of(one.filled.store.database.checkpoint)
        for some in _by_turns(kept, batches, START_US + (2 * turn + 1) * span_us):
            for kind, batch in some.items():
                recorder_us[kind] += await _record(kept[kind], keys, batch)
        for kind, one in kept.items():
            recorder_us[kind] += _us_of(one.filled.store.database.checkpoint)
        if turn:
            for kind, one in kept.items():
                one.store_us.append(store_us[kind] / (batches * READINGS))
                one.recorder_us.append(recorder_us[kind] / (batches * READINGS))


def _by_turns(kept: dict[str, Kept], batches: int, start_us: int) -> Iterable[dict[str, Batch]]:
    """A batch of each kind, another one first each time: who follows whom matters to the processor's caches."""
    kinds = list(kept)
    made = (list(_batches(one.filled, kind, batches, start_us)) for kind, one in kept.items())
    for number, some in enumerate(zip(*made, strict=True)):
        by_kind = dict(zip(kinds, some, strict=True))
        first = number % len(kinds)
        yield {kind: by_kind[kind] for kind in kinds[first:] + kinds[:first]}


def _batches(filled: Filled, kind: str, batches: int, start_us: int) -> Iterable[Batch]:
    rng = np.random.default_rng(start_us % 2**32)
    count = SERIES // SHARE
    made = rounds(filled, batches * EACH, step_us=STEP_US, each=EACH, start_us=start_us)
    for number, batch in enumerate(made):
        if kind == BY_SERIES:
            first = number * count % SERIES
            outside = (batch.series_index >= first) & (batch.series_index < first + count)
            batch.values[outside] = OUTSIDE
        elif kind == BY_READING:
            batch.values[rng.choice(READINGS, READINGS // SHARE, replace=False)] = OUTSIDE
        yield batch


def _us_of(work: Callable[[], object]) -> float:
    """µs of CPU."""
    before = own_cpu_s()
    work()
    return (own_cpu_s() - before) * 1e6


async def _record(one: Kept, keys: list[SeriesKey], batch: Batch) -> float:
    """µs of CPU."""
    decoded = Decoded(keys, batch.series_index, batch.at_us, batch.values)
    before = own_cpu_s()
    receipt = await one.recorder.record(ORG, decoded)
    used_us = (own_cpu_s() - before) * 1e6
    assert receipt.accepted == READINGS
    return used_us


def _rows(kept: dict[str, Kept], metrics: int, how: str) -> list[Row]:
    off = kept[OFF]
    what = f"append of {READINGS:,} in {metrics:,} metrics, judged ÷ not"
    rows = []
    for kind in (INSIDE, BY_SERIES, BY_READING):
        one = kept[kind]
        for level, some, others in (
            ("store, with the commit", one.store_us, off.store_us),
            ("from decoded columns on", one.recorder_us, off.recorder_us),
        ):
            ratio = median([a / b for a, b in zip(some, others, strict=True)])
            note = f"{median(some):.3f} to {median(others):.3f} µs a reading; {how}"
            rows.append(Row(f"{what}: {kind}, {level}", ratio, "×", MORE_MAX, note=note))
    return rows
