"""VictoriaMetrics' doors for imports.

What this file guarantees: an import is all or nothing (``partial=accept`` takes the good lines), and 204 says that it
is on disk; VictoriaMetrics itself answers 204 and logs what it leaves out. Errors are 400 with a line of text for each
fault.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from meterite.api.caller import Called  # noqa: TC001 -- the framework reads the annotations
from meterite.api.describe import body, success
from meterite.api.ingest import NAMES, ingest
from meterite.api.paths import raw_path
from meterite.api.plain import TextRoute, refused, texts
from meterite.api.protocol import taken
from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt, from_unit
from meterite.wire.exposition import OPENMETRICS, decode_exposition, is_openmetrics
from meterite.wire.formats import media_type
from meterite.wire.grouping import decode_grouping
from meterite.wire.victoria import decode_csv_columns, decode_import, parse_csv_format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meterite.api.ingest import Decode
    from meterite.model.columns import Decoded

MS_DIGITS_MAX: Final = 19
_OF_A_JOB: Final = "/api/v1/import/prometheus/metrics/{grouping:path}"

router = APIRouter(tags=["VictoriaMetrics"], route_class=TextRoute)


def _query(name: str, meaning: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "schema": {"type": "string"},
        "description": meaning,
    }


_EXTRA_LABEL: Final = _query(
    "extra_label", "`name=value`, repeatable: a label of all series, above their own."
)
_PARTIAL: Final = _query("partial", "`accept`: take the good lines where others are rejected.")
_GROUPING: Final = {
    "name": "grouping",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "`job/NAME{/LABEL/VALUE}`: labels of all series, as at a Pushgateway.",
}
_TIMESTAMP: Final = _query("timestamp", "ms since 1970: the time of lines without one.")
_TEXT: Final = body({"type": "string"}, "text/plain", OPENMETRICS, example='a{x="1"} 42 1769860800000\n')


def _described(sent: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "status_code": 204,
        "response_class": Response,
        "responses": {204: success("All is on disk."), **texts(body=True)},
        "openapi_extra": sent | {"parameters": [*parameters, _EXTRA_LABEL, _PARTIAL]},
    }


@router.post(
    "/api/v1/import",
    **_described(
        body(
            {"type": "string", "description": "A series a line, as `/api/v1/export` writes them."},
            "application/x-ndjson",
            example='{"metric":{"__name__":"a","x":"1"},"values":[1,2.5],"timestamps":[1769860800000,1769860801000]}\n',
        )
    ),
)
async def import_lines(called: Called, request: Request) -> Response:
    """Record series that VictoriaMetrics exported as JSON lines; `null` is skipped."""
    return await _import(called, request, functools.partial(decode_import, labels=_extra_labels(request)))


@router.post("/api/v1/import/prometheus", **_described(_TEXT, _TIMESTAMP))
async def import_exposition(called: Called, request: Request) -> Response:
    """Record metrics in the text formats of exposition."""
    return await _import(called, request, _exposition(request, {}))


@router.put(
    _OF_A_JOB,
    name="import_exposition_put",
    **_described(_TEXT, _GROUPING, _TIMESTAMP),
)
@router.post(
    _OF_A_JOB,
    name="import_exposition_of_a_job",
    **_described(_TEXT, _GROUPING, _TIMESTAMP),
)
async def import_exposition_of_a_job(called: Called, request: Request) -> Response:
    """The same with labels from the path. There are no groups: nothing is replaced."""
    grouping = decode_grouping(raw_path(request.scope).split(b"/", 6)[6])
    return await _import(called, request, _exposition(request, grouping.labels))


@router.post(
    "/api/v1/import/csv",
    **_described(
        body({"type": "string", "description": "Without a header."}, "text/csv", example="GOOG,1.23,4.56\n"),
        _query("format", "`COLUMN:metric|label|time:NAME`, joined by commas.", required=True),
        _query("delimiter", "One character instead of a comma."),
    ),
)
async def import_csv(called: Called, request: Request) -> Response:
    """Record CSV whose columns `format` describes, as in `2:metric:ask,1:label:ticker,3:time:unix_s`."""
    delimiter = request.query_params.get("delimiter", ",")
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise InvalidInputError("csv-format-invalid", "The delimiter must be one character of ASCII.")
    decode = functools.partial(
        decode_csv_columns,
        columns=parse_csv_format(request.query_params.get("format", "")),
        delimiter=delimiter,
        labels=_extra_labels(request),
    )
    return await _import(called, request, decode)


async def _import(called: Called, request: Request, decode: Decode) -> Response:
    partial = request.query_params.get("partial") == "accept"
    receipt = await ingest(called, request, decode, partial=partial)
    return refused(receipt) if receipt.rejected else taken(receipt)


def _exposition(request: Request, labels: Mapping[str, str]) -> Decode:
    content_type = media_type(request.headers.get("content-type"))
    above = {**labels, **_extra_labels(request)}
    at_us = _timestamp(request)

    def decode(body: bytes, *, readings_max: int) -> Decoded:
        openmetrics = is_openmetrics(body, content_type)
        return decode_exposition(
            body,
            readings_max=readings_max,
            openmetrics=openmetrics,
            labels=above,
            at_us=at_us,
            names=NAMES,
        )

    return decode


def _extra_labels(request: Request) -> dict[str, str]:
    found = {}
    for text in request.query_params.getlist("extra_label"):
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InvalidInputError("label-invalid", f"{excerpt(text)} is no extra_label: write name=value.")
        found[name] = value
    return found


def _timestamp(request: Request) -> int:
    text = request.query_params.get("timestamp", "")
    if not text:
        return NO_TIME
    if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= MS_DIGITS_MAX):
        raise InvalidInputError("time-invalid", f"{excerpt(text)} is not a timestamp in whole milliseconds.")
    return from_unit(int(text), "ms")
