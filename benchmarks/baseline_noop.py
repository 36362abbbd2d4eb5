"""The least that a Starlette app does for a push: read the body as JSON, answer JSON. Nothing is checked or kept."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def push(request: Request) -> JSONResponse:
    body = await request.json()
    return JSONResponse(
        {
            "reading": body["reading"],
            "reading_at": "2026-01-01T00:00:00Z",
            "metric_id": 1,
            "recorded_at": "2026-01-01T00:00:00Z",
        }
    )


async def health(_request: Request) -> JSONResponse:
    return JSONResponse({})


app = Starlette(routes=[Route("/metric/{code}", push, methods=["POST"]), Route("/health", health)])
