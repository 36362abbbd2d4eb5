"""The documentation in a real browser: it works without internet, and the token stays out of sight."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from browser.devtools import HOST, chromium, page
from e2e.server import ONE, Server
from programs import program

SWAGGER = "document.querySelectorAll('.opblock').length > 10"
REDOC = "document.querySelectorAll('[data-section-id]').length > 10"
FRONT = "document.querySelector('h1') !== null"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("server"))
    try:
        yield one.start()
        assert "Traceback" not in one.text()
    finally:
        one.close()


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def browser(runner):
    """One for all tests; each has a page and cookies of its own."""
    running = chromium(program("chromium"))
    yield runner.run(running.__aenter__())
    runner.run(running.__aexit__(None, None, None))


@pytest.fixture
def looked_at(runner, browser, server):
    """What ``look`` answers; whatever it did, nothing left this host and nothing was complained about."""
    base = f"http://{HOST}:{server.port}"

    async def looking(look):
        async with page(browser) as one:
            found = await look(one, base)
            return found, one.requests(), list(one.complaints())

    def looked(look):
        found, requests, complaints = runner.run(looking(look))
        assert complaints == []
        assert {urlsplit(one["url"]).netloc for one in requests} == {urlsplit(base).netloc}
        assert [one["url"].partition("?")[2] for one in requests if ONE in str(one)] == [
            f"x-auth-token={ONE}"
        ]
        return found

    return looked


@pytest.mark.parametrize(("place", "rendered"), [("/docs", SWAGGER), ("/redocs", REDOC)])
def test_the_docs(looked_at, server, place, rendered):
    """They render, the token leaves the address bar, and calls from the page go on through the cookie."""

    async def look(one, base):
        await one.open(f"{base}{place}?x-auth-token={ONE}", rendered)
        address = await one.evaluate("location.href")
        made = (
            "fetch('metric/', {method: 'POST', body: JSON.stringify({code: location.pathname, name: 'n'})})"
        )
        statuses = [
            await one.evaluate(f"{call}.then((answer) => answer.status)")
            for call in (made, "fetch('metric/')", "fetch('openapi.json')")
        ]
        await one.open(f"{base}/", FRONT)
        return address, statuses

    address, statuses = looked_at(look)
    assert address == f"http://{HOST}:{server.port}{place}"
    assert statuses == [200, 200, 200]


def test_try_it_out(looked_at):
    """Swagger UI's own button: the request is answered through the cookie."""

    async def look(one, base):
        await one.open(f"{base}/docs?x-auth-token={ONE}", SWAGGER)
        block = "document.querySelector('#operations-metrics-list_metrics')"
        for button in (".opblock-summary-control", ".try-out__btn", ".execute"):
            await one.until(f"{block}.querySelector('{button}') !== null")
            await one.evaluate(f"{block}.querySelector('{button}').click()")
        await one.until(f"{block}.querySelector('tbody .response-col_status') !== null")
        return await one.evaluate(f"{block}.querySelector('tbody .response-col_status').innerText")

    assert looked_at(look).startswith("200")
