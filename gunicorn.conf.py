"""Settings of ``gunicorn app.main:app``: several processes, each its own event loop, one database file.

What the operator can mend (a setting, the database's file) is told in one line before a worker is started: gunicorn
would start one that fails again and again.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from uvicorn_worker import UvicornWorker


class MeteriteWorker(UvicornWorker):
    """Uvicorn on uvloop and httptools, with the fast door before it, asked for by name.

    One that is missing is an error, not a slower server.
    """

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it as a plain dict on the class
        "loop": "uvloop",
        "http": "meterite.api.fast_door:FastDoor",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 8,
    }


bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_CONCURRENCY") or 2)
worker_class = MeteriteWorker
# Connections to the database are opened after the fork; a preloaded app could open them before it.
preload_app = False
# A second more than the workers take for what is in flight, so that the last commit isn't cut off.
graceful_timeout = 9
# gunicornc isn't needed, and its socket would be made in the home of whoever runs this.
control_socket_disable = True


def on_starting(_server: Any) -> None:
    """Before anything is bound."""
    importlib.import_module("app")  # finds the package where it isn't installed
    from meterite.cli import first_start

    if not first_start.is_first(Path.cwd(), os.environ):
        _check()


def when_ready(server: Any) -> None:
    """Bound, and no worker started yet: a first start knows its address."""
    from meterite.cli import first_start, listening

    if first_start.is_first(Path.cwd(), os.environ):
        _check(listening.of_gunicorn(server.cfg))


def post_worker_init(worker: Any) -> None:
    """From here on a worker looks by itself whether its parent is there; it may have gone while the app was loaded."""
    if os.getppid() != worker.ppid:
        sys.exit(0)


def _check(bound: Any = None) -> None:
    from meterite.cli import first_start, starting

    try:
        first_start.ensure_settings(bound)
        starting.check()
    except starting.MENDABLE as exc:
        starting.tell(exc)
        raise SystemExit(starting.UNUSABLE) from None
