"""Where everything is put together.

What this file guarantees: a request passes, from the outside in, the fast door (where the server has one), the access
log (where it is asked for), what answers failures, the door of the single push, the request's id, the gate, the divider
of paths, the body's limits, the doors of protocols, and only then the framework. ``app`` is made where it is first
asked for, so that describing the API needs neither settings nor a store; a setting or a file that can't be used ends
the start with one line.
"""

from __future__ import annotations

import gc
import sys
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from meterite.api import (
    collectd,
    describe,
    events,
    health,
    influx,
    metrics,
    otlp,
    pushgateway,
    readings,
    remote_write,
    summary,
    victoria,
)
from meterite.api.body import BodyLimit
from meterite.api.credentials import CookiePolicy, CookieSigner, Tokens
from meterite.api.direct import DirectDoors
from meterite.api.door import PushDoor
from meterite.api.errors import Failures, Problems, install_error_handlers
from meterite.api.event_schemas import event_schemas
from meterite.api.fast_door import STATE
from meterite.api.fast_push import Pushes
from meterite.api.gate import Gate
from meterite.api.logs import AccessLog, RequestId, configure_logs, govern_server_logs
from meterite.api.paths import MetricPaths
from meterite.api.patience import Patience
from meterite.api.room import Room
from meterite.api.unpack import BodyLimits
from meterite.cli import starting
from meterite.cli.first_start import ensure_settings
from meterite.cli.listening import of_uvicorn
from meterite.cli.serving import StartErrors
from meterite.listeners.service import Listeners
from meterite.model.errors import MeteriteError
from meterite.parent import stopping_without_parent
from meterite.service import Service
from meterite.stop_signal import noticing_stop
from meterite.web import pages
from meterite.web.routes import install_web

__all__ = ["Meterite", "build_api", "create_app", "event_schemas", "openapi_document"]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from meterite.settings import Settings


def build_api() -> FastAPI:
    """The framework with all routes that the document describes, and nothing of its own."""
    api = FastAPI(
        title="Meterite",
        version=describe.API_VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=describe.route_id,
    )
    for part in (
        metrics,
        readings,
        summary,
        events,
        health,
        collectd,
        influx,
        otlp,
        pushgateway,
        remote_write,
        victoria,
    ):
        api.include_router(part.router)
    return api


def openapi_document(api_key_name: str = describe.API_KEY_NAME) -> dict[str, Any]:
    """What ``openapi.json`` holds. Needs no settings and no store."""
    api = build_api()
    install_web(api, signer=CookieSigner([b"only to describe"], {}), policy=CookiePolicy(api_key_name, ""))
    return describe.describe(api.routes, api_key_name)


class Meterite:
    """The ASGI callable. The gate is made once the service is open: the cookie's secret lies in the store."""

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service
        self._problems = Problems(settings.api_key_name)
        self._refusal: str | None = None
        self._stack: ASGIApp | None = None
        self._server_state: MutableMapping[str, Any] | None = None
        self.api = build_api()
        self.api.router.lifespan_context = self._lifespan
        self.api.state.service = service
        self.api.state.readings_max = settings.readings_max
        self.api.state.api_key_name = settings.api_key_name
        self.api.state.body_limits = BodyLimits(
            body_bytes_max=settings.body_bytes_max,
            unpacked_bytes_max=settings.unpacked_bytes_max,
            ratio_max=settings.ratio_max,
        )
        install_error_handlers(self.api, self._problems)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._server_state = scope.get("state")
            await self.api(scope, receive, self._plain_refusal(send))
            return
        assert self._stack is not None, "the service is opened by the lifespan protocol: lifespan=on"
        await self._stack(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _api: FastAPI) -> AsyncIterator[None]:
        try:
            listeners = await self._open()
        except MeteriteError as exc:
            self._refusal = exc.message
            StartErrors.seen = True
            raise
        in_clear = self._settings.tokens()
        secrets = self._settings.cookie_secrets() or [self._service.cookie_secret]
        self._stack = self._assemble(Tokens(in_clear), CookieSigner(secrets, in_clear))
        try:
            with noticing_stop(self._service.stop), stopping_without_parent():
                yield
        finally:
            await listeners.close()
            await self._service.close()

    async def _open(self) -> Listeners:
        service = self._service
        await service.open()
        lock = service.beside("listeners.lock")
        listeners = Listeners(self._settings.listeners, service.recorder.record, lock)
        try:
            await listeners.open()
        except MeteriteError:
            await service.close()
            raise
        return listeners

    def _plain_refusal(self, send: Send) -> Send:
        """What the operator can mend is told in one line, whichever server runs us."""

        async def sending(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self._refusal is not None:
                message = {**message, "message": self._refusal}
            await send(message)

        return sending

    def _assemble(self, tokens: Tokens, signer: CookieSigner) -> ASGIApp:
        settings, problems = self._settings, self._problems
        name = settings.api_key_name
        install_web(
            self.api,
            signer=signer,
            policy=CookiePolicy(name, settings.cookie_domain),
            docs=settings.docs,
            document=cache(lambda: openapi_document(name)),
        )
        gate = Gate(
            MetricPaths(
                BodyLimit(DirectDoors(self.api), self.api.state.body_limits, Room(settings.queue_bytes_max))
            ),
            tokens=tokens,
            signer=signer,
            api_key_name=name,
            problems=problems,
            page=pages.token_page(self.api.title, name),
            page_headers=pages.HEADERS,
        )
        door = PushDoor(
            RequestId(gate),
            org_of=lambda token: tokens.org_of(token.encode("latin-1")),
            recorder=lambda: self._service.recorder,
            header=name.encode("ascii"),
        )
        failures = Failures(Patience(door, settings.body_wait_s()), problems)
        access_log = AccessLog(failures, problems) if settings.access_log else None
        if self._server_state is not None:
            self._server_state[STATE] = Pushes(
                self._service.recorder,
                gate.authenticate,
                api_key_name=name,
                body_bytes_max=min(settings.body_bytes_max, settings.unpacked_bytes_max),
                readings_max=settings.readings_max,
                body_wait_s=settings.body_wait_s(),
                told=access_log.write if access_log is not None else None,
            )
        return access_log or failures


def create_app(settings: Settings, service: Service | None = None) -> Meterite:
    """The app on these settings; tests bring a service of their own."""
    return Meterite(settings, service or Service(settings))


def _first() -> Meterite:
    try:
        ensure_settings(of_uvicorn(sys.argv))
        settings = starting.check()
        configure_logs(settings.log_format)
        govern_server_logs(settings.api_key_name)
        service = Service(settings)
        service.load()  # before the server says that it starts, so that a mistake is one line here, too
        app = create_app(settings, service)
    except starting.MENDABLE as exc:
        starting.tell(exc)
        raise SystemExit(starting.failed_status()) from None
    gc.freeze()  # what was imported stays; a full collection looks through it for 50 ms, and all requests wait
    return app


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    app = globals()["app"] = _first()
    return app
