"""``log``: one line a delivered event, in the service's own log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import structlog

from meterite.events.hooks import Event, Handler, HandlerOptions, Kind, Tools, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping


class LogOptions(HandlerOptions):
    """``level`` is that of the entries."""

    level: Literal["info", "warning", "error"] = "info"


class LogHandler(Handler):
    """Writes ``event`` entries, with the event's attributes as fields."""

    def __init__(self, options: LogOptions) -> None:
        self._name = options.name
        self._write = getattr(structlog.get_logger("meterite.events"), options.level)

    async def handle(self, event: Event) -> None:
        self._write(
            "event",
            handler=self._name,
            id=event.id,
            type=event.type,
            org=event.org,
            subject=event.subject,
            time=event.time,
            data=event.data,
        )


def _make(options: LogOptions, _tools: Tools) -> Handler:
    return LogHandler(options)


@hookimpl
def meterite_handler_kinds() -> Mapping[str, Kind[Any]]:
    return {"log": Kind(LogOptions, _make)}
