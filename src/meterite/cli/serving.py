"""The server process.

Guaranteed: SIGTERM stops accepting, lets what is in flight finish and commit, and ends with 0 within
10 s; a setting or a file that can't be used is one line on stderr and no traceback, with exit status 2
(3 where one of several workers finds it: their parent learns only that one didn't start).
"""

from __future__ import annotations

import copy
import logging
import os
import re
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from meterite.model.errors import MeteriteError

if TYPE_CHECKING:
    from types import FrameType

APP = "meterite.app:app"
HTTP = "meterite.api.fast_door:FastDoor"  # uvicorn's httptools, with a door of our own before it
IN_FLIGHT_SECONDS = 8  # of the 10 s that a stop may take; the rest is for the last commit
LEFT_BEHIND_SECONDS = 0.5
HUNG_SECONDS = (
    10  # a worker on a machine that is very busy was killed for 5; so long a stop may wait for a hung one
)
STARTUP_FAILURE = 3  # uvicorn's exit status where the app didn't start

_OURS = re.compile(rf"{re.escape(MeteriteError.__module__)}\.\w+: (.*)")


class StartErrors(logging.Filter):
    """Turns the traceback of an unusable setting or file into its sentence, and remembers it."""

    seen = False
    failed = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record; shorten those that a mistake of the operator's caused."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, MeteriteError):
            record.msg, record.args = error.message, ()
            record.exc_info = record.exc_text = None
            StartErrors.seen = True
            return True
        text = str(record.msg)
        if "failed to start, stopping the parent process" in text:
            StartErrors.failed = True  # uvicorn's parent would end with 0
        last = _OURS.fullmatch(text.rstrip().rpartition("\n")[2])
        if text.startswith("Traceback") and last:
            record.msg, record.args = last.group(1), ()
            StartErrors.seen = True
        return True


def log_config() -> dict[str, Any]:
    """Uvicorn's own logging, with start errors as one line."""
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["filters"] = {"start_errors": {"()": f"{__name__}.StartErrors"}}
    config["handlers"]["default"]["filters"] = ["start_errors"]
    return config


def _stop(_signum: int, _frame: FrameType | None) -> None:
    """Uvicorn raises SIGTERM once more after shutting down; this makes that, and an early one, a 0."""
    raise SystemExit(0)


def serve(*, host: str, port: int, workers: int, reload: bool) -> None:
    """Serve until SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        _serve(host=host, port=port, workers=workers, reload=reload)
    except SystemExit as stopped:
        _leave(stopped.code)
        raise
    _leave(0)


def _leave(status: str | int | None) -> None:
    """A thread that a plug-in left behind doesn't keep the process: Python would wait for it without end.

    Also for a daemon's, where it belongs to a ThreadPoolExecutor.
    """
    left = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    until_s = time.monotonic() + LEFT_BEHIND_SECONDS
    for thread in left:
        thread.join(max(0.0, until_s - time.monotonic()))
    if not any(thread.is_alive() for thread in left):
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _serve(*, host: str, port: int, workers: int, reload: bool) -> None:
    import uvicorn

    try:
        uvicorn.run(
            APP,
            host=host,
            port=port,
            workers=workers,
            reload=reload,
            loop="uvloop",
            http=HTTP,
            lifespan="on",
            log_config=log_config(),
            access_log=False,  # it would repeat tokens in addresses; ours does not
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=IN_FLIGHT_SECONDS,
            timeout_worker_healthcheck=HUNG_SECONDS,
        )
    except SystemExit as stopped:
        if stopped.code == STARTUP_FAILURE and StartErrors.seen:
            sys.exit(2)
        raise
    if StartErrors.failed:
        sys.exit(STARTUP_FAILURE)
