"""The process that starts and minds the workers, where this one is a worker: one whose parent is gone stops by itself.

Guaranteed: a worker without its parent is told to stop, as by SIGTERM, within about a second, so that nobody's old
workers keep the port; a server that is alone goes on, whatever became of the shell that it was started from.

It is looked for once a second. Not chosen: the kernel's signal at a parent's death, which Linux alone has, and which
comes when the thread ends that started the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOK_S: Final = 1.0
GUNICORN: Final = "gunicorn.arbiter"
"""Its workers are forks of it."""

log = structlog.get_logger(__name__)


def is_worker() -> bool:
    """Of uvicorn (``meterite serve --workers``, ``--reload``), which starts its own by multiprocessing, or gunicorn."""
    return multiprocessing.parent_process() is not None or GUNICORN in sys.modules


def parent_is_alive() -> Callable[[], bool] | None:
    """What answers it, to be asked for after the fork; None where there is no parent that minds this process."""
    if not is_worker():
        return None
    parent = multiprocessing.parent_process()
    if parent is not None:
        return parent.is_alive
    number = os.getppid()
    return lambda: os.getppid() == number


@contextlib.contextmanager
def stopping_without_parent() -> Iterator[None]:
    """While this lasts, a worker is sent SIGTERM once its parent is gone. To be entered in the event loop."""
    is_alive = parent_is_alive()
    if is_alive is None:
        yield
        return
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if is_alive():
            timer = loop.call_later(LOOK_S, look)
        else:
            log.warning("parent.gone")
            os.kill(os.getpid(), signal.SIGTERM)

    timer = loop.call_later(LOOK_S, look)
    try:
        yield
    finally:
        timer.cancel()
