"""Events: asked for, followed, acknowledged; what is outside its limits now; deliveries tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Header, Path, Query, Response

from meterite.api.caller import JSON, Called, json_response
from meterite.api.describe import problems, reference
from meterite.api.event_schemas import (
    AlertList,
    Delivery,
    Event,
    EventDeliveries,
    EventList,
    alert_document,
    delivery_document,
    event_document,
)
from meterite.api.event_stream import EVENT_STREAM, KEEP_ALIVE_S, stream_events
from meterite.api.route import PlaceRoute
from meterite.event_log import Wanted
from meterite.model.errors import InvalidInputError, NotFoundError
from meterite.model.event import EventPlace, EventType, event_id, parse_event_id

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENTS_MAX: Final = 1000
_SERIES_LAST: Final = 2**63 - 1
_BEFORE_ALL: Final = event_id(0, EventPlace(0, 0))
"""A cursor behind which all events lie: who asks in a loop needs no exception for an org that has none yet."""

router = APIRouter(tags=["events"], route_class=PlaceRoute)

EventId = Annotated[str, Path(description="The event's id.")]
Types = Annotated[list[EventType] | None, Query(alias="type", description="Repeatable; without it all.")]
Metric = Annotated[str | None, Query(description="Events of the metric with this code.")]
After = Annotated[
    str | None, Query(description="An event's id, or `next` of an answer: what came behind it.")
]
_STREAM: Final[dict[str, Any]] = {
    "description": "Server-sent events: `id` and `event` (the type) a block, and `data`, the event in one line. "
    "The first block is an id alone.",
    "content": {EVENT_STREAM: {"schema": {"type": "string", "description": "WHATWG HTML, section 9.2"}}},
}

_REPORT: Final[dict[str, Any]] = {
    "description": "The event, and its deliveries by handler.",
    "content": {JSON: {"schema": {"allOf": [reference(Event), reference(EventDeliveries)]}}},
}


@router.get("/events", response_model=EventList, responses=problems())
async def list_events(
    called: Called,
    after: After = None,
    types: Types = None,
    metric: Metric = None,
    state: Annotated[
        Literal["open", "acked"] | None, Query(description="Not acknowledged yet, or acknowledged.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=EVENTS_MAX)] = 100,
) -> Response:
    """The org's events, oldest first. Go on with `after=next` until `next` stays as it is."""
    page = await called.service.events.page(
        called.org,
        _wanted(types, metric),
        after=_checked(after, "query", "after"),
        acked=None if state is None else state == "acked",
        limit=limit,
    )
    found = [event_document(event, page.acked_at_us.get(event.id)) for event in page.events]
    return json_response(msgspec.json.encode({"events": found, "next": page.next or after or _BEFORE_ALL}))


@router.get("/events/stream", response_class=Response, responses={200: _STREAM, **problems()})
async def follow_events(
    called: Called,
    after: After = None,
    types: Types = None,
    metric: Metric = None,
    last_event_id: Annotated[
        str | None,
        Header(description="What a client that was cut off sends by itself; `after` yields to it."),
    ] = None,
) -> Response:
    """The org's events as they happen, from now on or behind an id, as server-sent events."""
    place = ("header", "last-event-id") if last_event_id else ("query", "after")
    cursor = _checked(last_event_id or after, *place)
    wanted = _wanted(types, metric)
    return await stream_events(
        called.service.events.follow(called.org, wanted, after=cursor, idle_s=KEEP_ALIVE_S)
    )


@router.get("/events/{event_id}", response_class=Response, responses={200: _REPORT, **problems(404)})
async def get_event(called: Called, event_id: EventId) -> Response:
    """An event, and what became of telling each handler about it."""
    event, acked_at_us, deliveries = await called.service.events.get(called.org, event_id)
    document = event_document(event, acked_at_us)
    document["deliveries"] = [delivery_document(delivery) for delivery in deliveries]
    return json_response(msgspec.json.encode(document))


@router.post("/events/{event_id}/ack", response_model=Event, responses=problems(403, 404))
async def acknowledge_event(called: Called, event_id: EventId) -> Response:
    """Somebody has taken notice; a second time changes nothing."""
    event, acked_at_us = await called.service.events.ack(called.org, event_id)
    return json_response(msgspec.json.encode(event_document(event, acked_at_us)))


@router.post(
    "/events/{event_id}/deliveries/{handler}/retry",
    response_model=Delivery,
    responses=problems(403, 404, 409),
)
async def retry_delivery(
    called: Called, event_id: EventId, handler: Annotated[str, Path(description="The handler's name.")]
) -> Response:
    """Try a dead delivery again, as if it had never been tried."""
    delivery = await called.service.events.retry(called.org, event_id, handler)
    if delivery is None:
        raise NotFoundError("delivery-not-found", "The delivery is not kept any more.")
    return json_response(msgspec.json.encode(delivery_document(delivery)))


@router.get("/alerts", response_model=AlertList, responses=problems())
async def list_alerts(
    called: Called,
    after: Annotated[
        int, Query(ge=-1, le=_SERIES_LAST, description="`next` of an answer: what comes behind it.")
    ] = -1,
    limit: Annotated[int, Query(ge=1, le=EVENTS_MAX)] = 100,
) -> Response:
    """What is outside its limits or silent now, of metrics that are active."""
    views, next_ = await called.service.events.alerts(called.org, after=after, limit=limit)
    document = {
        "alerts": [alert_document(view) for view in views],
        "next": None if next_ is None else str(next_),
    }
    return json_response(msgspec.json.encode(document))


def _wanted(types: Sequence[EventType] | None, metric: str | None) -> Wanted:
    return Wanted(tuple(types or ()), metric)


def _checked(cursor: str | None, *place: str) -> str | None:
    if cursor is not None and parse_event_id(cursor) is None:
        raise InvalidInputError(
            "cursor-invalid", "A cursor is an event's id, or next of an answer.", place=place
        )
    return cursor
