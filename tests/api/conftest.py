"""A real service on a file of its own, behind the whole of the app, without a socket."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from api.house import TOKENS, opened
from meterite.app import create_app
from meterite.settings import Settings


class Client:
    """Requests from org_01, one event loop for all of a test."""

    def __init__(self, portal, http):
        self._portal = portal
        self.http = http

    def __call__(self, method, path, token="token-one", **options):
        headers = options.pop("headers", {}) | ({"x-auth-token": token} if token else {})

        async def ask():
            return await self.http.request(method, path, headers=headers, **options)

        return self._portal.call(ask)

    def get(self, path, **options):
        return self("GET", path, **options)

    def post(self, path, **options):
        return self("POST", path, **options)

    def put(self, path, **options):
        return self("PUT", path, **options)

    def delete(self, path, **options):
        return self("DELETE", path, **options)


@asynccontextmanager
async def running(app):
    async with app.api.router.lifespan_context(app.api):
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield http


@pytest.fixture
def settings():
    """What a test wants otherwise: ``parametrize("settings", [{…}])``."""
    return {}


@pytest.fixture
def app(tmp_path, settings):
    url = f"sqlite:///{tmp_path}/m.db"
    return create_app(Settings(_env_file=None, database_url=url, api_tokens=TOKENS, **settings))


@pytest.fixture
def client(app):
    with (
        anyio.from_thread.start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(running(app)) as http,
    ):
        yield Client(portal, http)


@pytest.fixture(scope="module")
def runner():
    """One loop for all of a file's tests."""
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def house(runner, tmp_path_factory):
    """One app behind either protocol."""
    context = opened(tmp_path_factory.mktemp("door"))
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))
