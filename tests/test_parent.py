"""A worker's parent is looked for; a process that is no worker has none, whoever started it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import types

import pytest

from meterite import parent

WITHIN_S = 10


@pytest.fixture
def told(monkeypatch):
    """The numbers of the signals that came; looks follow each other at once."""
    monkeypatch.setattr(parent, "LOOK_S", 0.001)
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


async def _come(told):
    """The signal's handler runs in the loop's own thread, between two of its steps."""
    async with asyncio.timeout(WITHIN_S):
        for _ in iter(lambda: bool(told), True):
            await asyncio.sleep(0)


@pytest.mark.parametrize("said", ["", "import gunicorn.arbiter\n", "sys.modules['gunicorn.arbiter'] = sys\n"])
def test_who_is_a_worker(said):
    """A process that a shell started is none, but for what gunicorn forked."""
    source = (
        "import sys\n" + said + "from meterite import parent\nprint(parent.parent_is_alive() is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{bool(said)}\n"


def test_a_worker_stops_once_its_parent_is_gone(monkeypatch, told):
    """By SIGTERM, once, and not before."""
    answers = iter([True, True, False])
    asked = []

    def is_alive():
        asked.append(len(told))
        return next(answers)

    monkeypatch.setattr(parent, "parent_is_alive", lambda: is_alive)

    async def scenario():
        with parent.stopping_without_parent():
            await _come(told)

    asyncio.run(scenario())
    assert asked == [0, 0, 0]
    assert told == [signal.SIGTERM]


def test_of_gunicorn(monkeypatch, told):
    """Its number is the arbiter's as long as that lives."""
    monkeypatch.setitem(sys.modules, parent.GUNICORN, types.ModuleType(parent.GUNICORN))
    numbers = [os.getppid()]
    monkeypatch.setattr(os, "getppid", lambda: numbers[-1])

    async def scenario():
        with parent.stopping_without_parent():
            is_alive = parent.parent_is_alive()
            assert is_alive()
            numbers.append(1)
            assert not is_alive()
            await _come(told)

    asyncio.run(scenario())
    assert told == [signal.SIGTERM]


def test_nobody_looks_after_the_end(monkeypatch, told):
    """What stops already isn't told again."""
    monkeypatch.setattr(parent, "parent_is_alive", lambda: lambda: False)

    async def scenario():
        with parent.stopping_without_parent():
            pass
        looked = asyncio.Event()
        asyncio.get_running_loop().call_later(10 * parent.LOOK_S, looked.set)
        await asyncio.wait_for(looked.wait(), WITHIN_S)

    asyncio.run(scenario())
    assert told == []


def test_a_server_alone_has_nobody_to_look_for(monkeypatch, told):
    """Its shell may end."""
    monkeypatch.setattr(parent, "is_worker", lambda: False)
    monkeypatch.setattr(os, "getppid", lambda: 1)

    async def scenario():
        with parent.stopping_without_parent():
            pass

    assert parent.parent_is_alive() is None
    asyncio.run(scenario())
    assert told == []
