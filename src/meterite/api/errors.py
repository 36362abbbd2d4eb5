"""The one table from an error to a status, and the problem documents (RFC 9457) that tell it.

Guaranteed: ``type`` is ``/problems/`` and the error's stable code (docs/problems.md names them all); no more
than 200 characters of input are repeated, none of them a control character, a token or a number JSON lacks;
what nobody foresaw is a 500 that repeats nothing, with one entry in the log; 503 says when to try again. At the doors
of other protocols the same errors are told in the protocol's shape, by the door's own ``refusal``.
"""

from __future__ import annotations

import asyncio
import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from meterite.api.body import ClientGone
from meterite.api.protocol import refusal_at_door
from meterite.api.redact import Redactor, clip
from meterite.api.request_id import request_id_of
from meterite.model import errors as e

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

RawHeaders = list[tuple[bytes, bytes]]

STATUSES: Final[dict[type[e.MeteriteError], int]] = {
    e.InvalidInputError: 422,
    e.MalformedError: 400,
    e.UnauthorizedError: 401,
    e.ForbiddenError: 403,
    e.NotFoundError: 404,
    e.MethodError: 405,
    e.ConflictError: 409,
    e.ExhaustedError: 409,
    e.TooSlowError: 408,
    e.TooLargeError: 413,
    e.UnsupportedMediaError: 415,
    e.UnavailableError: 503,
    e.MovedError: 503,
    e.RepeatedError: 503,
    e.DamagedError: 500,
    e.MalformedFileError: 500,
    e.SettingsError: 500,
    e.SchemaTooNewError: 500,
}
HTTP_CODES: Final = {
    400: ("request-malformed", "The request could not be understood; check its body and headers."),
    404: ("path-unknown", "There is no such place; see /docs for those that are."),
    405: ("method-not-allowed", "This place doesn't take that method; the header Allow names those it does."),
}
MEDIA_TYPE: Final = b"application/problem+json"
INTERNAL: Final = ("internal", "Something went wrong here; the log tells more under this request's id.")

# 200 in all: the address, what validation shows of the input, and what a sentence quotes.
REPEATED_CHARACTERS_MAX: Final = 200
INSTANCE_CHARACTERS_MAX: Final = 80
INPUT_CHARACTERS_MAX: Final = 60
PLACE_CHARACTERS_MAX: Final = 30
SENTENCE_CHARACTERS_MAX: Final = 500
ERRORS_MAX: Final = 10
_ITEMS_MAX: Final = 20
_EXACT_INTEGER_MAX: Final = 2**63


