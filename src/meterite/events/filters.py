"""What plug-ins say on whether an event goes to a handler.

What this file guarantees: a filter that raises, blocks or takes longer than :data:`OPINION_S` has no opinion, and an
event is left out only where one clearly said False. Each filter has a thread of its own; while it is stuck, it isn't
asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import structlog

from meterite.model.one_line import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meterite.model.event import Event

OPINION_S: Final = 1.0

log = structlog.get_logger("meterite.events")


class Filter:
    """One plug-in's. ``run`` takes ``event`` and ``handler``."""

    def __init__(self, plugin: str, run: Callable[..., Any]) -> None:
        self.plugin = plugin
        self._run = run
        self._questions: SimpleQueue[tuple[Event, str, Future[bool]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._busy_since_s: float | None = None

    def ask(self, event: Event, handler: str) -> Future[bool]:
        """Whether it objects. Never fails."""
        answer: Future[bool] = Future()
        since = self._busy_since_s
        if since is not None and time.monotonic() - since > OPINION_S:
            answer.set_result(False)
            return answer
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="meterite-filter", daemon=True)
                self._thread.start()
        self._questions.put((event, handler, answer))
        return answer

    def too_slow(self) -> None:
        log.warning("filter.too_slow", plugin=self.plugin, seconds=OPINION_S)

    def _work(self) -> None:
        while True:
            event, handler, answer = self._questions.get()
            if not answer.set_running_or_notify_cancel():
                continue
            self._busy_since_s = time.monotonic()
            objects = False
            try:
                objects = self._run(event=event, handler=handler) is False
            except BaseException as exc:  # noqa: BLE001 - nothing that a plug-in raises may go further
                log.warning("filter.raised", plugin=self.plugin, reason=one_line(exc))
            self._busy_since_s = None
            answer.set_result(objects)


class Filters:
    """All of them, asked one after the other."""

    def __init__(self, filters: Sequence[Filter] = ()) -> None:
        self._filters = filters

    async def objection(self, event: Event, handler: str) -> str:
        """Who objects, as a note on the delivery; empty where nobody does."""
        for each in self._filters:
            try:
                async with asyncio.timeout(OPINION_S):
                    objects = await asyncio.wrap_future(each.ask(event, handler))
            except TimeoutError:
                each.too_slow()
                continue
            if objects:
                return _note(each)
        return ""

    def objection_now(self, event: Event, handler: str) -> str:
        """The same, waited for in a thread."""
        for each in self._filters:
            answer = each.ask(event, handler)
            try:
                objects = answer.result(OPINION_S)
            except TimeoutError:
                answer.cancel()
                each.too_slow()
                continue
            if objects:
                return _note(each)
        return ""


def _note(found: Filter) -> str:
    return f"left out by the filter of the plug-in {found.plugin}"
