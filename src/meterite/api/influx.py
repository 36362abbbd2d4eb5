"""InfluxDB's doors: writes as its versions 1, 2 and 3 take them, and what clients, QuestDB's too, ask beside them.

What this file guarantees: success is 204 without a body, since some clients take a 200 for a failure; what will never
succeed is a 4xx in the version's own shape, with the numbers of the lines. ``/write`` keeps the good lines beside bad
ones, since agents drop a batch on 400; ``/api/v2/write`` takes all or nothing; ``/api/v3/write_lp`` as
``accept_partial`` says. Names of databases, buckets and orgs mean nothing: the token says the org. An acknowledged line
is on disk, whatever ``no_sync`` says.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Request, Response

from meterite.api.caller import Called, json_response
from meterite.api.describe import body, problems, success
from meterite.api.ingest import NAMES, ingest
from meterite.api.protocol import ProtocolRoute, protocol_status, retry_after, taken
from meterite.api.route import OriginalRoute
from meterite.model.errors import InvalidInputError
from meterite.model.time import excerpt
from meterite.wire.compiled import decode_line_protocol
from meterite.wire.line_protocol import AUTO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.api.ingest import Decode
    from meterite.model.columns import Rejected
    from meterite.model.errors import MeteriteError

VERSION: Final = "1.8.10"
"""Of InfluxDB 1, whose clients refuse to go on without one."""
VERSION_HEADERS: Final = {"X-Influxdb-Version": VERSION, "X-Influxdb-Build": "Meterite"}

_LINES_SHOWN: Final = 100
_FORM_BYTES_MAX: Final = 65_536
_SENTENCES_SHOWN: Final = 10
_LINE_BYTES_SHOWN: Final = 200
_WORDS: Final = {
    401: "unauthorized",
    403: "forbidden",
    405: "method not allowed",
    413: "request too large",
    415: "unsupported media type",
    503: "unavailable",
}
_TRUE: Final = frozenset({"true", "1", "t", "yes"})
_FALSE: Final = frozenset({"false", "0", "f", "no"})
_CREATES: Final = re.compile(
    r'\s*+create\s++database\s++(?:"(?:[^"\\]|\\.)*+"|[^\s;"]++)[^;]*+(?:;\s*+|\Z)', re.IGNORECASE
)


class _Route1(ProtocolRoute):
    @staticmethod
    def refusal(error: MeteriteError, _request: Request) -> Response:
        return _refused(error, {"error": error.message})


class _Route2(ProtocolRoute):
    @staticmethod
    def refusal(error: MeteriteError, _request: Request) -> Response:
        word = _WORDS.get(protocol_status(error), "invalid")
        return _refused(error, {"code": word, "message": error.message})


router = APIRouter(tags=["influxdb"])
_version1 = APIRouter(route_class=_Route1)
_version2 = APIRouter(route_class=_Route2)
_open = APIRouter(route_class=OriginalRoute)

_PRECISION: Final = {"precision": "The unit of times: `ns`, `us`, `ms`, `s`, `m` or `h`; missing, `ns`."}
_PRECISION3: Final = {
    "precision": "`nanosecond`, `microsecond`, `millisecond`, `second`, or `auto`: by each time's magnitude.",
    "accept_partial": "`false`: all or nothing.",
}
_STATEMENT: Final = {"q": "`CREATE DATABASE …`; may also stand in a form."}


def _lines(parameters: dict[str, str]) -> dict[str, Any]:
    """Parameters are read raw, like bodies: none is refused with the framework's 422, which no client knows."""
    text = {"type": "string", "description": "Line protocol, whatever the Content-Type."}
    example = "weather,place=roof temperature=21.5,humidity=40i 1767225600000000000"
    return body(text, "text/plain", example=example) | _parameters(parameters)


def _parameters(meanings: dict[str, str]) -> dict[str, Any]:
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": meaning,
                "schema": {"type": "string"},
            }
            for name, meaning in meanings.items()
        ]
    }


def _answers(shape: dict[str, Any], refused: str) -> dict[int | str, dict[str, Any]]:
    told = problems(body=True)
    told.pop(422)
    schema = {"type": "object", "properties": shape}
    for status in told:
        told[status] = told[status] | {"content": {"application/json": {"schema": schema}}}
    told[400] = told[400] | {"description": refused}
    told[204] = success("All is on disk.")
    return told


