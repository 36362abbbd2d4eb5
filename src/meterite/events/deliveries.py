"""All that delivers events in one worker: plug-ins found, handlers made, the dispatcher started and closed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from meterite.events.configure import Configured, make_handlers
from meterite.events.courier import Clock
from meterite.events.dispatch import Dispatcher
from meterite.events.handler import Tools
from meterite.events.plugins import Plugins, load_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from meterite.events.handler import Record
    from meterite.model.columns import Labels
    from meterite.settings import Settings
    from meterite.storage.interface import Store

log = structlog.get_logger("meterite.events")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where handlers come from, as the settings say. ``handlers`` are in the clear: not to be shown."""

    handlers: Sequence[Mapping[str, Any]] = ()
    paths: Sequence[str] = ()
    directory: Path | None = None
    strict: bool = False

    def __repr__(self) -> str:
        return f"Sources({len(self.handlers)} handlers)"

    @staticmethod
    def of(settings: Settings) -> Sources:
        handlers = [handler.in_clear() for handler in settings.handlers]
        return Sources(handlers, settings.plugins, settings.plugins_dir, settings.strict_plugins)

    def load(self) -> Plugins:
        """SettingsError."""
        shipped = bool(self.handlers)  # who has none needn't wait for what they import
        return load_plugins(self.paths, self.directory, strict=self.strict, shipped=shipped)


async def _no_record(org: str, code: str, value: float, at_us: int | None, labels: Labels) -> None:
    raise NotImplementedError


def check_sources(sources: Sources) -> None:
    """Whether handlers can be made of this. SettingsError where not."""
    make_handlers(sources.handlers, sources.load(), Tools(_no_record))


class Deliveries:
    """One for each worker; ``wake`` may be called at any time, from any thread."""

    def __init__(self, store: Store, sources: Sources) -> None:
        self._store = store
        self._sources = sources
        self._plugins: Plugins | None = None
        self._handlers: list[Configured] = []
        self._dispatcher: Dispatcher | None = None

    def load(self, record: Record) -> None:
        """Runs plug-ins' code, once; before :meth:`start`. SettingsError."""
        if self._plugins is not None:
            return
        self._plugins = self._sources.load()
        self._handlers = make_handlers(self._sources.handlers, self._plugins, Tools(record))
        for found in self._plugins.failed:
            log.warning("plugin.failed", plugin=found.name, origin=found.origin, reason=found.error)

    def start(self) -> None:
        """Blocks. Once the store is open."""
        assert self._plugins is not None, "load comes first"
        clock = Clock(time.monotonic, self._store.clock)
        dispatcher = Dispatcher(self._store.outbox, self._store.events, self._handlers, self._plugins, clock)
        dispatcher.start()
        self._dispatcher = dispatcher

    def wake(self) -> None:
        """There may be new events."""
        if self._dispatcher is not None:
            self._dispatcher.wake()

    def stop(self) -> None:
        """Begin to close, without waiting for it: what is delivered later is delivered by another process."""
        if self._dispatcher is not None:
            self._dispatcher.stop()

    def close(self) -> None:
        """Blocks, for a bounded time; before the store is closed, and while readings can still be recorded."""
        if self._dispatcher is not None:
            self._dispatcher.close()
