"""Routes that know their place: its methods, and its parameters.

What this file guarantees: 405 answers with ``Allow`` as RFC 9110 (section 10.2.1) asks for it (the framework keeps a
route a method, and names the methods of the first route alone). A query parameter that a route doesn't declare is
refused before anything is done, since a misspelt bound would be an open one; the token's parameter always passes.
The routes of the original go on ignoring what they don't know, as their clients may rely on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from meterite.model.errors import InvalidInputError
from meterite.model.near import HINT, near
from meterite.model.time import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.dependencies.models import Dependant
    from starlette.routing import Match
    from starlette.types import Message, Receive, Scope, Send

SHOWN_MAX: Final = 12


class PlaceRoute(APIRoute):
    """``allowed`` and ``headed`` by path are filled as the modules of routes are loaded."""

    allowed: dict[str, set[str]] = {}  # noqa: RUF012 - shared by all routes on purpose
    headed: set[str] = set()  # noqa: RUF012 - the same; where HEAD goes with GET
    tolerant = False

    def __init__(self, path: str, *args: object, **kwargs: object) -> None:
        super().__init__(path, *args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        self.allowed.setdefault(self.path_format, set()).update(self.methods or ())
        self.parameters = tuple(dict.fromkeys(_declared(self.dependant)))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            allowed = self.allowed[self.path_format] | ({"HEAD"} if self.path in self.headed else set())
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        if scope["query_string"] and not self.tolerant:
            check_parameters(scope["query_string"], self.parameters, scope["app"].state.api_key_name)
        await super().handle(scope, receive, send)


def _declared(dependant: Dependant) -> Iterator[str]:
    for field in dependant.query_params:
        yield field.alias
    for part in dependant.dependencies:
        yield from _declared(part)


class OriginalRoute(PlaceRoute):
    """A call of the original, or one that programs make who add parameters of their own (``/health?_=1``).

    ``HEAD`` is answered as ``GET``, without the body, since monitors ask so; these routes answer small documents.
    """

    tolerant = True

    def __init__(self, path: str, *args: object, **kwargs: object) -> None:
        super().__init__(path, *args, **kwargs)
        if "GET" in (self.methods or ()):
            self.headed.add(self.path)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches({**scope, "method": "GET"} if self._is_head(scope) else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_head(scope):
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        await super().handle(scope, receive, send)

    def _is_head(self, scope: Scope) -> bool:
        return scope.get("method") == "HEAD" and "GET" in (self.methods or ())


def _without_body(send: Send) -> Send:
    async def sending(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sending


def check_parameters(query_string: bytes, known: tuple[str, ...], api_key_name: str) -> None:
    """InvalidInputError at the first name that is none of ``known``."""
    for name, _ in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name in known or name.lower() == api_key_name.lower():
            continue
        meant = near(name, known, HINT)
        if meant is not None:
            hint = f"did you mean {meant}?"
        else:
            hint = f"this place takes {', '.join(known[:SHOWN_MAX])}." if known else "this place takes none."
        raise InvalidInputError(
            "unknown-parameter", f"There is no parameter {excerpt(name)}: {hint}", place=("query", name)
        )
