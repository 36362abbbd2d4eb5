"""``GET /metric/{code}/summary``: readings by steps."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from meterite.api.accept import choose
from meterite.api.caller import Called, Code, End, LabelFilters, Start, parse_bounds, parse_filters
from meterite.api.describe import problems, reference
from meterite.api.route import PlaceRoute
from meterite.api.schemas import SummaryAnswer
from meterite.api.stream import add_warnings
from meterite.model.zone import check_timezone
from meterite.query.steps import parse_steps
from meterite.query.summary import parse_functions, summary_csv, summary_json

JSON: Final = "application/json"
CSV: Final = "text/csv"
_WRITERS: Final = {JSON: summary_json, CSV: summary_csv}

router = APIRouter(tags=["readings"], route_class=PlaceRoute)

_ANSWER: Final[dict[str, Any]] = {
    "description": "A row for each step that has readings; `Meterite-Warning` names gaps.",
    "content": {
        JSON: {"schema": reference(SummaryAnswer)},
        CSV: {"schema": {"type": "string", "description": "start and a column a function"}},
    },
}


@router.get("/metric/{code}/summary", response_class=Response, responses={200: _ANSWER, **problems(404)})
async def summarize_readings(
    called: Called,
    request: Request,
    code: Code,
    start: Start = None,
    end: End = None,
    every: Annotated[
        str | None,
        Query(
            description="`15m` (us ms s m h d w) or day, week, month, quarter, year; at most 100,000 steps of the "
            "range. Without it there is one step."
        ),
    ] = None,
    fn: Annotated[
        str,
        Query(
            description="Of mean, min, max, sum, count, first, last, p0 to p100 (p99.9 is one, too), divided by "
            "commas; at most 32."
        ),
    ] = "mean,min,max,count",
    tz: Annotated[
        str | None,
        Query(
            description="An IANA name: the wall clock of calendar steps; without it UTC. Fixed steps are UTC's."
        ),
    ] = None,
    labels: LabelFilters = None,
) -> Response:
    """A metric's readings in a few numbers a step, as JSON or CSV by `Accept`."""
    start_us, end_us = parse_bounds(start, end)
    if tz is not None:
        check_timezone(tz, place=("query", "tz"))
    summary, warnings = await called.service.summarizer.summarize(
        called.org,
        code,
        start_us=start_us,
        end_us=end_us,
        steps=None if every is None else parse_steps(every, tz),
        fns=parse_functions(fn),
        labels=parse_filters(labels),
    )
    media_type = choose(request.headers.get("accept"), tuple(_WRITERS))
    response = Response(_WRITERS[media_type](summary), media_type=media_type, headers={"Vary": "Accept"})
    add_warnings(response, warnings)
    return response