def status_of(error: e.MeteriteError) -> int:
    """By the nearest class that the table names."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def problem(
    status: int,
    code: str,
    sentence: str,
    *,
    instance: str | None = None,
    request_id: str | None = None,
    errors: Sequence[Mapping[str, Any]] | None = None,
    quoted: int | None = None,
    extra: Mapping[str, Any] | None = None,
    retry_after_s: int | None = None,
) -> tuple[bytes, RawHeaders]:
    """Body and headers. With ``errors`` (422) the sentence is the title, and ``detail`` the list. Of the sentence
    ``quoted`` characters at most are the client's, else all may be.
    """
    document: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase if errors is None else clip(sentence, SENTENCE_CHARACTERS_MAX),
        "status": status,
        "detail": clip(sentence, SENTENCE_CHARACTERS_MAX) if errors is None else list(errors),
    }
    if instance is not None:
        # A sentence may quote up to 200 characters itself: then there is no room for the address.
        room = max(1, REPEATED_CHARACTERS_MAX - (len(sentence) if quoted is None else quoted))
        document["instance"] = clip(instance, min(INSTANCE_CHARACTERS_MAX, room))
    if request_id is not None:
        document["request_id"] = request_id
    document.update(extra or {})
    body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    headers = [(b"content-type", MEDIA_TYPE), (b"content-length", str(len(body)).encode())]
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode()))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", str(retry_after_s or 1).encode()))
    if status in {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT}:
        headers.append((b"connection", b"close"))  # the rest of the body is not wanted
    return body, headers


class Problems:
    """Makes answers of errors, for one spelling of the token's parameter."""

    def __init__(self, api_key_name: str) -> None:
        self._redactor = Redactor(api_key_name)

    def instance(self, scope: Scope) -> str:
        """The address that was asked for, as it may be repeated."""
        raw = scope.get("raw_path")
        path = raw.decode("latin-1") if raw else scope["path"]
        query = scope.get("query_string", b"").decode("latin-1")
        return self._redactor.url(path + ("?" + query if query else ""))

    def of(
        self, error: Exception, scope: Scope, *, extra: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes, RawHeaders]:
        """Status, body and headers for any error. Those that are our fault are logged here, once."""
        refusal = refusal_at_door(error, scope)
        if refusal is not None:
            return refusal.status_code, bytes(refusal.body), _completed(refusal.raw_headers, error, scope)
        asked: dict[str, Any] = {
            "instance": self.instance(scope),
            "request_id": request_id_of(scope),
            "extra": extra,
        }
        if isinstance(error, e.InvalidInputError):
            shown = [{"type": error.code, "loc": _place(error.place), "msg": clip(error.message, 300)}]
            return 422, *problem(422, error.code, error.message, errors=shown, **asked)
        if isinstance(error, RequestValidationError):
            return _invalid(error, asked)
        if isinstance(error, HTTPException):
            return _http(error, asked)
        status = status_of(error) if isinstance(error, e.MeteriteError) else 500
        if isinstance(error, e.MeteriteError) and (status < 500 or error.again):
            wait = error.retry_after_s if isinstance(error, e.UnavailableError) else None
            return status, *problem(status, error.code, error.message, retry_after_s=wait, **asked)
        _log_failure(error, asked)
        code, sentence = (error.code, error.message) if isinstance(error, e.DamagedError) else INTERNAL
        return 500, *problem(500, code, sentence, **asked)

    def response(self, error: Exception, scope: Scope, *, extra: Mapping[str, Any] | None = None) -> Response:
        """The same as a Starlette response."""
        status, body, headers = self.of(error, scope, extra=extra)
        response = Response(body, status_code=status)
        response.raw_headers = headers
        return response

    async def send(self, error: Exception, scope: Scope, send: Send) -> None:
        """The same to an ASGI ``send``."""
        status, body, headers = self.of(error, scope)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _completed(headers: RawHeaders, error: Exception, scope: Scope) -> RawHeaders:
    """A door's headers, with those that each refusal has."""
    completed = [pair for pair in headers if pair[0] not in {b"connection", b"x-request-id"}]
    completed.append((b"x-request-id", request_id_of(scope).encode()))
    if isinstance(error, e.TooLargeError | e.TooSlowError):
        completed.append((b"connection", b"close"))  # the rest of the body is not wanted
    return completed


def _http(error: HTTPException, asked: Mapping[str, Any]) -> tuple[int, bytes, RawHeaders]:
    status = error.status_code
    code, sentence = HTTP_CODES.get(status, (f"http-{status}", str(error.detail)))
    body, headers = problem(status, code, sentence, **asked)
    given = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in (error.headers or {}).items()]
    named = {name for name, _ in headers}
    return status, body, headers + [pair for pair in given if pair[0] not in named]


def _invalid(error: RequestValidationError, asked: Mapping[str, Any]) -> tuple[int, bytes, RawHeaders]:
    found = error.errors()
    if any(each.get("type") == "json_invalid" for each in found):
        return 400, *problem(
            400, "json-invalid", "The body is not JSON; check quotes, commas and brackets.", **asked
        )
    budget = [INPUT_CHARACTERS_MAX]
    shown = [_shown(each, budget) for each in found[:ERRORS_MAX]]
    first = shown[0] if shown else {"loc": ["body"], "msg": "is invalid"}
    more = f" There are {len(found) - 1} more like it." if len(found) > 1 else ""
    sentence = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}.{more}"
    ours = len(str(found[0].get("ctx", {}).get("expected", ""))) if found else 0
    quoted = len(sentence) - ours  # less the words that may stand there, which may be many
    return 422, *problem(422, "request-invalid", sentence, errors=shown, quoted=quoted, **asked)


