"""collectd's door, for its plug-in ``write_http`` with ``Format "JSON"``.

What this file guarantees: the good readings of a request are kept, whatever stands beside them, since collectd sends
nothing twice. Success is 200 without a body: of any other status it would log an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from meterite.api.caller import Called, json_response
from meterite.api.describe import body, problems, reference, success
from meterite.api.errors import problem
from meterite.api.ingest import ingest
from meterite.api.protocol import ProtocolRoute, protocol_status, retry_after, taken
from meterite.api.request_id import request_id_of
from meterite.api.schemas import Receipt
from meterite.wire.collectd import decode_collectd
from meterite.wire.receipt import encode_receipt

if TYPE_CHECKING:
    from meterite.model.errors import MeteriteError


class CollectdRoute(ProtocolRoute):
    """collectd has no shape for errors; who looks at them is a person."""

    @staticmethod
    def refusal(error: MeteriteError, request: Request) -> Response:
        status = protocol_status(error)
        document, headers = problem(
            status, error.code, error.message, request_id=request_id_of(request.scope)
        )
        response = Response(document, status)
        response.raw_headers = headers
        response.headers.update(retry_after(error))
        return response


router = APIRouter(tags=["collectd"], route_class=CollectdRoute)

_BODY: Final = body(
    {"type": "array", "items": {"type": "object"}, "description": "Value lists, as write_http sends them."},
    example=[
        {
            "values": [0.25],
            "dstypes": ["gauge"],
            "dsnames": ["value"],
            "time": 1769817600.25,
            "interval": 10.0,
            "host": "h",
            "plugin": "uptime",
            "plugin_instance": "",
            "type": "uptime",
            "type_instance": "",
        }
    ],
)
_PROBLEMS: Final = problems(body=True)
_PROBLEMS.pop(422)
_PROBLEMS[400] = {
    "description": "What could not be taken is in the receipt, and all else is kept; or a problem where nothing could.",
    "content": _PROBLEMS[400]["content"] | {"application/json": {"schema": reference(Receipt)}},
}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {200: success("All is on disk; no body.")}


@router.post("/collectd", response_class=Response, responses=_TAKEN | _PROBLEMS, openapi_extra=_BODY)
async def record_collectd(called: Called, request: Request) -> Response:
    """Record what collectd's `write_http` sends as JSON; unknown values (`null`) are skipped."""
    done = await ingest(called, request, decode_collectd, partial=True)
    if not done.rejected:
        return taken(done, 200)
    committed_at_us = done.committed_at_us if done.accepted else None
    answer = encode_receipt(
        done.accepted,
        done.rejected,
        committed_at_us,
        rejected_more=done.rejected_more,
        skipped=done.skipped,
    )
    return json_response(answer, 400)
