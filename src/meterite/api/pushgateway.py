"""The Pushgateway's door: what jobs push with Prometheus' client libraries.

What this file guarantees: PUT replaces a group, POST the metrics of a group that it names, DELETE all of it; series
that leave a group so are marked stale in the same commit, and keep their history. A push is all or nothing. Answers are
those of the Pushgateway: 200 for a push, 202 for a delete (of a group that isn't there, too), 400 with a sentence as
text for what it refuses, readings with times of their own among them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from fastapi import APIRouter, Request, Response

from meterite.api.caller import Called  # noqa: TC001 -- the framework reads the annotations
from meterite.api.describe import body, success
from meterite.api.ingest import NAMES, ingest
from meterite.api.paths import raw_path
from meterite.api.plain import TextRoute, refused, texts
from meterite.api.protocol import taken
from meterite.model.columns import NO_TIME
from meterite.model.errors import InvalidInputError
from meterite.storage.interface import PushGroup
from meterite.wire.exposition import OPENMETRICS, decode_exposition, is_openmetrics
from meterite.wire.exposition_proto import MEDIA_TYPE, decode_families, is_protobuf
from meterite.wire.formats import media_type
from meterite.wire.gather import Gathered
from meterite.wire.grouping import decode_grouping

if TYPE_CHECKING:
    from meterite.model.columns import Decoded
    from meterite.wire.grouping import Grouping


router = APIRouter(tags=["Pushgateway"], route_class=TextRoute)

_PATH: Final = "/metrics/job/{grouping:path}"
_PATH_BASE64: Final = "/metrics/job@base64/{grouping:path}"
_EXPOSITION: Final = body(
    {"type": "string", "description": "Metrics, by Content-Type and content."},
    "text/plain",
    OPENMETRICS,
    MEDIA_TYPE,
    example='# HELP some_metric What it is.\nsome_metric{label="val1"} 42\n',
)
_PARAMETERS: Final = {
    "parameters": [
        {
            "name": "grouping",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": "`NAME{/LABEL/VALUE}`; the value behind `LABEL@base64` is base64.",
        }
    ]
}
_PUSHED: Final[dict[str, Any]] = {
    "responses": {200: success("All is on disk; no body."), **texts(body=True)},
    "openapi_extra": _EXPOSITION | _PARAMETERS,
    "response_class": Response,
}
_DELETED: Final[dict[str, Any]] = {
    "responses": {202: {"description": "It is on disk; no body."}, **texts()},
    "openapi_extra": _PARAMETERS,
    "status_code": 202,
    "response_class": Response,
}


@router.put(_PATH, **_PUSHED)
@router.put(_PATH_BASE64, name="replace_group_base64", **_PUSHED)
async def replace_group(called: Called, request: Request) -> Response:
    """Push all metrics of a group: its series that aren't among them are marked stale."""
    return await _push(called, request, "all")


@router.post(_PATH, **_PUSHED)
@router.post(_PATH_BASE64, name="replace_metrics_base64", **_PUSHED)
async def replace_metrics(called: Called, request: Request) -> Response:
    """Push some metrics of a group: series of the same metrics that aren't among them are marked stale."""
    return await _push(called, request, "metrics")


@router.delete(_PATH, **_DELETED)
@router.delete(_PATH_BASE64, name="delete_group_base64", **_DELETED)
async def delete_group(called: Called, request: Request) -> Response:
    """Mark all series of a group stale; what was recorded stays."""
    await ingest(called, request, _nothing, group=PushGroup(_grouping(request).name, "all"))
    return Response(status_code=202)


def _grouping(request: Request) -> Grouping:
    """The path is divided before it is decoded, so no parameter of the framework's helps."""
    return decode_grouping(raw_path(request.scope).split(b"/", 2)[2])


async def _push(called: Called, request: Request, replaces: Literal["all", "metrics"]) -> Response:
    grouping = _grouping(request)
    content_type = media_type(request.headers.get("content-type"))
    decode = functools.partial(decode_pushed, content_type=content_type, grouping=grouping)
    receipt = await ingest(called, request, decode, group=PushGroup(grouping.name, replaces))
    return refused(receipt) if receipt.rejected else taken(receipt, 200)


def decode_pushed(body: bytes, *, readings_max: int, content_type: str, grouping: Grouping) -> Decoded:
    """With the group's labels. InvalidInputError for times, and for a series that stands there twice."""
    if is_protobuf(content_type):
        decoded = decode_families(body, readings_max=readings_max, labels=grouping.labels, names=NAMES)
    else:
        openmetrics = is_openmetrics(body, content_type)
        decoded = decode_exposition(
            body, readings_max=readings_max, openmetrics=openmetrics, labels=grouping.labels, names=NAMES
        )
    _check_times(decoded)
    _check_distinct(decoded)
    return decoded


def _check_times(decoded: Decoded) -> None:
    """A time of its own would stay the newest of its series, however often it is pushed."""
    timed = decoded.at_us != NO_TIME
    if timed.any():
        raise InvalidInputError(
            "time-refused",
            f"{_place(decoded, int(np.argmax(timed)))}: pushed metrics must not have timestamps.",
        )


def _check_distinct(decoded: Decoded) -> None:
    if len(decoded) == len(decoded.keys) or decoded.rejected:
        return
    _, first = np.unique(decoded.key_index, return_index=True)
    again = int(np.setdiff1d(np.arange(len(decoded)), first)[0])
    code = decoded.keys[int(decoded.key_index[again])].code
    raise InvalidInputError(
        "series-twice",
        f"{_place(decoded, again)}: a series of {code!r} was there before with the same labels.",
    )


def _place(decoded: Decoded, row: int) -> str:
    assert decoded.row is not None
    return f"{decoded.counted} {decoded.row[row]}"


def _nothing(body: bytes, *, readings_max: int) -> Decoded:  # noqa: ARG001 -- a delete's body says nothing
    return Gathered(readings_max).decoded()