def _shown(found: Mapping[str, Any], budget: list[int]) -> dict[str, Any]:
    """One of FastAPI's errors, with as much of the input as the budget still has."""
    shown: dict[str, Any] = {
        "type": found.get("type", "value_error"),
        "loc": _place(found.get("loc", ()), budget),
        "msg": clip(str(found.get("msg", "")), SENTENCE_CHARACTERS_MAX // 2),
    }
    if "input" in found:
        shown["input"] = _small(found["input"], budget)
    bounds = {key: value for key, value in found.get("ctx", {}).items() if _is_plain(value)}
    return shown | ({"ctx": bounds} if bounds else {})


def _is_plain(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _place(place: Sequence[str | int], budget: list[int] | None = None) -> list[str | int]:
    """Names of fields may be the client's own: cut like any input."""
    shown: list[str | int] = []
    for part in list(place)[:_ITEMS_MAX]:
        if isinstance(part, int):
            shown.append(part)
            continue
        shown.append(clip(str(part), PLACE_CHARACTERS_MAX))
        if budget is not None:
            budget[0] -= len(str(part)) if len(str(part)) > _ITEMS_MAX else 0
    return shown


def _small(value: object, budget: list[int]) -> Any:
    """The value itself where it is small; else the start of a text, or an ellipsis for what has parts."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple, dict)):
        return _small_container(value, budget)
    if isinstance(value, int):
        if abs(value) < _EXACT_INTEGER_MAX:
            return value
        value = "…"  # converting a long integer to text is slow, and refused from 4,300 digits on
    if isinstance(value, float) and math.isfinite(value):
        return value
    text = value if isinstance(value, str) else str(value)
    text = clip(text, max(0, budget[0])) if budget[0] > 0 else "…"
    budget[0] -= len(text)
    return text


def _small_container(value: list[Any] | tuple[Any, ...] | dict[Any, Any], budget: list[int]) -> Any:
    if len(value) > _ITEMS_MAX or budget[0] <= 0:
        return "…"
    budget[0] -= 2 + len(value)
    if not isinstance(value, dict):
        return [_small(each, budget) for each in value]
    return {_small(str(key), budget): _small(each, budget) for key, each in value.items()}


def _log_failure(error: Exception, asked: Mapping[str, Any]) -> None:
    structlog.get_logger("meterite").error(
        "request failed", request_id=asked["request_id"], instance=asked["instance"], exc_info=error
    )


def _stopping() -> e.UnavailableError:
    return e.UnavailableError("stopping", "The service is stopping and can't finish this; send it again.")


class Failures:
    """The outermost middleware: answers what nobody inside did, so that the server never sees an exception.

    Once an answer has started it is cut (the server closes the connection without the last chunk): better than
    an end that looks whole. A client that left gets nothing, and the log doesn't hear of it. What the server gives up
    when it stops (a body that never came whole, say) is told so.
    """

    def __init__(self, app: ASGIApp, problems: Problems) -> None:
        self._app = app
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientGone:
            return
        except asyncio.CancelledError:
            # The server cancels what is in flight at the end of its grace; nobody else cancels a request.
            if not started:
                await self._problems.send(_stopping(), scope, send)
        except Exception as error:  # noqa: BLE001 - the last place that can answer
            cause = error.__cause__ if isinstance(error.__cause__, e.MeteriteError) else error
            if started:
                asked = {"request_id": request_id_of(scope), "instance": self._problems.instance(scope)}
                _log_failure(cause, asked)
            else:
                await self._problems.send(cause, scope, send)


def install_error_handlers(app: FastAPI, problems: Problems) -> None:
    """The framework's own errors and ours, told alike.

    :class:`Failures` stands within the framework's own catch-all, which would answer in plain text and raise
    again; another one goes around everything that stands outside of the framework.
    """

    async def answer(request: Request, error: Exception) -> Response:
        return problems.response(error, request.scope)

    for kind in (e.MeteriteError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
    app.add_middleware(Failures, problems=problems)
