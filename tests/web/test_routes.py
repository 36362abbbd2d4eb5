"""The gate and the pages together, as a browser and as a program see them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request

from meterite.api.credentials import CookiePolicy, CookieSigner, Tokens
from meterite.api.errors import Failures, Problems, install_error_handlers
from meterite.api.gate import ORG, Gate
from meterite.api.logs import AccessLog, RequestId, configure_logs
from meterite.web import pages
from meterite.web.routes import STATIC, install_web

TOKENS = {"123456": "org_01", "567890": "org_02"}
NAME = "x-auth-token"


@pytest.fixture
def app():
    problems = Problems(NAME)
    signer = CookieSigner([b"secret"], TOKENS)
    inner = FastAPI(title="Meterite", docs_url=None, redoc_url=None, openapi_url=None)
    install_error_handlers(inner, problems)
    install_web(inner, signer=signer, policy=CookiePolicy(NAME, "localtest.me"))

    @inner.api_route("/who", methods=["GET", "POST"], include_in_schema=False)
    async def who(request: Request) -> str:
        assert request.state.org == request.scope[ORG]
        return request.state.org

    gate = Gate(
        inner,
        tokens=Tokens(TOKENS),
        signer=signer,
        api_key_name=NAME,
        problems=problems,
        page=pages.token_page("Meterite", NAME),
        page_headers=pages.HEADERS,
    )
    return RequestId(AccessLog(Failures(gate, problems), problems))


@pytest.fixture
def ask(app):
    def asking(path, method="GET", base="http://localtest.me:8000", **options):
        async def go():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(go())

    with structlog.testing.capture_logs():
        yield asking


@pytest.mark.parametrize(
    "headers",
    [
        {NAME: "123456"},
        {"authorization": "Bearer 123456"},
        {"authorization": "Token 123456"},
        {"authorization": "Basic " + base64.b64encode(b"any:123456").decode()},
        {"cookie": f"{NAME}=123456"},
    ],
)
def test_every_way_in(ask, headers):
    """The contract's three, and those that other clients know."""
    assert ask("/who", headers=headers).json() == "org_01"
    assert ask(f"/who?{NAME}=567890").json() == "org_02"


