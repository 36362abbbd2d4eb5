"""The events of one commit and org, as columns: what the store keeps, what filters look at, what events are made of.

What this file guarantees: an event made from a row is the same for ever, whatever became of its metric, since the row
says what the metric was called when it was committed. A series keeps its labels as long as there are events of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np

from meterite.model.event import TYPE_BITS, Event, EventPlace, event_id
from meterite.model.limits import LATE, TIME_NONE, TRANSITION, AlarmState, kinds_of
from meterite.model.metric import SERIES_ORDINAL_BITS
from meterite.model.number import plain_number
from meterite.model.time import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from meterite.model.columns import Labels, type_i64

EVENT_ROW_EVENTS_MAX: Final = 1 << 16
_TYPES: Final = {bit: type_ for type_, bit in TYPE_BITS.items()}
_FIELDS: Final = TRANSITION.names or ()
_TEXTS_KEPT: Final = 4096
"""Events of one row have much in common, above all their times."""


class MetricName(NamedTuple):
    """What a metric was called when the events were committed."""

    code: str
    name: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """An event that isn't about readings. ``metric_id`` is 0 where it is about no metric, and then ``subject`` says
    what it is about. ``data`` is plain JSON; the metric is added to it where there is one.
    """

    type: str
    metric_id: int
    data: dict[str, Any]
    subject: str = ""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One row: ``transitions`` (of :data:`TRANSITION`), then ``documents``; an ordinal counts through both.

    Quiet transitions are no events: their kind in :meth:`kinds` is 0.
    """

    id: int
    org: str
    recorded_at_us: int
    transitions: NDArray[np.void] = field(default_factory=lambda: np.empty(0, TRANSITION))
    documents: list[Document] = field(default_factory=list)
    names: dict[int, MetricName] = field(default_factory=dict)
    org_id: int = 0

    def __len__(self) -> int:
        return len(self.transitions) + len(self.documents)

    def kinds(self) -> NDArray[np.uint8]:
        """By ordinal: the bit of the event's type in TYPE_BITS, 0 where there is no event."""
        of_transitions = kinds_of(self.transitions)
        if not self.documents:
            return of_transitions
        bits = [TYPE_BITS[document.type] for document in self.documents]
        return np.concatenate([of_transitions, np.array(bits, np.uint8)])

    def metrics(self) -> type_i64:
        """By ordinal: the metric's id, 0 where the event is about none."""
        return self.series_keys() >> SERIES_ORDINAL_BITS

    def series_keys(self) -> type_i64:
        """By ordinal: the series' id; of a document that of its metric's series without labels, or 0."""
        of_transitions = self.transitions["series"].astype(np.int64)
        if not self.documents:
            return of_transitions
        ids = [document.metric_id << SERIES_ORDINAL_BITS for document in self.documents]
        return np.concatenate([of_transitions, np.array(ids, np.int64)])

    def event(self, ordinal: int, labels: Labels = ()) -> Event:
        """The event; ``labels`` are its series'."""
        at = len(self.transitions)
        if ordinal < at:
            return self._event_of_readings(ordinal, labels)
        document = self.documents[ordinal - at]
        metric = self.names.get(document.metric_id)
        data = dict(document.data)
        if metric is not None:
            data = {"metric": _metric(document.metric_id, metric), **data}
        subject = document.subject or (metric.code if metric else self.org)
        return self._event(ordinal, document.type, subject, data)

    def _event_of_readings(self, ordinal: int, labels: Labels) -> Event:
        row = dict(
            zip(_FIELDS, self.transitions[ordinal].item(), strict=True)
        )  # one by one costs twice as much
        metric_id = row["series"] >> SERIES_ORDINAL_BITS
        metric = self.names.get(metric_id, MetricName("", ""))
        data = {
            "metric": _metric(metric_id, metric),
            "labels": dict(labels),
            "limits": {"min_reading": plain_number(row["low"]), "max_reading": plain_number(row["high"])},
            "state": AlarmState(row["state"]).name.lower(),
            "since": time_or_none(row["since"]),
            "late": bool(row["flags"] & LATE),
            "readings": {
                "count": row["count"],
                "first": _reading(row["first"], row["first_at"]),
                "last": _reading(row["last"], row["last_at"]),
                "extreme": _reading(row["extreme"], row["extreme_at"]),
            },
        }
        return self._event(ordinal, _TYPES[row["kind"]], subject_of(metric.code, labels), data)

    def _event(self, ordinal: int, type_: str, subject: str, data: Mapping[str, Any]) -> Event:
        return Event(
            id=event_id(self.recorded_at_us, EventPlace(self.id, ordinal)),
            type=str(type_),
            source=source_of(self.org),
            subject=subject,
            time=_time(self.recorded_at_us),
            org=self.org,
            data=data,
        )


def subject_of(code: str, labels: Labels) -> str:
    """``code{name="value",…}``; a backslash stands before quotes and backslashes. Without labels the code alone."""
    if not labels:
        return code
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{code}{{{','.join(pairs)}}}"


def time_or_none(us: int) -> str | None:
    return None if us == TIME_NONE else _time(int(us))


@lru_cache(_TEXTS_KEPT)
def _time(us: int) -> str:
    return format_rfc3339(us)


@lru_cache(_TEXTS_KEPT)
def source_of(org: str) -> str:
    return f"/orgs/{quote(org, safe='')}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _metric(metric_id: int, metric: MetricName) -> dict[str, Any]:
    return {"id": metric_id, "code": metric.code, "name": metric.name, "unit": metric.unit}


def _reading(value: float, at_us: int) -> dict[str, Any]:
    return {"reading": plain_number(value), "reading_at": _time(at_us)}
