"""All listeners of the settings, in one worker at a time.

What this file guarantees: of several workers one listens, which alone can add up StatsD's counters; when it ends,
however it ends, another takes over within :data:`TURN_S`. A port that can't be had stops the start with one line. When
the listeners close, nothing more is read, and what was read is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from meterite.listener_setting import cant_listen
from meterite.listeners.intake import Intake
from meterite.listeners.keeper import Keeper, Record, Tally
from meterite.listeners.statsd import Intervals, UdpListener
from meterite.listeners.tcp import TcpListener, frames, lines
from meterite.model.errors import SettingsError
from meterite.wire.graphite import decode_graphite, decode_pickles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from meterite.listener_setting import ListenerSetting
    from meterite.model.columns import Decoded

TURN_S: Final = 1.0
TELLING_S: Final = 1.0
"""So often is looked whether something refused waits to be told; how often it may be is the tally's."""
_READINGS_MAX: Final = 2**53
"""Bytes bound what is decoded at once."""

log = structlog.get_logger("meterite.listeners")


class _Part(Protocol):
    async def close(self) -> None: ...


class Listeners:
    """Opened after the service, closed before it. ``lock`` is a file that the workers share."""

    def __init__(
        self,
        settings: Sequence[ListenerSetting],
        record: Record,
        lock: Path,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._settings = settings
        self._record = record
        self._lock = lock
        self._now_us = now_us
        self._fd = -1
        self._parts: list[_Part] = []
        self._tallies: list[Tally] = []
        self._waiting: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """SettingsError where a port can't be had."""
        if not self._settings:
            return
        if self._have_turn():
            try:
                await self._listen()
            except SettingsError:
                await self.close()
                raise
        else:
            self._waiting = asyncio.create_task(self._wait_for_turn())

    async def close(self) -> None:
        await _end(self._waiting)
        await self._close_parts()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _have_turn(self) -> bool:
        if self._fd < 0:
            self._fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    async def _wait_for_turn(self) -> None:
        while True:
            await asyncio.sleep(TURN_S)
            if not self._have_turn():
                continue
            try:
                await self._listen()
            except SettingsError as exc:
                log.warning("listener.put_off", reason=exc.message)
                await self._close_parts()
            else:
                return

    async def _close_parts(self) -> None:
        for part in reversed(self._parts):  # who reads comes after what it feeds, and closes first
            await part.close()
        await _end(self._telling)
        for tally in self._tallies:
            tally.tell(now=True)
        self._parts, self._tallies = [], []

    async def _tell(self) -> None:
        """What was refused last is told, too, where nothing is refused after it."""
        while True:
            await asyncio.sleep(TELLING_S)
            for tally in self._tallies:
                tally.tell()

    async def _listen(self) -> None:
        self._telling = asyncio.create_task(self._tell())
        for setting in self._settings:
            tally = Tally(setting)
            self._tallies.append(tally)
            keeper = Keeper(self._record, setting.org, tally)
            listener = self._made(setting, tally, keeper)
            try:
                await listener.open()
            except OSError as exc:
                raise cant_listen(setting, exc) from exc
            log.info(
                "listener.open", kind=setting.kind, host=setting.host, port=setting.port, org=setting.org
            )

    def _made(self, setting: ListenerSetting, tally: Tally, keeper: Keeper) -> TcpListener | UdpListener:
        made: TcpListener | UdpListener
        if setting.kind.startswith("statsd"):
            intervals = Intervals(keeper, tally, setting.flush_s, self._now_us)

            async def take(part: bytes) -> None:
                intervals.take(part)

            self._parts.append(intervals)
            if setting.kind == "statsd":
                made = UdpListener(setting, tally, intervals.take)
            else:
                made = TcpListener(setting, tally, lines, take)
        else:
            pickled = setting.kind == "graphite-pickle"
            intake = Intake(_pickles if pickled else _lines, keeper, setting.flush_s)
            self._parts.append(intake)
            made = TcpListener(setting, tally, frames if pickled else lines, intake.put)
        self._parts.append(made)
        return made


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _lines(parts: Sequence[bytes]) -> Decoded:
    return decode_graphite(b"".join(parts), readings_max=_READINGS_MAX)


def _pickles(parts: Sequence[bytes]) -> Decoded:
    return decode_pickles(parts, readings_max=_READINGS_MAX)
