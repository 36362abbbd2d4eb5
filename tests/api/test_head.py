"""``HEAD``, as monitors ask."""

from __future__ import annotations

import pytest


@pytest.fixture
def metric(client):
    client.post("/metric/", json={"code": "a/readings", "name": "n"})


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/metric", "/metric/?limit=1&_=2", "/metric/a%2Freadings"]
)
def test_head_is_get_without_a_body(client, metric, path):
    """Status and headers are those of ``GET``, the length included."""
    asked, headed = client.get(path), client("HEAD", path)
    assert headed.status_code == 200
    assert headed.content == b""
    ids = {"x-request-id"}
    assert {k: v for k, v in headed.headers.items() if k not in ids} == {
        k: v for k, v in asked.headers.items() if k not in ids
    }
    assert int(headed.headers["content-length"]) == len(asked.content)


def test_head_needs_what_get_needs(client, metric):
    """A token, and a metric that is there."""
    assert client("HEAD", "/metric/", token=None).status_code == 401
    missing = client("HEAD", "/metric/nowhere")
    assert (missing.status_code, missing.content) == (404, b"")
    assert client("HEAD", "/health", token=None).status_code == 200


@pytest.mark.parametrize(
    "path", ["/readings", "/metric/M1/readings", "/metric/M1/summary", "/metric/M1/activate"]
)
def test_head_is_not_for_what_costs(client, path):
    """405, and ``Allow`` names what is."""
    answer = client("HEAD", path)
    assert answer.status_code == 405
    assert "HEAD" not in answer.headers["allow"]


def test_allow_names_it(client):
    """Where there is a ``GET`` that is cheap."""
    assert client("PATCH", "/metric/M1").headers["allow"] == "DELETE, GET, HEAD, POST, PUT"
    assert client("PATCH", "/metric/").headers["allow"] == "GET, HEAD, POST"
    assert client.post("/", token=None).headers["allow"] == "GET, HEAD"
