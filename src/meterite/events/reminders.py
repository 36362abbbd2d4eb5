"""Reminding a handler of what holds, where its receiver keeps that in memory only.

What this file guarantees: one of all workers reminds, once in the handler's ``remind_s`` at most, and where it dies,
another within that time; of all that holds, however much, in calls one after the other with a bounded number of events
each; nothing is read while nothing holds and no event came; what ended while it was being told is told to be over.
What holds is read from the store each time, so it is true in every worker, and after a restart. All of it runs in the
dispatcher's thread, but for the call itself, which runs in the handler's room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from meterite.model.event import Event, EventType, parse_event_id
from meterite.model.event_row import source_of, subject_of
from meterite.model.limits import AlarmState
from meterite.model.number import plain_number
from meterite.model.time import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meterite.events.configure import Configured
    from meterite.events.courier import Clock
    from meterite.events.rooms import Room
    from meterite.storage.event_interface import Alert, AlertReading, Events

HOLDING_MAX: Final = 10_000
"""So much is a handler reminded of in one call; of more, in several."""

Key = tuple[str, int, bool]
"""Org, series, and whether it is silent."""
Holding = dict[Key, Event]


class Reminders:
    """Of one handler. ``mine`` says whether it is this worker that reminds; ``wake`` has the dispatcher look again."""

    def __init__(
        self,
        configured: Configured,
        room: Room,
        events: Events,
        clock: Clock,
        *,
        mine: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._interest = configured.interest
        self._every_s = configured.handler.remind_s
        self._room = room
        self._events = events
        self._clock = clock
        self._mine = mine
        self._wake = wake
        self._due_s = clock.monotonic() + (self._every_s or 0.0)
        self._idle_at: str | None = None
        """The newest event when nothing held."""
        self._pages: Iterator[Holding] = iter(())
        self._told: Holding = {}
        """The page at hand."""
        self._ended = False
        """The call came to its end."""

    def look(self, newest: str) -> None:
        """Remind if it is time to; ``newest`` is the cursor behind all events."""
        if self._every_s is None:
            return
        if self._ended:
            self._ended = False
            self._recall()
            self._tell_next()
        now_s = self._clock.monotonic()
        if now_s < self._due_s or self._told:
            return
        self._due_s = now_s + self._every_s
        if newest == self._idle_at or not self._mine():
            return
        self._pages = self._all_pages()
        self._tell_next()
        self._idle_at = None if self._told else newest

    def _tell_next(self) -> None:
        self._told = next(self._pages, {})
        if self._told:
            self._room.remind(list(self._told.values()), self._done, over=False)

    def _done(self) -> None:
        """From the room's thread."""
        self._ended = True
        self._wake()

    def _recall(self) -> None:
        """What ended meanwhile may have been told to be over before it was told to hold."""
        told, self._told = self._told, {}
        series: dict[str, list[int]] = {}
        for org, one, _ in told:
            series.setdefault(org, []).append(one)
        holding = {key for org, some in series.items() for key, _ in self._holding(org, min(some), max(some))}
        over = [event for key, event in told.items() if key not in holding]
        if over:
            self._room.remind(over, _nothing, over=True)

    def _all_pages(self) -> Iterator[Holding]:
        """Read when they are asked for: what came since the one before may be among them."""
        page: Holding = {}
        for org in self._events.alarmed():
            if self._interest.takes_org(org):
                for key, event in self._holding(org):
                    page[key] = event
                    if len(page) >= HOLDING_MAX:
                        yield page
                        page = {}
        if page:
            yield page

    def _holding(self, org: str, first: int = 0, last: int | None = None) -> Iterator[tuple[Key, Event]]:
        """What the handler is interested in, of series from ``first`` to ``last``."""
        after = first - 1
        while True:
            found = self._events.alerts(org, after=after, limit=HOLDING_MAX)
            for alert in found:
                if last is not None and alert.series > last:
                    return
                event = event_of(org, alert)
                if event is not None and self._interest.takes(org, event.type, alert.metric.code):
                    yield (org, alert.series, alert.silent), event
            if len(found) < HOLDING_MAX:
                return
            after = found[-1].series


def event_of(org: str, alert: Alert) -> Event | None:
    """As the event that told of it, as far as that is known; None where nothing was told."""
    reading, metric = alert.reading, alert.metric
    data: dict[str, Any] = {
        "metric": {"id": alert.metric_id, "code": metric.code, "name": metric.name, "unit": metric.unit},
        "since": format_rfc3339(alert.since_us),
    }
    if alert.silent:
        return _event(org, EventType.SILENT, metric.code, "", data["since"], data)
    if reading is None:
        return None
    type_ = EventType.ABOVE_MAX if alert.state == AlarmState.ABOVE else EventType.BELOW_MIN
    data |= {"labels": dict(alert.labels), "late": False, **_readings(reading)}
    parsed = parse_event_id(reading.event_id)
    assert parsed is not None
    time = format_rfc3339(parsed[0] * 1000)
    return _event(org, type_, subject_of(metric.code, alert.labels), reading.event_id, time, data)


def _readings(reading: AlertReading) -> dict[str, Any]:
    def told(value: float, at_us: int) -> dict[str, Any]:
        return {"reading": plain_number(value), "reading_at": format_rfc3339(at_us)}

    low, high = plain_number(reading.low), plain_number(reading.high)
    return {
        "limits": {"min_reading": low, "max_reading": high},
        "readings": {
            "last": told(reading.last, reading.last_at_us),
            "extreme": told(reading.extreme, reading.extreme_at_us),
        },
    }


def _event(org: str, type_: str, subject: str, id_: str, time: str, data: dict[str, Any]) -> Event:
    return Event(
        id=id_, type=str(type_), source=source_of(org), subject=subject, time=time, org=org, data=data
    )


def _nothing() -> None:
    pass
