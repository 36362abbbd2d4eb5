"""The places for people: the front page, the documentation, and the way out.

Guaranteed: everything shown comes from this host; a token in the address of the documentation becomes a cookie
that holds no token, in the very answer that shows the page. What needs a token is kept by the gate, not here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from meterite.api.gate import CREDENTIAL, ORG
from meterite.api.route import OriginalRoute
from meterite.web import pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from meterite.api.credentials import CookiePolicy, CookieSigner

STATIC: Final = Path(__file__).parent / "static"
_OPEN: Final[dict[str, Any]] = {"security": []}


def install_web(
    app: FastAPI,
    *,
    signer: CookieSigner,
    policy: CookiePolicy,
    docs: bool = True,
    document: Callable[[], dict[str, Any]] | None = None,
) -> None:
    """``app`` must be made with ``docs_url``, ``redoc_url`` and ``openapi_url`` None. ``document``: the API's own."""
    _install_front(app, policy, docs=docs)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    if docs:
        _install_docs(app, signer, policy, document or app.openapi)


def _install_front(app: FastAPI, policy: CookiePolicy, *, docs: bool) -> None:
    front = pages.up_page(app.title, policy.name, docs=docs)
    places = {"docs": "/docs", "redocs": "/redocs", "openapi": "/openapi.json"} if docs else {}
    said = json.dumps({"status": "up", "name": app.title, **places}).encode()

    router = APIRouter(route_class=OriginalRoute)

    @router.get("/", summary="Is it up, and where are the docs?", tags=["service"], openapi_extra=_OPEN)
    async def up(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return Response(front, media_type="text/html", headers=pages.HEADERS | {"Vary": "Accept"})
        return Response(said, media_type="application/json", headers={"Vary": "Accept"})

    @router.get(
        "/logout",
        summary="Take the docs' cookie away",
        tags=["service"],
        openapi_extra=_OPEN,
        status_code=303,
        response_class=Response,
    )
    async def logout(request: Request) -> Response:
        response = Response(status_code=303, headers=pages.HEADERS)
        response.headers["location"] = request.scope.get("root_path", "").rstrip("/") + "/"
        for gone in policy.clear_headers(host=_host(request), https=_https(request)):
            response.headers.append("set-cookie", gone)
        return response

    app.include_router(router)


def _install_docs(
    app: FastAPI, signer: CookieSigner, policy: CookiePolicy, describe: Callable[[], dict[str, Any]]
) -> None:
    def shows(page: bytes) -> Callable[[Request], Any]:
        async def show(request: Request) -> Response:
            response = Response(page, media_type="text/html", headers=pages.HEADERS)
            credential = request.scope.get(CREDENTIAL)
            if credential is not None and credential.kind == "query":
                value = signer.issue(request.scope[ORG], credential.value)
                response.headers.append(
                    "set-cookie", policy.set_header(value, host=_host(request), https=_https(request))
                )
            return response

        return show

    async def openapi(request: Request) -> Response:
        document = describe()
        root = request.scope.get("root_path", "").rstrip("/")
        if root:
            document = document | {"servers": [{"url": root}]}
        return Response(
            json.dumps(document, ensure_ascii=False),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    app.add_route("/docs", shows(pages.swagger_page(app.title, policy.name)), include_in_schema=False)
    app.add_route("/redocs", shows(pages.redoc_page(app.title, policy.name)), include_in_schema=False)
    app.add_route("/openapi.json", openapi, include_in_schema=False)


def _host(request: Request) -> str:
    return request.headers.get("host", "")


def _https(request: Request) -> bool:
    return bool(request.scope.get("scheme") == "https")
