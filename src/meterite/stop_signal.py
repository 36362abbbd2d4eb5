"""Notices that the server is about to stop, before the server says so.

A server tells the app when all requests have ended; streams end only when they are told. So the app listens to the
signals beside the server, which gets them as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def noticing_stop(then: Callable[[], None]) -> Iterator[None]:
    """``then`` is called in the event loop once one of the signals comes. To be entered in the event loop.

    A signal that nobody handles ends the process at once, and is left alone; so are all of them outside of the main
    thread, where Python allows none.
    """
    loop = asyncio.get_running_loop()
    restored: list[Callable[[], object]] = []
    if threading.current_thread() is threading.main_thread():
        restored = [undo for number in SIGNALS for undo in _listen(number, loop, then)]
    try:
        yield
    finally:
        for undo in restored:
            undo()


def _listen(
    number: signal.Signals, loop: asyncio.AbstractEventLoop, then: Callable[[], None]
) -> Iterator[Callable[[], None]]:
    before = signal.getsignal(number)
    if not callable(before):
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(then)
        before(signum, frame)

    def undo() -> None:
        if signal.getsignal(number) is handle:
            signal.signal(number, before)

    signal.signal(number, handle)
    yield undo
