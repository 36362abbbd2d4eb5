"""Routes that name all methods of their place.

What this file guarantees: 405 answers with ``Allow`` as RFC 9110 (section 10.2.1) asks for it. The framework
keeps a route a method, and names the methods of the first route alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class PlaceRoute(APIRoute):
    """``allowed`` by path is filled as the modules of routes are loaded."""

    allowed: dict[str, set[str]] = {}  # noqa: RUF012 - shared by all routes on purpose

    def __init__(self, path: str, *args: object, **kwargs: object) -> None:
        super().__init__(path, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        self.allowed.setdefault(self.path, set()).update(self.methods or ())

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.allowed[self.path]))})
        await super().handle(scope, receive, send)
