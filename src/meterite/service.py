"""Everything that a worker runs, put together: the store, its threads, and the services on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meterite.catalog import Catalog
from meterite.event_log import EventLog
from meterite.lanes import Lanes
from meterite.model.errors import MeteriteError
from meterite.query.select import Selector
from meterite.query.summarizer import Summarizer
from meterite.recording.group import GroupCommit
from meterite.recording.recorder import Recorder
from meterite.storage.database import sqlite_path
from meterite.storage.store import SqliteStore
from meterite.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.settings import Settings
    from meterite.storage.interface import Append, Store


class Service:
    """Made once for each worker; opened after the fork, in the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._lanes = Lanes()
        self.store: Store = SqliteStore(
            sqlite_path(settings.database_url),
            cache_bytes=settings.cache_bytes,
            journal_rows_max=settings.journal_rows_max,
            events_keep_s=settings.events_keep_s(),
        )  # the one place that names a backend
        self.catalog = Catalog(self.store, self._lanes)
        self.events = EventLog(self.store, self._lanes)
        self._group = GroupCommit(self._commit, settings.queue_bytes_max)
        self.recorder = Recorder(self.store, self.catalog, self._group, self._lanes, self.store.clock)
        self.selector = Selector(self.store, self.catalog, self._lanes)
        self.summarizer = Summarizer(self.store, self.catalog, self._lanes)
        self._upkeep = Upkeep(self.store)
        self.cookie_secret = b""

    async def open(self) -> None:
        """Open or make the database. SchemaTooNewError, UnavailableError."""
        await self._lanes.write(self.store.open)
        self.cookie_secret = await self._lanes.write(self.store.cookie_secret)
        await self.catalog.refresh()
        self._upkeep.start()

    def _commit(self, appends: Sequence[Append]) -> None:
        self.store.commit(appends)
        self.events.wake()

    async def ready(self) -> list[str]:
        """What stands in the way of work; none when all is well."""
        try:
            return await self._lanes.read(self.store.problems)
        except MeteriteError as exc:
            return [exc.message]

    async def close(self) -> None:
        """After what is in flight is committed."""
        self.events.stop()
        await asyncio.to_thread(self._group.close)
        await asyncio.to_thread(self._lanes.close)
        await asyncio.to_thread(self._upkeep.stop)
        self.store.close()
