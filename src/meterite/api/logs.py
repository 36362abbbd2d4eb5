"""Structured logs, the request's id in every answer, and the access log.

Guaranteed: no token is written (addresses are redacted), what came from outside is escaped in every entry, and
an entry is one line of JSON, or of text on a terminal. The server's own access log is silent, whichever server
runs the app: the setting ``access_log`` alone decides, and what is written then is ours.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

from meterite.api.redact import Redactor, escape
from meterite.api.request_id import HEADER, request_id_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from structlog.typing import Processor

    from meterite.api.errors import Problems

LogFormat = Literal["auto", "json", "console"]

_ACCESS = "uvicorn.access"
_WITH_ADDRESSES = ("uvicorn.error", "uvicorn.asgi")
"""Name addresses, too: of WebSockets, and of everything at the level ``trace``."""


def configure_logs(log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Call once, at the start. Records of the standard library's ``meterite`` loggers come out alike."""
    out = stream or sys.stderr
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = (
        [structlog.dev.set_exc_info, escaped, _console(colors=out.isatty())]
        if console
        else [structlog.processors.format_exc_info, escaped, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    ours = logging.getLogger("meterite")
    ours.handlers[:] = [handler]
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _console(*, colors: bool) -> Processor:
    # The default shows the variables of each frame, the request's headers and so its token among them.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def govern_server_logs(api_key_name: str) -> None:
    """Call where the app is made: servers set their logs up before they load it, and ask them for each connection."""
    access = logging.getLogger(_ACCESS)
    access.handlers = []  # a new list: gunicorn's worker shares its own
    access.propagate = False
    redacted = _Redacted(Redactor(api_key_name))
    for name in _WITH_ADDRESSES:
        logger = logging.getLogger(name)
        for before in [one for one in logger.filters if isinstance(one, _Redacted)]:
            logger.removeFilter(before)
        logger.addFilter(redacted)


class _Redacted(logging.Filter):
    """Keeps every record, and takes tokens out of the addresses among its arguments."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(self._argument, record.args))
        return True

    def _argument(self, argument: object) -> object:
        if isinstance(argument, str) and "?" in argument:
            return self._redactor.url(argument)
        if isinstance(argument, dict) and argument.get("query_string"):
            query = bytes(argument["query_string"]).decode("latin-1")
            return {**argument, "query_string": self._redactor.url("?" + query)[1:]}
        return argument


def escaped(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: texts without what a terminal would obey. A traceback keeps its lines."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = "\n".join(map(escape, value.split("\n"))) if key == "exception" else escape(value)
    return entry


class RequestId:
    """ASGI middleware: every answer, and every entry written meanwhile, names the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0] != HEADER]
                message["headers"] = [*headers, (HEADER, request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, sending)


class AccessLog:
    """ASGI middleware: one entry a request. Put in only where the setting asks for it."""

    def __init__(self, app: ASGIApp, problems: Problems) -> None:
        self._app = app
        self._problems = problems
        self._log = structlog.get_logger("meterite.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, size = 0, 0
        started_s = time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            self.write(scope, status, size, started_s)

    def write(self, scope: Scope, status: int, size: int, started_s: float) -> None:
        """The entry of a request that is over; ``started_s`` is of ``time.perf_counter``."""
        self._log.info(
            "request",
            method=scope["method"],
            url=self._problems.instance(scope),
            status=status,
            bytes=size,
            client=(scope.get("client") or ("",))[0],
            seconds=round(time.perf_counter() - started_s, 6),
            request_id=request_id_of(scope),
        )