@pytest.mark.parametrize(
    "path", ["/who", "/docs", "/redocs", "/openapi.json", "/nowhere", "/metric/a", "/problems"]
)
def test_nothing_without_a_token(ask, path):
    """401 with a challenge, for places that aren't there as well."""
    for headers in ({}, {NAME: "wrong"}, {NAME: "wrong", "cookie": f"{NAME}=123456"}):
        response = ask(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Basic ")
        assert response.json()["type"] in {"/problems/token-missing", "/problems/token-invalid"}


@pytest.mark.parametrize(
    ("headers", "query", "said"),
    [
        ({}, "", "Send a token in the header x-auth-token"),
        ({NAME: "wrong", "cookie": f"{NAME}=123456"}, "", "The header x-auth-token holds no token"),
        ({"authorization": "Bearer wrong"}, f"?{NAME}=123456", "Authorization holds no token"),
        ({}, f"?{NAME}=wrong", "The query parameter x-auth-token holds no token"),
        ({"cookie": f"{NAME}=v1.x.y"}, "", "The cookie x-auth-token isn't good, or not any more; open /docs"),
    ],
)
def test_a_wrong_token_is_told_from_none(ask, headers, query, said):
    """Where it was, without repeating it."""
    problem = ask(f"/who{query}", headers=headers).json()
    assert problem["detail"].startswith(said)
    assert problem["type"] == f"/problems/{'token-invalid' if headers or query else 'token-missing'}"
    assert "wrong" not in str(problem)


@pytest.mark.parametrize(
    "header", [{"sec-fetch-mode": "cors"}, {"referer": "http://x"}, {"accept": "text/html,*/*"}]
)
def test_a_browser_is_not_challenged(ask, header):
    """No dialog; somebody who reads HTML is told how to open the docs."""
    response = ask("/docs", headers=header)
    assert response.status_code == 401
    assert "www-authenticate" not in response.headers
    assert (f"/docs?{NAME}=" in response.text) == ("accept" in header)


def test_the_docs_make_a_cookie(ask):
    """200 with page and cookie, no redirect; from then on the cookie is enough, until it is taken away."""
    response = ask(f"/docs?{NAME}=123456")
    assert response.status_code == 200
    cookie = response.headers["set-cookie"]
    assert "HttpOnly; SameSite=Lax; Domain=localtest.me" in cookie
    assert "123456" not in cookie + response.text
    sent = {"cookie": cookie.partition(";")[0]}
    assert ask("/who", headers=sent).json() == "org_01"
    assert ask("/openapi.json", headers=sent).status_code == 200
    assert ask("/who", "POST", headers=sent).json()["type"] == "/problems/foreign-page"
    assert ask("/who", "POST", headers=sent | {"sec-fetch-site": "same-origin"}).json() == "org_01"
    out = ask("/logout", headers=sent)
    assert (out.status_code, out.headers["location"]) == (303, "/")
    assert len(out.headers.get_list("set-cookie")) == 2
    assert "Domain" not in ask(f"/docs?{NAME}=123456", base="https://10.0.0.1").headers["set-cookie"]
    assert "set-cookie" not in ask("/docs", headers={NAME: "123456"}).headers


@pytest.mark.parametrize("path", ["/docs", "/redocs"])
def test_pages_stand_alone(ask, path):
    """Our own files only, all of them there, without a token; no inline script; the headers as promised."""
    response = ask(path, headers={NAME: "123456"})
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "strict-origin"
    assert "script-src 'self';" in response.headers["content-security-policy"]
    assert "http" not in response.text
    assert all(not inside for inside in re.findall(r"<script[^>]*>(.*?)</script>", response.text))
    files = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert "static/address.js" in files
    for file in files:
        assert ask("/" + file).status_code == 200


def test_the_front_page(ask):
    """No token needed; JSON for programs, HTML for people."""
    assert ask("/").json() == {
        "status": "up",
        "name": "Meterite",
        "docs": "/docs",
        "redocs": "/redocs",
        "openapi": "/openapi.json",
    }
    assert "The service is up" in ask("/", headers={"accept": "text/html"}).text


def test_the_static_files_stay_among_themselves(ask):
    """Licences are there; no source map, and no way out of the folder."""
    for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2fpages.py", "/static/"):
        assert ask(path).status_code in {401, 404}
    assert not list(STATIC.rglob("*.map"))
    for folder in ("swagger-ui", "redoc"):
        assert (STATIC / folder / "LICENSE").is_file()


def test_redoc_asks_nobody_for_a_logo():
    """The change that VERSIONS.md tells of is made."""
    assert b"cdn.redoc.ly" not in (STATIC / "redoc" / "redoc.standalone.js").read_bytes()


def test_logs_name_the_request_and_no_token(app):
    """One line of JSON; the address redacted, what came from outside escaped; the id is the answer's."""
    out = io.StringIO()
    configure_logs("json", out)
    try:

        async def go():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://h") as client:
                return await client.get(f"/who?{NAME}=123456&a=%1b", headers={"x-request-id": "bad id\x7f"})

        response = asyncio.run(go())
    finally:
        structlog.reset_defaults()
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["url"] == "/who?a=%1b"
    assert entry["status"] == 200
    assert "123456" not in line
    assert response.headers["x-request-id"] == entry["request_id"] != "bad id\x7f"


def test_entries_are_escaped():
    """What a terminal would obey is text, on the console as well."""
    out = io.StringIO()
    configure_logs("console", out)
    try:
        structlog.get_logger().info("a\x1b[2Jb", code="c\nd")
    finally:
        structlog.reset_defaults()
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 1
