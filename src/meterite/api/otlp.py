"""OpenTelemetry's door: OTLP/HTTP for metrics (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

What this file guarantees: the answer comes in the request's encoding. The good data points of a request are kept, and
``partial_success`` tells of the others; where none is good, or the body can't be read, it is a 400, which no client
sends again; what may succeed later is a 503 with ``Retry-After``, which all do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from meterite.api.caller import JSON, Called
from meterite.api.describe import SKIPPED
from meterite.api.ingest import NAMES, ingest
from meterite.api.protocol import ProtocolRoute, protocol_status, retry_after, skipped
from meterite.model.errors import ForbiddenError, UnauthorizedError
from meterite.wire.formats import media_type
from meterite.wire.otlp import decode_otlp
from meterite.wire.otlp_answer import (
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    encode_status,
    encode_success,
    tell_rejected,
)
from meterite.wire.otlp_json import decode_otlp_json

if TYPE_CHECKING:
    from meterite.model.columns import Decoded
    from meterite.model.errors import MeteriteError

PROTOBUF: Final = "application/x-protobuf"
_RPC_CODES: Final = {UnauthorizedError: UNAUTHENTICATED, ForbiddenError: PERMISSION_DENIED}


def says_json(content_type: str | None, body: bytes = b"") -> bool:
    """A protobuf can't begin with ``{``, and begins with a line feed: of types that say neither the body decides."""
    media = media_type(content_type)
    return media == JSON or body.startswith(b"{")


class OtlpRoute(ProtocolRoute):
    """Errors are ``google.rpc.Status``."""

    @staticmethod
    def refusal(error: MeteriteError, request: Request) -> Response:
        code = UNAVAILABLE if error.again else _RPC_CODES.get(type(error), INVALID_ARGUMENT)
        json = getattr(request.state, "json", says_json(request.headers.get("content-type")))
        answer = encode_status(code, f"{error.code}: {error.message}", json=json)
        return _response(answer, json=json, status=protocol_status(error), headers=retry_after(error))


def _response(
    answer: bytes, *, json: bool, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(answer, status, headers, media_type=JSON if json else PROTOBUF)


router = APIRouter(tags=["opentelemetry"], route_class=OtlpRoute)

_EXPORT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "ExportMetricsServiceRequest; as JSON by proto3's mapping.",
    "properties": {"resourceMetrics": {"type": "array", "items": {"type": "object"}}},
}
_EXAMPLE: Final[dict[str, Any]] = {
    "resourceMetrics": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeMetrics": [
                {
                    "metrics": [
                        {
                            "name": "queue.length",
                            "gauge": {"dataPoints": [{"timeUnixNano": "1769817600000000000", "asInt": "3"}]},
                        }
                    ]
                }
            ],
        }
    ]
}
_BINARY: Final = {"type": "string", "format": "binary"}
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": _EXPORT, "example": _EXAMPLE}, PROTOBUF: {"schema": _BINARY}},
    }
}


def _told(description: str) -> dict[str, Any]:
    content = {JSON: {"schema": {"type": "object"}}, PROTOBUF: {"schema": _BINARY}}
    return {"description": description, "content": content}


_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: _told("ExportMetricsServiceResponse; `partial_success` tells of data points that were not taken.")
    | {"headers": SKIPPED},
    **{
        status: _told(f"google.rpc.Status: {meaning}")
        for status, meaning in (
            (400, "nothing could be taken."),
            (401, "no valid token came along."),
            (403, "the credential may not be used this way."),
            (413, "the body, or what is in it, is too large."),
            (415, "there is no decoder for this content encoding."),
            (503, "not now, and nothing was written; try again after `Retry-After`."),
        )
    },
}


@router.post("/v1/metrics", response_class=Response, responses=_ANSWERS, openapi_extra=_BODY)
async def export_metrics(called: Called, request: Request) -> Response:
    """Record the data points of an OTLP export, protobuf or JSON; the answer is in the same encoding."""

    def decode(body: bytes, *, readings_max: int) -> Decoded:
        request.state.json = says_json(request.headers.get("content-type"), body)
        decoder = decode_otlp_json if request.state.json else decode_otlp
        return decoder(body, readings_max=readings_max, names=NAMES)

    done = await ingest(called, request, decode, partial=True)
    json: bool = request.state.json
    if done.rejected and not done.accepted:
        answer = encode_status(INVALID_ARGUMENT, tell_rejected(done.rejected), json=json)
        return _response(answer, json=json, status=400)
    answer = encode_success(done.rejected, done.rejected_more, json=json)
    return _response(answer, json=json, headers=skipped(done))
