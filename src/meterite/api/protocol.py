"""Routes of protocols that aren't ours: their clients bring parameters, and want errors, of their own.

What this file guarantees: what will never succeed is a 4xx (400 unless a door says otherwise), what may is a 503 with
``Retry-After``, in the protocol's own shape; a cookie opens none of these doors, since no browser's page is their
client; parameters that a route doesn't know are the client's own business.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

from meterite.api.gate import CREDENTIAL
from meterite.api.route import PlaceRoute
from meterite.model.errors import (
    DamagedError,
    MeteriteError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Request, Response
    from starlette.types import Receive, Scope, Send

_OWN_STATUS: Final[dict[type[MeteriteError], int]] = {TooLargeError: 413, UnsupportedMediaError: 415}


def protocol_status(error: MeteriteError) -> int:
    """What any protocol's client understands: 503 where trying again helps, else a 4xx."""
    if error.again:
        return 503
    return _OWN_STATUS.get(type(error), 400)


def retry_after(error: MeteriteError) -> dict[str, str]:
    """The header for a 503; none for others."""
    if not error.again:
        return {}
    return {"Retry-After": str(error.retry_after_s if isinstance(error, UnavailableError) else 1)}


class ProtocolRoute(PlaceRoute):
    """A door's routes are of a subclass that says in :meth:`refusal` how its clients are told of errors."""

    tolerant = True

    @staticmethod
    @abstractmethod
    def refusal(error: MeteriteError, request: Request) -> Response:
        """The answer that tells of an error, in the protocol's own shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except MeteriteError as error:
                if isinstance(error, DamagedError):  # a fault of ours: told, and logged, where all such are
                    raise
                return self.refusal(error, request)

        return handle

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        credential = scope.get(CREDENTIAL)
        if credential is not None and credential.kind == "cookie":
            raise UnauthorizedError("token-missing", "A cookie opens no door of this protocol; send a token.")
        await super().handle(scope, receive, send)
