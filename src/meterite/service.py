"""Everything that a worker runs, put together: the store, its threads, and the services on it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from meterite.catalog import Catalog
from meterite.event_log import EventLog
from meterite.events.deliveries import Deliveries, Sources
from meterite.lanes import Lanes
from meterite.model.errors import MeteriteError
from meterite.query.select import Selector
from meterite.query.summarizer import Summarizer
from meterite.recording.admission import Rules, TimeRules
from meterite.recording.group import GroupCommit
from meterite.recording.recorder import Recorder
from meterite.storage.database import sqlite_path
from meterite.storage.file import prepare_file, shown
from meterite.storage.interface import SeriesLimits
from meterite.storage.store import SqliteStore
from meterite.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.model.columns import Labels
    from meterite.settings import Settings
    from meterite.storage.interface import Append, Store


log = structlog.get_logger("meterite.service")


class Service:
    """Made once for each worker; opened after the fork, in the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.lanes = Lanes()
        self._path = sqlite_path(settings.database_url)
        self.store: Store = SqliteStore(
            self._path,
            cache_bytes=settings.cache_bytes,
            journal_rows_max=settings.journal_rows_max,
            events_keep_s=settings.events_keep_s(),
        )  # the one place that names a backend
        limits = SeriesLimits(
            org_series_max=settings.org_series_max, metric_series_max=settings.metric_series_max
        )
        self.catalog = Catalog(self.store, self.lanes, limits)
        self.events = EventLog(self.store, self.lanes)
        self._group = GroupCommit(self._commit, settings.queue_bytes_max)
        rules = Rules(
            times=TimeRules(future_us_max=settings.future_us_max(), trusted=settings.trust_timestamps),
            auto_create=settings.auto_create,
        )
        self.recorder = Recorder(self.store, self.catalog, self._group, self.lanes, self.store.clock, rules)
        self.selector = Selector(self.store, self.catalog, self.lanes)
        self.summarizer = Summarizer(self.store, self.catalog, self.lanes)
        self._deliveries = Deliveries(self.store, Sources.of(settings))
        self._upkeep = Upkeep(self.store)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.cookie_secret = b""

    def beside(self, name: str) -> Path:
        """A file of this name, which belongs to the database and lies where it lies."""
        return Path(f"{self._path}.{name}")

    def load(self) -> None:
        """Find plug-ins and make handlers, where nobody did before :meth:`open`. Runs their code. SettingsError."""
        self._deliveries.load(self._record)

    async def open(self) -> None:
        """Open or make the database. SettingsError, SchemaTooNewError, UnavailableError."""
        self._loop = asyncio.get_running_loop()
        self.load()
        await self.lanes.write(prepare_file, self._path)
        if await self.lanes.write(self.store.open):
            log.info("database.made", path=shown(self._path))
        self.cookie_secret = await self.lanes.write(self.store.cookie_secret)
        await self.catalog.refresh()
        self._upkeep.start()
        await self.lanes.write(self._deliveries.start)

    def _commit(self, appends: Sequence[Append]) -> None:
        self.store.commit(appends)
        self.events.wake()
        self._deliveries.wake()

    async def _record(self, org: str, code: str, value: float, at_us: int | None, labels: Labels) -> None:
        """For handlers, which have event loops of their own."""
        assert self._loop is not None
        recording = self.recorder.record_one(org, code, value, at_us, labels)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(recording, self._loop))

    async def ready(self) -> list[str]:
        """What stands in the way of work; none when all is well."""
        try:
            return await self.lanes.read(self.store.problems)
        except MeteriteError as exc:
            return [exc.message]

    def stop(self) -> None:
        """The server is about to stop: end streams, deliver no more. Requests go on until :meth:`close`."""
        self.events.stop()
        self._deliveries.stop()

    async def close(self) -> None:
        """After what is in flight is committed."""
        self.stop()
        await asyncio.to_thread(self._deliveries.close)  # while handlers may still record
        await asyncio.to_thread(self._group.close)
        await asyncio.to_thread(self.lanes.close)
        await asyncio.to_thread(self._upkeep.stop)
        self.store.close()