_TEXT: Final[dict[str, Any]] = {"type": "string"}
_OBJECT: Final[dict[str, Any]] = {"application/json": {"schema": {"type": "object"}}}
_ANSWERS1: Final = _answers({"error": _TEXT}, "What could not be taken; all other lines are kept.")
_ANSWERS2: Final = _answers(
    {"code": _TEXT, "message": _TEXT, "line": {"type": "integer"}},
    "What could not be taken; nothing was written.",
)
_BAD_LINE: Final = {
    "type": "object",
    "properties": {"original_line": _TEXT, "line_number": {"type": "integer"}, "error_message": _TEXT},
}
_ANSWERS3: Final = _answers(
    {"error": _TEXT, "data": {"anyOf": [{"type": "array", "items": _BAD_LINE}, _BAD_LINE]}},
    "What could not be taken: all such lines, or with `accept_partial=false` the first, and nothing was written.",
)


def _refused(error: MeteriteError, document: dict[str, Any]) -> Response:
    answer = json_response(msgspec.json.encode(document), protocol_status(error))
    answer.headers.update(retry_after(error))
    return answer


@_version1.post(
    "/write", status_code=204, response_class=Response, responses=_ANSWERS1, openapi_extra=_lines(_PRECISION)
)
async def write_influx_1(called: Called, request: Request) -> Response:
    """Record line protocol, as InfluxDB 1 does: the good lines are kept.

    `p` may carry the token, beside any `u`; `db` and `rp` mean nothing.
    """
    done = await ingest(called, request, _decoder(request), partial=True)
    if not done.rejected:
        return taken(done)
    dropped = len({rejected.index for rejected in done.rejected}) + done.rejected_more
    told = sorted(done.rejected, key=_was_parsed)
    unable = "" if _was_parsed(told[0]) else "unable to parse: "
    sentence = f"partial write: {unable}{_sentences(told, done.rejected_more)} dropped={dropped}"
    return json_response(msgspec.json.encode({"error": sentence}), 400)


@_version2.post(
    "/api/v2/write",
    status_code=204,
    response_class=Response,
    responses=_ANSWERS2,
    openapi_extra=_lines(_PRECISION),
)
async def write_influx_2(called: Called, request: Request) -> Response:
    """Record line protocol, as InfluxDB 2 does: all or nothing. `bucket` and `org` mean nothing."""
    done = await ingest(called, request, _decoder(request))
    if not done.rejected:
        return taken(done)
    told = {"code": "invalid", "message": _sentences(done.rejected), "line": done.rejected[0].index}
    return json_response(msgspec.json.encode(told), 400)


@_version1.post(
    "/api/v3/write_lp",
    status_code=204,
    response_class=Response,
    responses=_ANSWERS3,
    openapi_extra=_lines(_PRECISION3),
)
async def write_influx_3(called: Called, request: Request) -> Response:
    """Record line protocol, as InfluxDB 3 does: the good lines are kept unless `accept_partial=false`.

    `db` and `no_sync` mean nothing: what is acknowledged is on disk.
    """
    partial = _switch(request, "accept_partial", default=True)
    done = await ingest(called, request, _decoder(request, AUTO), partial=partial)
    if not done.rejected:
        return taken(done)
    told = _bad_lines(done.rejected, await request.body())
    document: dict[str, Any]
    if partial:
        document = {"error": "partial write of line protocol occurred", "data": told}
    else:
        document = {"error": "parsing failed for write_lp endpoint", "data": told[0]}
    return json_response(msgspec.json.encode(document), 400)


def _decoder(request: Request, otherwise: str | None = None) -> Decode:
    """For times of the request's precision."""
    precision = request.query_params.get("precision") or otherwise
    return functools.partial(decode_line_protocol, precision=precision, names=NAMES)


def _switch(request: Request, name: str, *, default: bool) -> bool:
    word = request.query_params.get(name, "").lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    if not word:
        return default
    raise InvalidInputError("request-invalid", f"{name} is true or false, not {excerpt(word)}.")


