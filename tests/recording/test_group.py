"""When a commit starts, and with whom."""

from __future__ import annotations

import asyncio

import pytest

from meterite.model.columns import Single
from meterite.model.errors import UnavailableError
from meterite.recording import group as module
from meterite.recording.group import GroupCommit
from meterite.storage.interface import Append

FOR_EVER_S = 3600.0


def append():
    return Append(1, 1, Single(1 << 32, 0, 1.0))


def sizes_of(scenario, *, queue_bytes_max=1 << 20):
    """How many appends each commit had."""
    sizes = []
    group = GroupCommit(lambda appends: sizes.append(len(appends)), queue_bytes_max)

    async def run():
        await asyncio.wait_for(scenario(group), 10)

    try:
        asyncio.run(run())
    finally:
        group.close()
    return sizes


def test_who_comes_alone_never_waits(monkeypatch):
    """One request after the other: a commit each, at once."""
    monkeypatch.setattr(module, "GATHER_S", FOR_EVER_S)

    async def scenario(group):
        for _ in range(3):
            await group.add(append())

    assert sizes_of(scenario) == [1, 1, 1]


def test_who_comes_together_is_committed_together(monkeypatch):
    """The next commit starts as soon as all who took part in the last are back."""
    monkeypatch.setattr(module, "GATHER_S", FOR_EVER_S)

    async def scenario(group):
        for _ in range(3):
            await asyncio.gather(*[group.add(append()) for _ in range(4)])

    assert sizes_of(scenario) == [4, 4, 4]


def test_nobody_waits_for_those_who_left():
    """Whoever is back after ``GATHER_S`` is committed."""

    async def scenario(group):
        await asyncio.gather(*[group.add(append()) for _ in range(4)])
        await group.add(append())
        await group.add(append())

    assert sizes_of(scenario) == [4, 1, 1]


def test_each_learns_of_its_own_error():
    """One that moved fails alone; the others are answered."""

    def commit(appends):
        appends[0].error = UnavailableError("queue-full", "no")

    group = GroupCommit(commit, 1 << 20)

    async def scenario():
        return await asyncio.gather(*[group.add(append()) for _ in range(3)], return_exceptions=True)

    try:
        first, *others = asyncio.run(scenario())
    finally:
        group.close()
    assert isinstance(first, UnavailableError)
    assert others == [None, None]


def test_who_submits_is_called_back():
    """A callback is told what a future would be; one that fails keeps nobody else waiting."""
    told, faults = [], []

    def failing(_error):
        raise ValueError

    async def scenario(group):
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: faults.append(context["exception"])
        )
        group.submit(append(), failing)
        group.submit(append(), told.append)
        await group.add(append())
        assert told == [None]
        await group.add(append())

    assert sizes_of(scenario) == [3, 1]
    assert [type(fault) for fault in faults] == [ValueError]


def test_what_waits_is_bounded():
    """The queue's bytes are bounded, but one request always fits."""

    async def scenario(group):
        waiting = group.add(append())
        with pytest.raises(UnavailableError):
            group.add(append())
        await waiting

    assert sizes_of(scenario, queue_bytes_max=1) == [1]
