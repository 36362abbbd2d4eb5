"""A stop is noticed beside the server, which is told as before."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from meterite.stop_signal import noticing_stop


@pytest.fixture
def server():
    """What the server was told; its handlers are gone afterwards."""
    told = []
    before = {
        number: signal.signal(number, lambda signum, _: told.append(signum))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_are_told(server, number):
    """The app in its event loop, the server at once; afterwards the server alone."""

    async def scenario():
        stopped = asyncio.Event()
        with noticing_stop(stopped.set):
            signal.raise_signal(number)
            assert server == [number]
            await asyncio.wait_for(stopped.wait(), 10)
            stopped.clear()
        signal.raise_signal(number)
        await asyncio.sleep(0)
        assert not stopped.is_set()

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    asyncio.run(scenario())
    assert server == [number, number]
    assert signal.getsignal(signal.SIGTERM) is handlers[0]


def test_a_signal_that_nobody_handles_is_left_alone(server):
    """It ends the process, as it would without us."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def scenario():
        with noticing_stop(lambda: None):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    asyncio.run(scenario())


def test_whoever_took_over_meanwhile_keeps_it(server):
    """What was set within stays."""

    def other(*_):
        pass

    async def scenario():
        with noticing_stop(lambda: None):
            signal.signal(signal.SIGTERM, other)

    asyncio.run(scenario())
    assert signal.getsignal(signal.SIGTERM) is other


def test_outside_of_the_main_thread(server):
    """Python allows no handlers there: nothing is done, and nothing fails."""
    failed = []

    async def scenario():
        with noticing_stop(lambda: None):
            pass

    def run():
        try:
            asyncio.run(scenario())
        except ValueError as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed
