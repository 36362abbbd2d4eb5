"""The way from a listener to the store, and what there is to tell of what didn't get there.

What this file guarantees: readings are recorded as a request's are, the good ones of them; where the service says "not
now", they are tried again until it takes them, or the listener closes; nobody is answered, so what was refused is
counted and told in the log, a line in some seconds however much it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from meterite.model.errors import MeteriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meterite.listener_setting import ListenerSetting
    from meterite.model.columns import Decoded, Rejected
    from meterite.recording.receipts import Receipt

TOLD_EVERY_S: Final = 10.0
AGAIN_AFTER_S: Final = 1.0

log = structlog.get_logger("meterite.listeners")


class Record(Protocol):
    """The recorder's way of many readings."""

    async def __call__(self, org: str, decoded: Decoded, *, partial: bool) -> Receipt: ...


class Tally:
    """What was refused, by why; the first reason of each is told with it."""

    def __init__(self, setting: ListenerSetting, clock: Callable[[], float] = time.monotonic) -> None:
        self._named = {"kind": setting.kind, "port": setting.port, "org": setting.org}
        self._clock = clock
        self._told_at = clock() - TOLD_EVERY_S
        self.counts: dict[str, int] = {}
        self._reasons: dict[str, str] = {}

    def add(self, what: str, reason: str, count: int = 1) -> None:
        """``what`` is of a few words that don't change."""
        self.counts[what] = self.counts.get(what, 0) + count
        self._reasons.setdefault(what, reason)
        self.tell()

    def reject(self, rejected: Sequence[Rejected]) -> None:
        for each in rejected:
            self.add("rejected", f"{each.code}: {each.reason}")

    def tell(self, *, now: bool = False) -> None:
        """A line, unless there was one lately or there is nothing to tell."""
        if not self.counts or not (now or self._clock() - self._told_at >= TOLD_EVERY_S):
            return
        log.warning("listener.refused", **self._named, **self.counts, reasons=list(self._reasons.values()))
        self.counts, self._reasons, self._told_at = {}, {}, self._clock()


class Keeper:
    """Records for one listener."""

    def __init__(self, record: Record, org: str, tally: Tally) -> None:
        self._record = record
        self._org = org
        self._tally = tally
        self._closing = asyncio.Event()

    def close(self) -> None:
        """What is to be kept from now on is tried once."""
        self._closing.set()

    async def keep(self, decode: Callable[[], Decoded]) -> None:
        """Returns when it is on disk, or will never be."""
        try:
            decoded = decode()
            while not await self._kept(decoded):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), AGAIN_AFTER_S)
        except Exception:
            log.exception("listener.failed", org=self._org)
            self._tally.add("lost", "a mistake of ours")

    async def _kept(self, decoded: Decoded) -> bool:
        """Whether there is nothing more to do for it."""
        try:
            receipt = await self._record(self._org, decoded, partial=True)
        except MeteriteError as exc:
            again = exc.again and not self._closing.is_set()
            what, count = ("delayed", 1) if again else ("lost", len(decoded))
            self._tally.add(what, f"{exc.code}: {exc.message}", count)
            return not again
        self._tally.reject(receipt.rejected)
        return True
