"""Readings in bulk: many in one request, all of a metric streamed back, a range erased."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from meterite.api.accept import choose
from meterite.api.caller import (
    Called,
    Code,
    End,
    LabelFilters,
    Start,
    json_response,
    parse_bounds,
    parse_filters,
)
from meterite.api.describe import body, problems, reference
from meterite.api.ingest import ingest
from meterite.api.route import PlaceRoute
from meterite.api.schemas import Committed, ReadingColumns, ReadingRow, Receipt, StoredReading
from meterite.api.stream import stream_readings
from meterite.model.errors import InvalidInputError
from meterite.model.time import format_rfc3339
from meterite.wire.formats import NDJSON, readings_decoder
from meterite.wire.plain import decode_plain
from meterite.wire.receipt import encode_receipt
from meterite.wire.rows import CSV, ENCODERS

if TYPE_CHECKING:
    from meterite.recording.receipts import Receipt as Recorded

LIMIT_MAX: Final = 2**53

router = APIRouter(tags=["readings"], route_class=PlaceRoute)

_ENTRY: Final = {"anyOf": [reference(ReadingRow), reference(ReadingColumns)]}
_READINGS: Final = {"anyOf": [{"type": "array", "items": _ENTRY}, *_ENTRY["anyOf"]]}
_BODY: Final = body(
    _READINGS, example=[{"metric": "M1", "reading": 42.5, "reading_at": "2026-01-31T12:00:00Z"}]
)
_BODY["requestBody"]["content"][NDJSON] = {"schema": {"type": "string", "description": "A row a line."}}
_BODY["requestBody"]["content"][CSV] = {
    "schema": {
        "type": "string",
        "description": "Columns `metric`, `reading`, `reading_at`, `labels` (JSON), `labels.NAME`, under a header.",
    }
}
_RECEIPT_PROBLEMS: Final = problems(body=True)
_RECEIPT_PROBLEMS[422] = {
    "description": "Refused whole: a receipt with `accepted` 0, or a problem where it could not be read.",
    "content": _RECEIPT_PROBLEMS[422]["content"] | {"application/json": {"schema": reference(Receipt)}},
}
_ROWS: Final[dict[str, Any]] = {
    "description": "The readings by `reading_at`; `Meterite-Warning` names gaps. A stream that can't go on is "
    "cut without its last chunk.",
    "content": {
        "application/json": {"schema": {"type": "array", "items": reference(StoredReading)}},
        NDJSON: {"schema": {"type": "string", "description": "An object a line."}},
        CSV: {"schema": {"type": "string", "description": "reading,reading_at,recorded_at,labels"}},
    },
}


_PLAIN: Final = body(
    {"type": "string", "description": "A line a reading: `42`, `42 2026-01-31T12:00:00Z`."},
    "text/plain",
    "application/x-www-form-urlencoded",
    example="42",
)

Precision = Annotated[
    Literal["s", "ms", "us", "ns"] | None, Query(description="Times are integers since 1970 in this unit.")
]
Partial = Annotated[
    Literal["accept"] | None, Query(description="Take the good readings where others are rejected.")
]
Full = Annotated[Literal["full"] | None, Query(description="Tell more: `replaced`, `unchanged`, `events`.")]


@router.post("/readings", response_model=Receipt, responses=_RECEIPT_PROBLEMS, openapi_extra=_BODY)
async def record_readings(
    called: Called,
    request: Request,
    precision: Precision = None,
    partial: Partial = None,
    receipt: Full = None,
    metric: Annotated[
        str | None, Query(description="The metric of CSV without a column for it, as `GET` answers it.")
    ] = None,
) -> Response:
    """Record many readings: JSON rows, columns, or an array of those; NDJSON; CSV; all or nothing unless
    `partial=accept`.
    """
    decoder = readings_decoder(request.headers.get("content-type"), metric)
    decode = functools.partial(decoder, precision=precision)
    return _told(await ingest(called, request, decode, partial=partial is not None, full=receipt is not None))


@router.post(
    "/metric/{code}/readings", response_model=Receipt, responses=_RECEIPT_PROBLEMS, openapi_extra=_PLAIN
)
async def record_numbers(
    called: Called,
    request: Request,
    code: Code,
    precision: Precision = None,
    partial: Partial = None,
    receipt: Full = None,
    labels: Annotated[
        list[str] | None, Query(description="`name=value`, repeatable: the labels of the readings.")
    ] = None,
) -> Response:
    """Record plain numbers, a line each, with or without a time, under any content type: `curl -d 42`."""
    decode = functools.partial(decode_plain, precision=precision, code=code, labels=parse_filters(labels))
    return _told(await ingest(called, request, decode, partial=partial is not None, full=receipt is not None))


def _told(done: Recorded) -> Response:
    """A receipt; 422 where it was refused whole."""
    refused = bool(done.rejected) and not done.accepted
    committed_at_us = done.committed_at_us if done.accepted else None
    answer = encode_receipt(
        done.accepted,
        done.rejected,
        committed_at_us,
        done.replaced,
        done.unchanged,
        counted=done.counted,
        rejected_more=done.rejected_more,
        events=done.events,
        events_more=done.events_more,
        skipped=done.skipped,
    )
    return json_response(answer, 422 if refused else 200)


@router.get("/metric/{code}/readings", response_class=Response, responses={200: _ROWS, **problems(404)})
async def select_readings(
    called: Called,
    request: Request,
    code: Code,
    start: Start = None,
    end: End = None,
    limit: Annotated[int | None, Query(ge=1, le=LIMIT_MAX)] = None,
    order: Literal["asc", "desc"] = "asc",
    labels: LabelFilters = None,
) -> Response:
    """A metric's readings as one snapshot, streamed as JSON, NDJSON or CSV by `Accept`."""
    start_us, end_us = parse_bounds(start, end)
    filters = parse_filters(labels)
    encoder = ENCODERS[choose(request.headers.get("accept"), tuple(ENCODERS))]()
    selection = await called.service.selector.select(
        called.org,
        code,
        start_us=start_us,
        end_us=end_us,
        limit=limit,
        descending=order == "desc",
        labels=filters,
    )
    return await stream_readings(selection, encoder)


@router.delete("/metric/{code}/readings", response_model=Committed, responses=problems(403, 404))
async def erase_readings(
    called: Called,
    code: Code,
    start: Start = None,
    end: End = None,
    labels: LabelFilters = None,
    everything: Annotated[bool, Query(alias="all", description="Needed where nothing else is said.")] = False,
) -> Response:
    """Erase readings: a missing bound is open, labels must all hold. Also while the metric is active."""
    start_us, end_us = parse_bounds(start, end)
    filters = parse_filters(labels)
    if start_us is None and end_us is None and not filters and not everything:
        raise InvalidInputError(
            "bounds-missing", "Say which readings: start, end, labels, or all=true.", place=("query", "all")
        )
    committed_at_us = await called.service.recorder.erase(
        called.org, code, start_us=start_us, end_us=end_us, labels=filters
    )
    return json_response(msgspec.json.encode({"committed_at": format_rfc3339(committed_at_us)}))
