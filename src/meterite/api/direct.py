"""Writes of protocols, called without the framework's way to them.

What this file guarantees: a door that needs nothing but who calls and the request is answered by the very function
that its route describes, behind the same gate and limits, and its errors are told where all are; whatever isn't such a
door goes on to the framework. To find and call a route takes the framework as long as it takes us to decode and record
1,000 readings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import Request
from starlette._utils import get_route_path

from meterite.api.caller import Caller
from meterite.api.gate import ORG
from meterite.api.protocol import ProtocolRoute, refuse_cookie

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send


class DirectDoors:
    """ASGI, right before the framework. ``service`` and settings are in the app's state, as for its routes."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = None
        if scope["type"] == "http":
            endpoint = ProtocolRoute.direct(scope["method"], get_route_path(scope))
        if endpoint is None:
            await self._api(scope, receive, send)
            return
        refuse_cookie(scope)
        scope["app"] = self._api
        response = await endpoint(
            called=Caller(self._api.state.service, scope[ORG]), request=Request(scope, receive)
        )
        await response(scope, receive, send)
