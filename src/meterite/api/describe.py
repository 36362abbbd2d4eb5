"""What the OpenAPI document says beyond what the framework finds out by itself.

What this file guarantees: the document needs no settings and no store, is the same bytes each time, names
every answer a route can give, and says how the token travels. Bodies are read raw (JSON is taken under any
content type), so they are described here by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from meterite.api.event_schemas import Event, EventDeliveries
from meterite.api.schemas import ANSWERS, REQUESTS, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi.routing import APIRoute
    from pydantic import BaseModel

API_VERSION: Final = "0.1.0"
API_KEY_NAME: Final = "x-auth-token"
"""As long as the setting api_key_name gives no other."""

SKIPPED: Final = {
    "Meterite-Skipped": {
        "schema": {"type": "integer"},
        "description": "How many values were none, and are no error; missing where there were none.",
    }
}
"""The header of an answer that has no room for it elsewhere."""

_REFERENCE: Final = "#/components/schemas/{model}"
_BODY: Final = (400, 403, 408, 413, 415)
_MEANINGS: Final = {
    400: "The body is not what it says it is.",
    401: "No valid token came along.",
    403: "The credential may not be used this way.",
    404: "There is no such thing in this org.",
    409: "Its state does not allow this.",
    408: "The body doesn't come on.",
    413: "The body, or what is in it, is too large.",
    415: "There is no decoder for this content encoding.",
    422: "The request can't be carried out as it is; `detail` leads to the places.",
    503: "Not now, and nothing was written: try again after `Retry-After`.",
}
_DESCRIPTION: Final = """Push readings over HTTP, keep them, ask for them.

The token travels as header, query parameter or cookie, or as `Authorization: Bearer`, `Token` or Basic (as the
password). Times without an offset are UTC; answers are in UTC with `Z`. Errors are `application/problem+json`.
The pages of this documentation need the token, too: `/docs?x-auth-token=…`, `/redocs`, `/openapi.json`.

Every push may carry an `Idempotency-Key` (1 to 255 printable characters, belonging to org, path and query): sent again
with the same body within a day it is answered by the first receipt and writes nothing; with another body it is refused.
Both answers list as many of the rejected as are kept (1,000, or what takes 16 KiB packed); `rejected_more` counts the
rest.

A query parameter that a route doesn't name is refused (422, `unknown-parameter`), so that a misspelt bound isn't an
open one; the routes under `/metric/` that the original had ignore it, as they did. A field of a metric or reading that
isn't known is ignored, but not one that is nearly a known one or a metric field's first words, such as `max` (422,
`unknown-field`): a limit would be lost. `HEAD` is answered as `GET` at `/`,
`/health`, `/ready`, `/metric/` and `/metric/{code}`.
"""


def reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The problem documents a route answers with, beside those that each of them can.

    ``body``: those of a route that reads one, too.
    """
    content = {"application/problem+json": {"schema": reference(Problem)}}
    return {
        status: {"description": _MEANINGS[status], "content": content}
        for status in sorted({401, 422, 503, *statuses, *(_BODY if body else ())})
    }


def success(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of a door whose answer has no body."""
    return {"description": description, "headers": SKIPPED | (headers or {})}


def body(schema: dict[str, Any], *media_types: str, example: Any = None) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body raw."""
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(media_types or ("application/json",), content),
        }
    }


def route_id(route: APIRoute) -> str:
    return route.name


def describe(routes: Sequence[Any], api_key_name: str = API_KEY_NAME) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(
        title="Meterite",
        version=API_VERSION,
        description=_DESCRIPTION,
        routes=routes,
        openapi_version="3.1.0",
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, extra = models_json_schema(
        [
            *((model, "validation") for model in REQUESTS),
            *((model, "serialization") for model in (*ANSWERS, Event, EventDeliveries)),
        ],
        ref_template=_REFERENCE,
    )
    for name, schema in extra["$defs"].items():
        schemas.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = _schemes(api_key_name)
    document["security"] = [{name: []} for name in components["securitySchemes"]]
    return document


def _schemes(api_key_name: str) -> dict[str, Any]:
    def key(place: str) -> dict[str, Any]:
        return {"type": "apiKey", "in": place, "name": api_key_name}

    return {
        "header": key("header"),
        "query": key("query"),
        "cookie": key("cookie") | {"description": "Set by /docs; it holds no token."},
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "The token is the password."},
    }
