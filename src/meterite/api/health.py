"""Whether the service lives, and whether it can work. No token needed."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from meterite.api.caller import json_response
from meterite.api.describe import API_VERSION, reference
from meterite.api.route import OriginalRoute
from meterite.api.schemas import Health, Readiness

router = APIRouter(tags=["running"], route_class=OriginalRoute)
_OPEN: Final[dict[str, Any]] = {"security": []}
_HEALTHY: Final = msgspec.json.encode({"name": "meterite", "status": "pass", "version": API_VERSION})


@router.get("/health", response_model=Health, openapi_extra=_OPEN)
async def health() -> Response:
    """The process answers; nothing else is asked. InfluxDB's clients look for `pass`."""
    return json_response(_HEALTHY)


@router.get(
    "/ready",
    response_model=Readiness,
    responses={
        503: {
            "description": "What stands in the way.",
            "content": {"application/json": {"schema": reference(Readiness)}},
        }
    },
    openapi_extra=_OPEN,
)
async def ready(request: Request) -> Response:
    """The store can be read and written."""
    problems: list[str] = await request.app.state.service.ready()
    answer = {"status": "not ready" if problems else "ready", "problems": problems}
    return json_response(msgspec.json.encode(answer), 503 if problems else 200)
