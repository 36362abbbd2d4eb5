"""The door for handlers from outside: what a plug-in may implement. Public.

    from meterite.events.hooks import Event, hookimpl

    @hookimpl
    def meterite_handle_event(event: Event) -> None: ...

What this file guarantees: within one :data:`HOOKS_VERSION` nothing here is taken away or changes its meaning; hooks and
arguments may be added. An implementation names the arguments that it wants, and may leave out the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

from meterite.events.handler import (
    Handler,
    HandlerOptions,
    Kind,
    Record,
    Refused,
    Retry,
    Seconds,
    Tools,
)
from meterite.model.event import Event, EventType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    import typer

__all__ = [
    "HOOKS_VERSION",
    "PROJECT",
    "Event",
    "EventType",
    "Handler",
    "HandlerOptions",
    "Kind",
    "Record",
    "Refused",
    "Retry",
    "Seconds",
    "Tools",
    "hookimpl",
]

PROJECT: Final = "meterite"
HOOKS_VERSION: Final = 1

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """The hooks. All are optional."""

    @hookspec
    def meterite_handle_event(self, event: Event) -> Awaitable[None] | None:
        """Told every event, at least once; a function, run in a thread, or a coroutine function.

        Returns: delivered. Raises Refused: never again. Raises anything else, or takes too long: tried again later.
        Each plug-in has its own deliveries, under the name ``plugin:<its name>``.
        """

    @hookspec
    def meterite_filter_event(self, event: Event, handler: str) -> bool | None:
        """False keeps the event from the handler of that name; None and True have no opinion.

        A function, asked before each delivery. Where it raises or takes longer than a second, it has no opinion.
        """

    @hookspec
    def meterite_handler_kinds(self) -> Mapping[str, Kind[Any]]:
        """Kinds of handlers that the setting ``handlers`` may name, by their names."""
        return {}

    @hookspec
    def meterite_register_cli(self, cli: typer.Typer) -> None:
        """Adds commands to ``meterite``."""

    @hookspec
    def meterite_startup(self) -> None:
        """Called once in every worker, before the first event is delivered."""

    @hookspec
    def meterite_shutdown(self) -> None:
        """Called once in every worker, after its last event was delivered. Most of a second is what it has."""
