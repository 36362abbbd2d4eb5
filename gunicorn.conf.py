"""Settings of ``gunicorn app.main:app``: several processes, each its own event loop, one database file."""

from __future__ import annotations

import os

from uvicorn_worker import UvicornWorker


class MeteriteWorker(UvicornWorker):
    """Uvicorn on uvloop and httptools, asked for by name: a missing one is an error, not a slower server."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it as a plain dict on the class
        "loop": "uvloop",
        "http": "httptools",
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
