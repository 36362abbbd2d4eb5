"""Routes of protocols that aren't ours: their clients bring parameters, and want errors, of their own.

What this file guarantees: what will never succeed is a 4xx (400 unless a door says otherwise), what may is a 503 with
``Retry-After``, in the protocol's own shape, whether a route refuses it or what stands before the routes (the token,
the body's size and packing); a cookie opens none of these doors, since no browser's page is their client; parameters
that a route doesn't know are the client's own business.
"""

from __future__ import annotations

from abc import abstractmethod
from http import HTTPStatus
from inspect import signature
from typing import TYPE_CHECKING, Final

from fastapi import Request, Response
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException

from meterite.api.gate import CREDENTIAL
from meterite.api.route import PlaceRoute
from meterite.model.errors import (
    DamagedError,
    ForbiddenError,
    MeteriteError,
    MethodError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaError,
)

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from meterite.recording.receipts import Receipt

    Direct = Callable[..., Awaitable[Response]]

SKIPPED: Final = "Meterite-Skipped"

_OWN_STATUS: Final[dict[type[MeteriteError], int]] = {
    UnauthorizedError: 401,
    ForbiddenError: 403,
    MethodError: 405,
    TooLargeError: 413,
    UnsupportedMediaError: 415,
}


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


def skipped(receipt: Receipt) -> dict[str, str]:
    """The header that tells what was no reading, and no error either; none where there was nothing such."""
    return {SKIPPED: str(receipt.skipped)} if receipt.skipped else {}


def taken(receipt: Receipt, status: int = 204) -> Response:
    """Success without a body, which most of these clients ask for."""
    return Response(status_code=status, headers=skipped(receipt))


class ProtocolRoute(PlaceRoute):
    """A door's routes are of a subclass that says in :meth:`refusal` how its clients are told of errors.

    Filled as the modules of routes are loaded: ``doors`` by path, and the functions of those that need nothing but who
    calls and the request, ``fixed`` by method and path, ``open_ended`` by method where paths go on as they like.
    """

    doors: dict[re.Pattern[str], type[ProtocolRoute]] = {}  # noqa: RUF012 - shared by all routes on purpose
    fixed: dict[tuple[str, str], Direct] = {}  # noqa: RUF012 - the same
    open_ended: dict[str, list[tuple[re.Pattern[str], Direct]]] = {}  # noqa: RUF012 - the same
    tolerant = True

    def __init__(self, path: str, *args: object, **kwargs: object) -> None:
        super().__init__(path, *args, **kwargs)
        self.doors[self.path_regex] = type(self)
        if set(signature(self.endpoint).parameters) == {"called", "request"}:
            for method in self.methods or ():
                if "{" in path:
                    self.open_ended.setdefault(method, []).append((self.path_regex, self.endpoint))
                else:
                    self.fixed[method, path] = self.endpoint

    @classmethod
    def direct(cls, method: str, path: str) -> Direct | None:
        """The function that answers there, if it needs no more than it can be given here."""
        found = cls.fixed.get((method, path))
        if found is None:
            found = next((each for place, each in cls.open_ended.get(method, ()) if place.match(path)), None)
        return found

    @staticmethod
    @abstractmethod
    def refusal(error: MeteriteError, request: Request) -> Response:
        """The answer that tells of an error, in the protocol's own shape. The request may not have reached a route."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuse_cookie(scope)
        await super().handle(scope, receive, send)


def refuse_cookie(scope: Scope) -> None:
    """UnauthorizedError where a cookie let the request in."""
    credential = scope.get(CREDENTIAL)
    if credential is not None and credential.kind == "cookie":
        raise UnauthorizedError("token-missing", "A cookie opens no door of this protocol; send a token.")


def refusal_at_door(error: Exception, scope: Scope) -> Response | None:
    """How the door that was asked tells of the error; None where none was, and for faults of ours."""
    allow: Mapping[str, str] = {}
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allow = error.headers or {}
        error = MethodError(
            "method-not-allowed", f"Only {allow.get('Allow', 'other methods')} is taken here."
        )
    if not isinstance(error, MeteriteError) or isinstance(error, DamagedError):
        return None
    path = get_route_path(scope)
    door = next((door for place, door in ProtocolRoute.doors.items() if place.match(path)), None)
    if door is None:
        return None
    refusal = door.refusal(error, Request(scope))
    refusal.headers.update(allow)
    return refusal
