"""From parts to the recorder: in order, together, bounded, and again where it says "not now"."""

from __future__ import annotations

import asyncio

import pytest

from listeners.given import Recorded, not_now, setting
from meterite.listeners import intake, keeper
from meterite.listeners.intake import Intake
from meterite.listeners.keeper import Keeper, Tally
from meterite.model.errors import DamagedError
from meterite.wire.graphite import decode_graphite


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(keeper, "AGAIN_AFTER_S", 0.01)


def decode(parts):
    return decode_graphite(b"".join(parts), readings_max=10**6)


def part(*values):
    return b"".join(b"a %d %d\n" % (value, value) for value in values)


def run(scenario, recorded, flush_s=0.01):
    """The tally, after ``scenario(intake)`` and the intake's close."""

    async def running():
        tally = Tally(setting())
        one = Intake(decode, Keeper(recorded, "org_01", tally), flush_s)
        await scenario(one)
        await one.close()
        return tally

    return asyncio.run(running())


def test_in_order_and_together():
    """What comes within the interval is one recording, in its order, for the listener's org."""

    async def scenario(one):
        for n in range(100):
            await one.put(part(n))

    recorded = Recorded()
    run(scenario, recorded, flush_s=60)
    assert recorded.values == list(range(100))
    assert [org for org, _ in recorded.calls] == ["org_01"]


def test_after_the_interval():
    """Nobody has to close it."""

    async def scenario(one):
        for n in (1, 2):
            await one.put(part(n))
            await recorded.until(lambda n=n: recorded.values == list(range(1, n + 1)))

    recorded = Recorded()
    run(scenario, recorded)
    assert len(recorded.calls) == 2


def test_enough_bytes_dont_wait(monkeypatch):
    """Long before the interval ends; so many at a time."""
    monkeypatch.setattr(intake, "BATCH_BYTES", 100)

    async def scenario(one):
        for n in range(100):
            await one.put(part(n))
        await recorded.until(lambda: len(recorded.values) >= 90)

    recorded = Recorded()
    run(scenario, recorded, flush_s=60)
    assert recorded.values == list(range(100))
    assert len(recorded.calls) > 5


def test_who_puts_more_waits(monkeypatch):
    """Where nothing is recorded, no more than the bound is held; later all of it is there."""
    monkeypatch.setattr(intake, "HELD_BYTES_MAX", 100)
    monkeypatch.setattr(intake, "BATCH_BYTES", 50)
    put = []

    async def putting(one):
        for n in range(100):
            await one.put(part(n))
            put.append(n)

    async def scenario(one):
        task = asyncio.create_task(putting(one))
        await stuck.waiting.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert 5 < len(put) < 30
        assert one._held_bytes < 150
        stuck.go.set()
        await task

    class Stuck(Recorded):
        def __init__(self):
            super().__init__()
            self.go = asyncio.Event()
            self.waiting = asyncio.Event()

        async def __call__(self, org, decoded, *, partial):
            self.waiting.set()
            await self.go.wait()
            return await super().__call__(org, decoded, partial=partial)

    stuck = Stuck()
    run(scenario, stuck)
    assert stuck.values == list(range(100))


def test_not_now_is_tried_again():
    """Until it is taken; nothing is lost, and it is counted."""

    async def scenario(one):
        await one.put(part(1))
        await recorded.until(lambda: recorded.values)
        await one.put(part(2))

    recorded = Recorded(not_now(), not_now(), not_now())
    tally = run(scenario, recorded)
    assert recorded.values == [1, 2]
    assert "lost" not in tally.counts


def test_not_now_at_the_end_is_lost(monkeypatch):
    """When the listener closes it is tried once, and counted."""
    told = []
    monkeypatch.setattr(keeper.log, "warning", lambda _, **fields: told.append(fields))

    async def scenario(one):
        await one.put(part(1, 2))

    recorded = Recorded(*[not_now() for _ in range(100)])
    run(scenario, recorded, flush_s=60)
    assert recorded.values == []
    assert len(recorded.refusals) == 99
    assert [fields["lost"] for fields in told] == [2]


@pytest.mark.parametrize("error", [DamagedError("damaged", "No."), RuntimeError("a mistake")])
def test_what_never_succeeds_stops_nothing(error):
    """It is lost, counted, and what comes after it is recorded."""

    async def scenario(one):
        await one.put(part(1))
        await recorded.until(lambda: not recorded.refusals)
        await one.put(part(2))

    recorded = Recorded(error)
    run(scenario, recorded)
    assert recorded.values == [2]


def test_a_tally_is_a_line_in_some_seconds(monkeypatch):
    """The first at once, then all that came since; the first reason of each is told."""
    told = []
    monkeypatch.setattr(keeper.log, "warning", lambda event, **fields: told.append((event, fields)))
    now = [0.0]
    tally = Tally(setting(), clock=lambda: now[0])
    tally.add("foreign", "one")
    for n in range(1000):
        tally.add("foreign", f"later {n}")
    tally.add("lost", "two", 5)
    assert len(told) == 1
    now[0] = 10.0
    tally.tell()
    tally.tell()
    assert [event for event, _ in told] == ["listener.refused"] * 2
    assert told[1][1] == {
        "kind": "graphite",
        "port": 1,
        "org": "org_01",
        "foreign": 1000,
        "lost": 5,
        "reasons": ["later 0", "two"],
    }
