"""Errors, as clients see them."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Annotated

import httpx
import pytest
import structlog
from fastapi import FastAPI, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from meterite.api import errors
from meterite.api.body import ClientGone
from meterite.model import errors as e

ROOT = Path(__file__).resolve().parent.parent.parent
PROBLEMS = errors.Problems("x-auth-token")


class Body(BaseModel):
    reading: float
    few: list[int] = []


def failing(error: Exception) -> FastAPI:
    app = FastAPI(openapi_url=None)
    errors.install_error_handlers(app, PROBLEMS)

    @app.get("/fail")
    async def fail():
        raise error

    @app.post("/body")
    async def body(body: Body, limit: Annotated[int, Query(le=100)] = 1): ...

    return app


def ask(error: Exception | None = None, method="GET", path="/fail", **options) -> httpx.Response:
    app = errors.Failures(failing(error or ValueError()), PROBLEMS)

    async def asking():
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asking())


def every_error_class(kind: type = e.MeteriteError):
    for each in kind.__subclasses__():
        yield each
        yield from every_error_class(each)


def test_the_table_is_whole():
    """Every error class has its status."""
    assert {each for each in every_error_class() if each.__module__ == e.__name__} == set(errors.STATUSES)


@pytest.mark.parametrize("kind", list(errors.STATUSES))
def test_every_class_answers_its_status(kind):
    """A problem document with type, title, status, sentence, address and request id."""
    response = ask(
        kind("some-code", "Do this."),
        headers={"x-request-id": "abc-1"},
        params={"x-auth-token": "T", "a": "1"},
    )
    document = response.json()
    assert response.status_code == errors.STATUSES[kind] == document["status"]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == document["request_id"] == "abc-1"
    assert document["instance"] == "/fail?a=1"
    if kind not in {e.SettingsError, e.SchemaTooNewError}:
        assert document["type"] == "/problems/some-code"
    assert ("retry-after" in response.headers) == (response.status_code == 503)
    assert ("connection" in response.headers) == (response.status_code in {408, 413})


def test_invalid_input_tells_the_place():
    """422: the sentence in title, FastAPI's list in detail."""
    document = ask(e.InvalidInputError("code-invalid", "Say so.", place=("query", "start"))).json()
    assert document["title"] == "Say so."
    assert document["detail"] == [{"type": "code-invalid", "loc": ["query", "start"], "msg": "Say so."}]


def test_unavailable_says_when():
    """Retry-After is the error's own."""
    assert ask(e.UnavailableError("disk-full", "Wait.", retry_after_s=7)).headers["retry-after"] == "7"


def test_validation_keeps_fastapis_list():
    """loc, msg, type and a small input are there as the contract's clients know them."""
    document = ask(method="POST", path="/body?limit=1000", json={"few": [1]}).json()
    assert [each["loc"] for each in document["detail"]] == [["query", "limit"], ["body", "reading"]]
    assert document["detail"][0]["input"] == "1000"
    assert document["detail"][0]["ctx"] == {"le": 100}
    assert document["detail"][1]["input"] == {"few": [1]}
    assert (
        document["title"]
        == "query.limit: Input should be less than or equal to 100. There are 1 more like it."
    )


@pytest.mark.parametrize(
    "content",
    [
        b'{"reading": NaN, "few": "x"}',
        b'{"reading": "' + b"A" * 5000 + b'"}',
        b'{"reading": {"' + b"A" * 5000 + b'": "' + b"A" * 5000 + b'"}}',
        b'{"reading": [' + b'"AAAAAAAAAAAAAAAAAAAAAAAAA",' * 300 + b"1]}",
        b'{"few": [' + b'"AAAAAAAAAAAAAAAA",' * 300 + b"1]}",
        b'{"few": [Infinity, "\\ud800", "\\u0000"]}',
        b'{"few": [' + b"[" * 500 + b"]" * 500 + b"]}",
        b'{"few": 1' + b"0" * 400 + b"}",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_no_input_breaks_the_answer(content):
    """Strict JSON, 4xx, little of what was sent, whatever was sent."""
    path = "/body?limit=1&" + "A" * 500
    response = ask(method="POST", path=path, content=content, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500

    def refuse(word):
        raise AssertionError(word)

    document = json.loads(response.content.decode("utf-8"), parse_constant=refuse)
    assert response.text.count("A") < 200
    assert len(response.content) < 5000
    assert document["type"].startswith("/problems/")


def test_http_errors_keep_their_headers():
    """An unknown place is 404, a wrong method 405 with Allow, others keep their sentence."""
    assert ask(path="/nowhere").json()["type"] == "/problems/path-unknown"
    response = ask(method="PUT")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    response = ask(HTTPException(418, "teapot", headers={"X-Tea": "green"}))
    assert (response.json()["detail"], response.headers["x-tea"]) == ("teapot", "green")


def test_the_unforeseen_is_logged_once_and_repeats_nothing():
    """500 without a word of the exception, and one entry with the request's id."""
    with structlog.testing.capture_logs() as logs:
        response = ask(RuntimeError("private"))
    assert response.status_code == 500
    assert "private" not in response.text
    assert [entry["request_id"] for entry in logs] == [response.json()["request_id"]]


def run(app) -> list[dict]:
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/a", "query_string": b"", "headers": []}
    asyncio.run(errors.Failures(app, PROBLEMS)(scope, None, send))
    return sent


def test_a_started_answer_is_cut():
    """Nothing is sent after the failure, so that the server closes without the last chunk."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise e.DamagedError("damaged", "A segment is damaged.")

    with structlog.testing.capture_logs() as logs:
        assert [message["type"] for message in run(app)] == ["http.response.start"]
    assert len(logs) == 1


def test_a_client_that_left_is_no_failure():
    """Nothing sent, nothing logged."""

    async def app(scope, receive, send):
        raise ClientGone

    with structlog.testing.capture_logs() as logs:
        assert run(app) == []
    assert logs == []


def test_extra_members():
    """A receipt that was refused whole stands beside the problem's own members."""
    body, _ = errors.problem(422, "c", "S", errors=[], extra={"accepted": 0, "rejected": []})
    assert json.loads(body)["accepted"] == 0


def test_the_docs_name_every_code():
    """A code that a source file gives to an error, and docs/problems.md doesn't name, fails here."""
    named = set(
        re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "problems.md").read_text("utf-8"), re.MULTILINE)
    )
    names = "|".join(
        each.__name__ for each in errors.STATUSES if each not in {e.SettingsError, e.SchemaTooNewError}
    )
    raised = re.compile(rf'(?:{names})\(\s*"([a-z0-9-]+)"')
    used = {code for code, _ in errors.HTTP_CODES.values()} | {errors.INTERNAL[0]}
    for path in (ROOT / "src").rglob("*.py"):
        used.update(raised.findall(path.read_text(encoding="utf-8")))
    assert used <= named, used - named