def _was_parsed(rejected: Rejected) -> bool:
    """Whether the line was understood, and something else is in the way: decoders say the column, others don't."""
    return rejected.code == "time-unit" or not rejected.reason.startswith(f"Line {rejected.index}, column")


def _sentence(rejected: Rejected) -> str:
    """With the line's number, which decoders say and others don't."""
    number = f"Line {rejected.index}"
    return rejected.reason if rejected.reason.startswith(number) else f"{number}: {rejected.reason}"


def _sentences(rejected: Sequence[Rejected], more: int = 0) -> str:
    """``more`` were rejected behind those at hand."""
    shown = " ".join(map(_sentence, rejected[:_SENTENCES_SHOWN]))
    more += len(rejected) - _SENTENCES_SHOWN
    return f"{shown} And {more} more." if more > 0 else shown


def _bad_lines(rejected: Sequence[Rejected], lines: bytes) -> list[dict[str, Any]]:
    texts = lines.split(b"\n", rejected[min(len(rejected), _LINES_SHOWN) - 1].index)
    return [
        {
            "original_line": texts[each.index - 1][:_LINE_BYTES_SHOWN].decode("utf-8", "replace"),
            "line_number": each.index,
            "error_message": each.reason,
        }
        for each in rejected[:_LINES_SHOWN]
    ]


@_open.get(
    "/ping",
    status_code=204,
    response_class=Response,
    responses={200: {"description": "With `verbose=true`.", "content": _OBJECT}},
    openapi_extra={"security": []} | _parameters({"verbose": "`true`: answer with a body."}),
)
async def ping(request: Request) -> Response:
    """Say that the service is up, with the headers that InfluxDB's clients look for. No token is needed."""
    if request.query_params.get("verbose", "").lower() in _TRUE:
        answer = json_response(msgspec.json.encode({"version": VERSION}))
    else:
        answer = Response(status_code=204)
    answer.headers.update(VERSION_HEADERS)
    return answer


@_open.get(
    "/settings",
    response_class=Response,
    responses={200: {"description": "As QuestDB says it.", "content": _OBJECT}},
    openapi_extra={"security": []},
)
async def settings_of_lines() -> Response:
    """Say which line protocol is taken, as QuestDB's clients ask it: the text of version 1. No token is needed."""
    return json_response(b'{"config":{"line.proto.support.versions":[1]}}')


_QUERY_ANSWERS: Final = {status: told for status, told in _ANSWERS1.items() if status != 204} | {
    200: {"description": "Nothing, as InfluxDB says it.", "content": _OBJECT},
    400: _ANSWERS1[400] | {"description": "Any other query."},
}


@_version1.get(
    "/query", response_class=Response, responses=_QUERY_ANSWERS, openapi_extra=_parameters(_STATEMENT)
)
async def ask_influx(request: Request) -> Response:
    """Take `CREATE DATABASE …`, which clients send before they write, and do nothing. No other query is known."""
    return _asked(request.query_params.get("q"))


@_version1.post(
    "/query",
    response_class=Response,
    responses=_QUERY_ANSWERS,
    openapi_extra=body({"type": "object", "properties": {"q": _TEXT}}, "application/x-www-form-urlencoded")
    | _parameters(_STATEMENT),
)
async def post_to_influx(request: Request) -> Response:
    """The same; `q` may stand in a form, whatever the Content-Type says."""
    q = request.query_params.get("q")
    if q is None:
        form = (await request.body())[:_FORM_BYTES_MAX].decode("latin-1")
        q = dict(parse_qsl(form)).get("q")
    return _asked(q)


def _asked(statements: str | None) -> Response:
    if not statements:
        raise InvalidInputError("missing-field", 'missing required parameter "q"')
    count, at = 0, 0
    while at < len(statements):
        found = _CREATES.match(statements, at)
        if found is None:
            raise InvalidInputError(
                "request-invalid",
                "Of InfluxQL only CREATE DATABASE is known, and does nothing; read with GET /metric/{code}/readings.",
            )
        count, at = count + 1, found.end()
    results = [{"statement_id": number} for number in range(count)]
    return json_response(msgspec.json.encode({"results": results}))


for _part in (_version1, _version2, _open):
    router.include_router(_part)
