"""Prometheus' door: remote write 1.0 and 2.0.

What this file guarantees: each answer says how many samples were written, as the 2.0 specification asks for; the
good samples of a request are written, whatever stands beside them, since a sender drops a batch on 400; out of order is
fine. A body without a Content-Encoding is unpacked within the same limits as one with it.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from meterite.api.body import CODING
from meterite.api.caller import Called  # noqa: TC001 - FastAPI reads it when the module is loaded
from meterite.api.describe import body, success
from meterite.api.ingest import NAMES, ingest
from meterite.api.protocol import ProtocolRoute, protocol_status, retry_after, skipped
from meterite.api.unpack import unpack_unnamed
from meterite.model.errors import TooLargeError
from meterite.wire.compiled import decode_remote_write
from meterite.wire.remote_write import MESSAGE_1, MESSAGE_2, message_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterite.api.unpack import BodyLimits
    from meterite.model.columns import Decoded, Rejected
    from meterite.model.errors import MeteriteError

REASONS_SHOWN_MAX: Final = 5
MEDIA_TYPE: Final = "application/x-protobuf"
_WRITTEN: Final = "X-Prometheus-Remote-Write-{}-Written"


class RemoteWriteRoute(ProtocolRoute):
    """Senders log the body, and interpret none. What is too large is 400, too: some repeat a 413 for ever."""

    @staticmethod
    def refusal(error: MeteriteError, request: Request) -> Response:  # noqa: ARG004 - the shape needs none of it
        status = 400 if isinstance(error, TooLargeError) else protocol_status(error)
        return _answer(status, 0, f"{error.code}: {error.message}\n", retry_after(error))


router = APIRouter(tags=["prometheus"], route_class=RemoteWriteRoute)

_COUNTS: Final[dict[str, Any]] = {
    _WRITTEN.format(what): {"schema": {"type": "integer"}, "description": description}
    for what, description in (
        ("Samples", "Samples that are on disk."),
        ("Histograms", "0: native histograms are not kept."),
        ("Exemplars", "0: exemplars are not kept."),
    )
}


def _text(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _COUNTS,
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }


_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    204: success("All samples are on disk.", _COUNTS),
    400: _text(
        "Some samples, or all, can't be taken, and never will be; the others are on disk. Too large a body: none is."
    ),
    401: _text("No valid token came along."),
    403: _text("The credential may not be used this way."),
    415: _text("There is no decoder for this message or content encoding."),
    503: _text("Not now, and nothing was written: try again after `Retry-After`."),
}
_BODY: Final = body(
    {
        "type": "string",
        "format": "binary",
        "description": f"{MESSAGE_1} as protobuf, or {MESSAGE_2} where the Content-Type says `;proto={MESSAGE_2}`; "
        "packed with snappy (a block) or zstd, or not at all.",
    },
    MEDIA_TYPE,
)


@router.post(
    "/api/v1/write", status_code=204, response_class=Response, responses=_ANSWERS, openapi_extra=_BODY
)
async def remote_write(called: Called, request: Request) -> Response:
    """Record what a Prometheus sends (`remote_write`), or an agent that speaks like one."""
    message = message_of(request.headers.get("content-type"))
    limits = None if request.scope.get(CODING) else request.app.state.body_limits
    done = await ingest(
        called, request, functools.partial(_decode, message=message, limits=limits), partial=True
    )
    if done.rejected:
        return _answer(400, done.accepted, _reasons(done.accepted, done.rejected, done.rejected_more))
    return _answer(204, done.accepted, headers=skipped(done))


def _decode(body: bytes, *, message: str, limits: BodyLimits | None, readings_max: int) -> Decoded:
    """``limits`` are those of a body whose packing nobody named."""
    if limits is not None:
        body = unpack_unnamed(body, limits)
    return decode_remote_write(body, message=message, names=NAMES, readings_max=readings_max)


def _answer(
    status: int, samples: int, text: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    counts = {
        _WRITTEN.format("Samples"): samples,
        _WRITTEN.format("Histograms"): 0,
        _WRITTEN.format("Exemplars"): 0,
    }
    return Response(
        text,
        status,
        {**(headers or {}), **{name: str(count) for name, count in counts.items()}},
        media_type=None if text is None else "text/plain",
    )


def _reasons(accepted: int, rejected: Sequence[Rejected], unlisted: int) -> str:
    """How many samples weren't taken, and why: for people, in the sender's log, in one line."""
    lost = len(rejected) + unlisted
    reasons = Counter((each.code, each.reason) for each in rejected)
    shown = [
        f"{count} × {code}: {reason}" for (code, reason), count in reasons.most_common(REASONS_SHOWN_MAX)
    ]
    more = f" … and {len(reasons) - len(shown)} more reasons" if len(reasons) > len(shown) else ""
    return f"{lost} of {lost + accepted} not taken: {' '.join(shown)}{more}\n"
