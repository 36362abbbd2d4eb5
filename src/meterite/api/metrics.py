"""Metrics: the contract's table, row by row."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Query, Request, Response

from meterite.api.caller import Called, Caller, Code, json_response
from meterite.api.describe import body, problems, reference
from meterite.api.once import once_of
from meterite.api.paths import slip
from meterite.api.route import OriginalRoute
from meterite.api.schemas import (
    Meter,
    MeterBase,
    Metric,
    MetricBase,
    changes_of,
    metric_document,
    metric_json,
    parse_metric,
    spec_of,
)
from meterite.api.stream import add_warnings
from meterite.model.errors import InvalidInputError, MalformedError, NotFoundError
from meterite.model.metric import METRIC_ID_LAST
from meterite.wire.push import decode_push, encode_meter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meterite.catalog import MetricView
    from meterite.storage.once import Once

METRICS_MAX: Final = 10_000
METERS_MAX: Final = 1000

router = APIRouter(tags=["metrics"], route_class=OriginalRoute)
_METRIC_BODY: Final = body(reference(MetricBase), example={"code": "M1", "name": "Meter 1"})
_METER_BODY: Final = body(reference(MeterBase), example={"reading": 42.5})
_PAGE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The metrics.",
        "headers": {
            "Link": {
                "schema": {"type": "string"},
                "description": '`<…?after=ID&limit=N>; rel="next"`; missing where there are no more.',
            }
        },
    },
    **problems(),
}


@contextlib.contextmanager
def _hinting(code: str) -> Iterator[None]:
    """Whatever is wrong, a slip in the path is told with it."""
    try:
        yield
    except (NotFoundError, InvalidInputError, MalformedError) as exc:
        exc.message = f"{exc.message} {slip(code)}".rstrip()
        raise


def _with_gaps(view: MetricView) -> Response:
    response = json_response(metric_json(view))
    add_warnings(response, view.gaps)
    return response


@router.get("/metric/", response_model=list[Metric], responses=_PAGE)
async def list_metrics(
    called: Called,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=METRICS_MAX)] = 100,
    after: Annotated[
        int,
        Query(ge=0, le=METRIC_ID_LAST, description="Those behind this id: the last of the answer before."),
    ] = 0,
) -> Response:
    """The org's metrics in the order of their ids, without their readings.

    Where there are more, the header `Link` names the address of the next ones.
    """
    page = await called.service.catalog.page(called.org, limit, after)
    response = json_response(msgspec.json.encode([metric_document(view) for view in page.views]))
    add_warnings(response, page.gaps)
    if page.more:
        response.headers["Link"] = _next(request, page.views[-1].metric.id, limit)
    return response


def _next(request: Request, after: int, limit: int) -> str:
    """RFC 8288; of our own parameters alone, since a token may stand among the request's."""
    place = quote(request.scope.get("root_path", "") + "/metric/")
    return f'<{place}?after={after}&limit={limit}>; rel="next"'


@router.post(
    "/metric/", response_model=Metric, responses=problems(409, body=True), openapi_extra=_METRIC_BODY
)
async def create_metric(called: Called, request: Request) -> Response:
    """Register a metric; it is active at once."""
    spec = spec_of(parse_metric(await request.body()))
    return json_response(metric_json(await called.service.catalog.create(called.org, spec)))


@router.get("/metric/{code}", response_model=Metric, responses=problems(404))
async def get_metric(
    called: Called, code: Code, limit: Annotated[int, Query(ge=1, le=METERS_MAX)] = METERS_MAX
) -> Response:
    """A metric with its newest readings, newest first."""
    with _hinting(code):
        view, meters, warnings = await called.service.selector.newest(called.org, code, limit)
    response = json_response(metric_json(view, meters))
    add_warnings(response, warnings)
    return response


@router.put(
    "/metric/{code}",
    response_model=Metric,
    responses=problems(404, 409, body=True),
    openapi_extra=_METRIC_BODY,
)
async def update_metric(called: Called, code: Code, request: Request) -> Response:
    """Change name, limits and truncation, and of unit, description, timezone and on_conflict what is named.

    Limits that aren't named become -9999999 and 9999999, also where the metric had none.

    A new truncation holds for readings recorded afterwards.
    """
    metric = parse_metric(await request.body())
    if metric.code != code:
        raise InvalidInputError(
            "code-differs",
            "The body's code must be the path's: a code can't be changed.",
            place=("body", "code"),
        )
    view = await called.service.catalog.update(called.org, code, changes_of(metric))
    return _with_gaps(view)


@router.delete("/metric/{code}", response_model=Metric, responses=problems(403, 404, 409))
async def delete_metric(called: Called, code: Code) -> Response:
    """Delete a metric that is not active, and its readings with it."""
    return _with_gaps(await called.service.catalog.delete(called.org, code))


@router.post("/metric/{code}/activate", response_model=Metric, responses=problems(403, 404, 409))
async def activate_metric(called: Called, code: Code) -> Response:
    """Let a metric take readings again."""
    return _with_gaps(await called.service.catalog.set_active(called.org, code, active=True))


@router.post("/metric/{code}/deactivate", response_model=Metric, responses=problems(403, 404, 409))
async def deactivate_metric(called: Called, code: Code) -> Response:
    """Let a metric take no readings; only then can it be deleted."""
    return _with_gaps(await called.service.catalog.set_active(called.org, code, active=False))


@router.post(
    "/metric/{code}",
    response_model=Meter,
    responses=problems(404, 409, body=True),
    openapi_extra=_METER_BODY,
)
async def record_reading(called: Called, code: Code, request: Request) -> Response:
    """Record a reading; one with the same labels at the same time is replaced. Answers when it is on disk."""
    sent = await request.body()
    with _hinting(code):
        return json_response(await push(called, code, sent, once_of(request, sent)))


async def push(called: Caller, code: str, sent: bytes, once: Once | None) -> bytes:
    """The contract's ``Meter``: what was sent, truncated, not what a conflict policy made of it."""
    reading, at_us, labels = decode_push(sent)
    done = await called.service.recorder.record_one(called.org, code, reading, at_us, labels, once)
    return encode_meter(reading, done.reading_at_us, done.metric_id, done.recorded_at_us)
