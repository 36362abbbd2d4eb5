"""The door: nothing but the open places without a valid token.

Guaranteed: what lies behind finds the org in ``scope["meterite.org"]`` (and in ``scope["state"]["org"]``), and
no request without a valid token, or sent by a foreign page in a browser's name, gets there. Open places answer
without looking at a token at all. A browser isn't challenged: that would open a dialog in the middle of the docs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette._utils import get_route_path

from meterite.api.credentials import CookieSigner, Credential, Tokens, find_token, may_act
from meterite.model.errors import ForbiddenError, UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from meterite.api.errors import Problems

ORG: Final = "meterite.org"
CREDENTIAL: Final = "meterite.credential"
OPEN_PATHS: Final = frozenset({"/", "/logout", "/health", "/ready", "/ping", "/settings"})
"""The last two are asked by InfluxDB's clients before they send a token."""
PASSWORD_PARAMETERS: Final = {"/write": b"p", "/query": b"p"}
"""Places whose clients may put their password into the address (InfluxDB 1): there it carries the token."""
STATIC_PREFIX: Final = "/static/"

_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="meterite", charset="UTF-8"')
_POLICY_VIOLATION: Final = 1008
_NO_TOKEN: Final = {
    "header": "The header {name} holds no token of this service.",
    "query": "The query parameter {name} holds no token of this service.",
    "cookie": "The cookie {name} isn't good, or not any more; open /docs with the token again.",
}


class Gate:
    """ASGI middleware. ``page``: what a browser without a token is shown, and its headers."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: Tokens,
        signer: CookieSigner,
        api_key_name: str,
        problems: Problems,
        page: bytes = b"",
        page_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._signer = signer
        self._name = api_key_name
        self._header = api_key_name.lower().encode()
        self._problems = problems
        self._page = page
        self._page_headers = [(k.lower().encode(), v.encode()) for k, v in (page_headers or {}).items()]

    def org_of(self, scope: Scope) -> str | None:
        """The org of the token in the header, and nothing else: for the fast door. None: ask the whole gate."""
        name = self._header
        for key, value in scope["headers"]:
            if key == name and value:
                return self._tokens.org_of(value.strip())
        return None

    def authenticate(self, scope: Scope) -> tuple[str, Credential]:
        """Org and credential; raises UnauthorizedError or ForbiddenError."""
        password = PASSWORD_PARAMETERS.get(get_route_path(scope))
        credential = find_token(scope["headers"], scope.get("query_string", b""), self._name, password)
        org = self._believed(credential) if credential is not None else None
        if credential is None or org is None:
            raise self._missing() if credential is None else self._invalid(credential)
        if not may_act(credential.kind, scope["method"], scope["headers"]):
            raise ForbiddenError(
                "foreign-page",
                f"A browser may change things from our own pages only; send the header {self._name}.",
            )
        return org, credential

    def _believed(self, credential: Credential) -> str | None:
        if credential.kind == "cookie":
            org = self._signer.read(credential.value)
            if org is not None:
                return org
        org = self._tokens.org_of(credential.value)
        if (
            org is None and credential.kind == "token"
        ):  # "Token user:password" is InfluxDB 2's for clients of 1
            org = self._tokens.org_of(credential.value.partition(b":")[2])
        return org

    def _missing(self) -> UnauthorizedError:
        return UnauthorizedError(
            "token-missing", f"Send a token in the header {self._name}, or as Authorization: Bearer."
        )

    def _invalid(self, credential: Credential) -> UnauthorizedError:
        sentence = _NO_TOKEN.get(credential.kind, "Authorization holds no token of this service.")
        return UnauthorizedError(
            "token-invalid",
            f"{sentence.format(name=self._name)} Of several the first counts: header, Authorization, query, cookie.",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http" or _is_open(scope):
            await self._app(scope, receive, send)
            return
        try:
            org, credential = self.authenticate(scope)
        except UnauthorizedError as error:
            await self._unauthorized(error, scope, send)
            return
        except ForbiddenError as error:
            await self._problems.send(error, scope, send)
            return
        scope[ORG] = scope.setdefault("state", {})["org"] = org
        scope[CREDENTIAL] = credential
        await self._app(scope, receive, send)

    async def _unauthorized(self, error: UnauthorizedError, scope: Scope, send: Send) -> None:
        headers = dict(scope["headers"])
        wants_page = b"text/html" in headers.get(b"accept", b"")
        if wants_page and self._page:
            body, answer = self._page, [*self._page_headers, (b"content-type", b"text/html; charset=utf-8")]
            answer.append((b"content-length", str(len(body)).encode()))
        else:
            _, body, answer = self._problems.of(error, scope)
            if not (wants_page or b"sec-fetch-mode" in headers or b"referer" in headers):
                answer.append(_CHALLENGE)
        await send({"type": "http.response.start", "status": 401, "headers": answer})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _is_open(scope: Scope) -> bool:
    path = get_route_path(scope)
    return path in OPEN_PATHS or path.startswith(STATIC_PREFIX)
