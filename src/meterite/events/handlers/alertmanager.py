"""Alarms to a Prometheus Alertmanager, by its API v2 (``POST /api/v2/alerts``).

What this file guarantees: one alert a series that is outside, whichever limit it crossed, and one a metric that is
silent; the event that ends it resolves that very alert, since both have the same labels. Alertmanager forgets an alert
that isn't sent again, so each says until when it holds (``ends_after``). What has no end of its own, a late reading
outside or a dead delivery, holds for ``once_for``. What holds still is sent again each minute, as Prometheus does, so
that an Alertmanager that was started anew has it. By that it holds for four minutes: what ended while it was on its way
is over soon, whatever became of the resolve. An alert that Alertmanager has keeps the later end.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field

from meterite.events.handler import Kind, Seconds, several
from meterite.events.handlers.http import HttpHandler, HttpOptions
from meterite.events.handlers.words import details, title
from meterite.events.hooks import hookimpl
from meterite.model.event import EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meterite.model.event import Event

PATH: Final = "api/v2/alerts"
HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
REMIND_S: Final = 60.0
"""Prometheus's resend delay; what is sent again ends after four of them, as there."""
ALERTS_AT_ONCE: Final = 256

OUTSIDE: Final = "MeteriteOutsideLimits"
LATE: Final = "MeteriteLateReading"
SILENT: Final = "MeteriteSilent"
DEAD: Final = "MeteriteDeliveryDead"
_NAMES: Final[Mapping[str, str]] = {
    EventType.ABOVE_MAX: OUTSIDE,
    EventType.BELOW_MIN: OUTSIDE,
    EventType.CLEARED: OUTSIDE,
    EventType.SILENT: SILENT,
    EventType.RESUMED: SILENT,
    EventType.DEAD: DEAD,
}
_RESOLVES: Final = frozenset({EventType.CLEARED, EventType.RESUMED})
_LABEL: Final = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
_NOT_IN_LABEL: Final = re.compile("[^a-zA-Z0-9_]")
_OURS: Final = frozenset({"alertname", "org", "metric", "series", "handler"})


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    if not all(_LABEL.fullmatch(name) for name in labels):
        raise ValueError("must have names of letters, digits and underscores")
    if taken := sorted(_OURS & labels.keys()):
        raise ValueError(f"must not have {taken[0]}, which the alert itself has")
    return labels


class AlertmanagerOptions(HttpOptions):
    """``url`` is that of Alertmanager itself, with its prefix where it has one."""

    types: Annotated[frozenset[EventType], BeforeValidator(several), Field(min_length=1)] = frozenset(
        map(EventType, _NAMES)
    )
    ordered: bool = True
    labels: Annotated[dict[str, str], Field(max_length=32), AfterValidator(_check_labels)] = Field(
        default_factory=dict
    )
    ends_after: Annotated[Seconds, Field(gt=0)] = 30 * DAY_S
    once_for: Annotated[Seconds, Field(gt=0)] = HOUR_S


class Alertmanager(HttpHandler):
    """The kind ``alertmanager``."""

    remind_s = REMIND_S

    def __init__(self, options: AlertmanagerOptions, **outside: Any) -> None:
        super().__init__(options, path=PATH, **outside)
        self._labels = options.labels
        self._ends_after = timedelta(seconds=options.ends_after)
        self._once_for = timedelta(seconds=options.once_for)

    async def handle(self, event: Event) -> None:
        name = alert_name(event)
        if name is None:
            return
        labels = alert_labels(event, name, self._labels)
        alert = {"labels": labels, "annotations": _annotations(event), **self._times(event, name)}
        await self.post(msgspec.json.encode([alert]), {"content-type": "application/json"})

    async def remind(self, events: Sequence[Event], *, over: bool = False) -> None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        end = now if over else now + timedelta(seconds=4 * REMIND_S)
        for first in range(0, len(events), ALERTS_AT_ONCE):
            some = [self._again(event, end) for event in events[first : first + ALERTS_AT_ONCE]]
            await self.post(msgspec.json.encode(some), {"content-type": "application/json"})

    def _again(self, event: Event, end: datetime) -> dict[str, Any]:
        labels = alert_labels(event, _NAMES[event.type], self._labels)
        times = {"startsAt": event.time, "endsAt": end.isoformat()}
        return {"labels": labels, "annotations": _annotations(event), **times}

    def _times(self, event: Event, name: str) -> dict[str, str]:
        """An alert that ends leaves out its beginning: it is the one that Alertmanager has."""
        if event.type in _RESOLVES:
            return {"endsAt": event.time}
        now = datetime.fromtimestamp(self._clock(), UTC)
        end = now + (self._ends_after if name in {OUTSIDE, SILENT} else self._once_for)
        return {"startsAt": event.time, "endsAt": end.isoformat()}


def alert_name(event: Event) -> str | None:
    """None for what is no alarm."""
    return LATE if event.data.get("late") else _NAMES.get(event.type)


def alert_labels(event: Event, name: str, extra: Mapping[str, str]) -> dict[str, str]:
    """What makes it that alert. Labels whose names Alertmanager or others here don't allow are renamed; since two may
    then be called the same, ``series`` tells the series apart.
    """
    data = event.data
    labels: dict[str, str] = {"alertname": name, "org": event.org, **extra}
    if metric := data.get("metric"):
        labels["metric"] = metric["code"]
    if name == DEAD:
        labels["handler"] = data["handler"]
    for own, value in data.get("labels", {}).items():
        fitting = _fitting(own, labels)
        if fitting != own:
            labels["series"] = event.subject
        labels.setdefault(fitting, value)
    return labels


def _fitting(name: str, taken: Mapping[str, str]) -> str:
    plain = _NOT_IN_LABEL.sub("_", name)
    if not _LABEL.fullmatch(plain):
        plain = f"_{plain}"
    return f"label_{plain}" if plain in _OURS or plain in taken else plain


def _annotations(event: Event) -> dict[str, str]:
    return {"summary": title(event), "description": details(event), "type": event.type, "event": event.id}


@hookimpl
def meterite_handler_kinds() -> Mapping[str, Kind[Any]]:
    return {"alertmanager": Kind(AlertmanagerOptions, lambda options, _tools: Alertmanager(options))}
