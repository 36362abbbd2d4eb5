"""What events look like outside: CloudEvents 1.0 in JSON, a schema for each type, and what is answered beside them.

What this file guarantees: :func:`event_schemas` is what ``docs/events/`` holds, each file complete in itself; a type's
fields are never taken away and never change their meaning, and new ones may come.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID  # noqa: TC003 - as above

from pydantic import BaseModel, ConfigDict, Field, RootModel, WithJsonSchema

from meterite.model.event import EventType
from meterite.model.number import plain_number
from meterite.model.time import format_rfc3339

if TYPE_CHECKING:
    from meterite.event_log import AlertView
    from meterite.model import event
    from meterite.storage.event_interface import DeliveryStatus

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _Described(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class EventMetric(_Described):
    """A metric as it was called when the event happened."""

    id: int
    code: str
    name: str
    unit: str | None


class EventReading(_Described):
    """A reading that an event is about."""

    reading: float
    reading_at: datetime


class EventLimits(_Described):
    """The limits that held."""

    min_reading: float | None
    max_reading: float | None


class EventReadings(_Described):
    """The readings that an event sums up: of one series, in one commit, outside on one side or back inside."""

    count: Annotated[int, Field(ge=1)]
    first: EventReading
    last: EventReading
    extreme: EventReading
    """The highest above the maximum, the lowest below the minimum."""


class ReadingsData(_Described):
    """What a commit's readings of one series say of its limits."""

    metric: EventMetric
    labels: dict[str, str]
    """The series' labels."""
    limits: EventLimits
    state: Literal["ok", "above", "below"]
    """How the series stands after the commit, whatever this event is."""
    since: datetime | None
    """Time of the reading with which that state began; null where it is ok."""
    late: bool
    """Whether the readings are older than the series' newest; then they change no state."""
    readings: EventReadings


class SilentData(_Described):
    """A metric from which nothing came."""

    metric: EventMetric
    expected_every: str
    current_reading: float
    current_reading_at: datetime


class ResumedData(_Described):
    """A metric that was silent, and the reading that ended it."""

    metric: EventMetric
    reading: float
    reading_at: datetime


class ChangedData(_Described):
    """What somebody did to a metric."""

    metric: EventMetric
    """As it is called afterwards."""
    change: Literal["updated", "activated", "deactivated", "deleted"]
    before: dict[str, Any]
    """The fields that differ, by the API's names, as they were."""
    after: dict[str, Any]
    """The same as they are."""


class DeliveryEvent(_Described):
    """The event that was not delivered."""

    id: UUID
    type: str
    subject: str
    time: datetime


class DeadData(_Described):
    """A delivery that was given up."""

    handler: str
    attempts: Annotated[int, Field(ge=1)]
    first_at: datetime
    """When it was first tried."""
    error: str
    """What came of the last try."""
    event: DeliveryEvent
    metric: EventMetric
    """The metric that the event is about."""


def _optional(schema: dict[str, Any]) -> None:
    """Where there is none the field is left out: it is never null."""
    del schema["default"]


class _Event(_Described):
    specversion: Literal["1.0"]
    id: UUID
    """UUIDv7: ids sort as events happened. The same event has the same id for ever."""
    source: str
    """The org, as a path."""
    subject: str
    """The metric's code, and behind it the labels: `M1{host="a"}`."""
    time: datetime
    """When it was committed."""
    org: str
    datacontenttype: Literal["application/json"]
    ackedat: Annotated[datetime | None, WithJsonSchema({"type": "string", "format": "date-time"})] = Field(
        default=None, json_schema_extra=_optional
    )
    """When somebody acknowledged it; only where the API is asked, never in what handlers are told."""


class AboveMax(_Event):
    """Readings above the maximum."""

    type: Literal[EventType.ABOVE_MAX]
    data: ReadingsData


class BelowMin(_Event):
    """Readings below the minimum."""

    type: Literal[EventType.BELOW_MIN]
    data: ReadingsData


class Cleared(_Event):
    """A series is within its limits again."""

    type: Literal[EventType.CLEARED]
    data: ReadingsData


class Silent(_Event):
    """A metric had no reading within `expected_every`."""

    type: Literal[EventType.SILENT]
    data: SilentData


class Resumed(_Event):
    """A silent metric has a reading again."""

    type: Literal[EventType.RESUMED]
    data: ResumedData


