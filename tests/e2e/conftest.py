"""A server for each module, servers of their own for those that break them, and their logs where a test fails."""

from __future__ import annotations

import itertools

import pytest

from e2e.server import ONE, TWO, Server

SHOWN = 6000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for server in Server.running:
            report.sections.append((f"log of {server.url}", server.text()[-SHOWN:]))
    return report


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Shared by a module's tests; nothing it was sent may leave a traceback in its log."""
    one = Server(tmp_path_factory.mktemp("server"))
    try:
        yield one.start()
        assert "Traceback" not in one.text(), one.text()[-SHOWN:]
    finally:
        one.close()


@pytest.fixture
def start(tmp_path):
    """Starts servers for one test."""
    started = []

    def starting(*args, prepare=None, **options):
        path = tmp_path / f"server{len(started)}"
        path.mkdir()
        started.append(Server(path, *args, **options))
        return started[-1].start(prepare)

    yield starting
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def client(server):
    """org_01."""
    return server.client(ONE)


@pytest.fixture(scope="module")
def other(server):
    """org_02."""
    return server.client(TWO)


_numbers = itertools.count(1)


@pytest.fixture
def code(client):
    """A metric of its own for each test."""
    made = f"M{next(_numbers)}"
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made