class Changed(_Event):
    """Somebody changed a metric: the audit trail."""

    type: Literal[EventType.CHANGED]
    data: ChangedData


class Dead(_Event):
    """An event could not be delivered to a handler, and is not tried again by itself."""

    type: Literal[EventType.DEAD]
    data: DeadData


EVENTS: Final[dict[EventType, type[_Event]]] = {
    EventType.ABOVE_MAX: AboveMax,
    EventType.BELOW_MIN: BelowMin,
    EventType.CLEARED: Cleared,
    EventType.SILENT: Silent,
    EventType.RESUMED: Resumed,
    EventType.CHANGED: Changed,
    EventType.DEAD: Dead,
}


class Event(
    RootModel[
        Annotated[
            AboveMax | BelowMin | Cleared | Silent | Resumed | Changed | Dead, Field(discriminator="type")
        ]
    ]
):
    """An event: CloudEvents 1.0 in JSON."""


class EventList(_Described):
    """Events, oldest first."""

    events: list[Event]
    next: str
    """Goes on behind what was looked at, as `after`: always a cursor, also where there was nothing yet."""


class Delivery(_Described):
    """One event's way to one handler."""

    handler: str
    state: Literal["pending", "leased", "done", "dead"]
    """`pending` is also what will be tried again; `leased` is under way."""
    attempts: int
    due_at: datetime | None
    """When it is tried next."""
    first_at: datetime | None
    """When it was first tried."""
    done_at: datetime | None
    """When it was delivered, or given up."""
    error: str | None
    """What came of the last try."""


class EventDeliveries(_Described):
    """Beside the event itself."""

    deliveries: list[Delivery]


class Alert(_Described):
    """A series outside its limits now, or a metric from which nothing comes."""

    metric: EventMetric
    labels: dict[str, str]
    state: Literal["above", "below", "silent"]
    since: datetime
    """Time of the reading with which it began; of a silence, when it was noticed."""
    muted: bool
    """Whether the metric's `mute_until` is still to come."""
    limits: EventLimits
    """As they are now."""
    expected_every: str | None
    last: EventReading | None
    """The last reading that an event told of; of a silent metric its newest. Null where it is not known."""
    extreme: EventReading | None
    """The extreme of the last event."""
    event: UUID | None
    """The id of the last event. Null where the series was muted when it happened and nothing was told since, or is
    silent."""


class AlertList(_Described):
    """By metric and series."""

    alerts: list[Alert]
    next: str | None
    """Where there are more: goes on as `after`."""


def event_document(one: event.Event, acked_at_us: int | None = None) -> dict[str, Any]:
    document = one.to_dict()
    if acked_at_us is not None:
        document["ackedat"] = format_rfc3339(acked_at_us)
    return document


def delivery_document(status: DeliveryStatus) -> dict[str, Any]:
    return {
        "handler": status.handler,
        "state": status.state,
        "attempts": status.attempts,
        "due_at": _time(status.due_at_us),
        "first_at": _time(status.first_at_us),
        "done_at": _time(status.done_at_us),
        "error": status.error,
    }


def alert_document(view: AlertView) -> dict[str, Any]:
    alert, spec, told = view.alert, view.spec, view.alert.reading
    last = extreme = None
    if told is not None:
        last = _reading(told.last_at_us, told.last)
        extreme = _reading(told.extreme_at_us, told.extreme)
    elif view.current is not None:
        last = _reading(view.current.at_us, view.current.value)
    return {
        "metric": {"id": alert.metric_id, "code": spec.code, "name": spec.name, "unit": spec.unit},
        "labels": dict(alert.labels),
        "state": "silent" if alert.state is None else alert.state.name.lower(),
        "since": format_rfc3339(alert.since_us),
        "muted": view.muted,
        "limits": {
            "min_reading": plain_number(spec.min_reading),
            "max_reading": plain_number(spec.max_reading),
        },
        "expected_every": spec.expected_every,
        "last": last,
        "extreme": extreme,
        "event": None if told is None else told.event_id,
    }


def _reading(at_us: int, value: float) -> dict[str, Any]:
    return {"reading": plain_number(value), "reading_at": format_rfc3339(at_us)}


def _time(us: int | None) -> str | None:
    return None if us is None else format_rfc3339(us)


def event_schemas() -> dict[str, dict[str, Any]]:
    """By type."""
    return {
        str(type_): {"$schema": DIALECT, **model.model_json_schema(mode="serialization")}
        for type_, model in EVENTS.items()
    }
