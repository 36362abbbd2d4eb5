"""Query parameters that nobody declared."""

from __future__ import annotations

import pytest

from meterite.api.protocol import ProtocolRoute
from meterite.api.route import OriginalRoute, PlaceRoute
from meterite.app import build_api, openapi_document

CONTRACT = {
    ("GET", "/metric/"),
    ("POST", "/metric/"),
    ("GET", "/metric/{code}"),
    ("PUT", "/metric/{code}"),
    ("DELETE", "/metric/{code}"),
    ("POST", "/metric/{code}"),
    ("POST", "/metric/{code}/activate"),
    ("POST", "/metric/{code}/deactivate"),
}
OPEN = {("GET", path) for path in ("/health", "/ready", "/ping", "/settings")}


def made(routes):
    """The routes of ours, however deep the framework keeps them."""
    for route in routes:
        if isinstance(route, PlaceRoute):
            yield route
        yield from made(getattr(getattr(route, "original_router", None), "routes", ()))


ROUTES = sorted(
    ((method, route.path_format, route) for route in made(build_api().routes) for method in route.methods),
    key=lambda one: one[:2],
)
OURS = [
    (method, path) for method, path, route in ROUTES if not isinstance(route, OriginalRoute | ProtocolRoute)
]
PROTOCOLS = {(method, path) for method, path, route in ROUTES if isinstance(route, ProtocolRoute)}


@pytest.fixture
def three(client):
    client.post("/metric/", json={"code": "M1", "name": "n"})
    body = {"metric": "M1", "reading": [1, 2, 3], "reading_at": [1, 2, 3]}
    assert client.post("/readings", json=body, params={"precision": "s"}).status_code == 200


def test_only_the_original_is_tolerant():
    """Every route that is added refuses what it doesn't declare, unless it is one of these, or a protocol's."""
    assert {(method, path) for method, path, _ in ROUTES} - set(OURS) - PROTOCOLS == CONTRACT | OPEN
    assert {("DELETE", "/metric/{code}/readings"), ("POST", "/readings")} <= set(OURS)


def test_what_the_document_names_is_taken():
    """A route's parameters are those of its description; one that refuses none may read some by itself."""
    document = openapi_document()
    for method, path, route in ROUTES:
        described = document["paths"][path][method.lower()].get("parameters", [])
        named = {one["name"] for one in described if one["in"] == "query"}
        assert named == set(route.parameters) or (route.tolerant and named > set(route.parameters))


@pytest.mark.parametrize(("method", "path"), OURS)
def test_an_unknown_parameter_is_refused_everywhere(client, method, path):
    """422 with the parameter's place, before anything else is looked at."""
    answer = client(method, path.replace("{code}", "M1"), params={"zzzzzz": "1"})
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/unknown-parameter"
    assert answer.json()["detail"][0]["loc"] == ["query", "zzzzzz"]


def test_a_misspelt_bound_erases_nothing(client, three):
    """What was meant is said, and all readings are still there."""
    answer = client.delete("/metric/M1/readings", params={"start": "1", "ned": "2"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "ned"]
    assert "did you mean end?" in answer.json()["title"]
    assert len(client.get("/metric/M1/readings").json()) == 3
    assert client.delete("/metric/M1/readings?start=1&END=2").status_code == 422
    assert client.delete("/metric/M1/readings?start=1&end=2&label").status_code == 422
    assert len(client.get("/metric/M1/readings").json()) == 3


@pytest.mark.parametrize("name", ["x-auth-token", "X-Auth-Token", "x-auth%2Dtoken"])
def test_the_token_is_always_allowed(client, three, name):
    """However it is spelled, and beside the route's own parameters."""
    answer = client.get(f"/metric/M1/readings?{name}=token-one&limit=1", token=None)
    assert (answer.status_code, len(answer.json())) == (200, 1)


def test_the_originals_clients_may_send_more(client, three):
    """As before: the contract's calls ignore it, the fast push door's included."""
    more = {"_": "1", "limt": "3"}
    for method, path, body in (
        ("GET", "/metric/", None),
        ("POST", "/metric/", {"code": "M2", "name": "n"}),
        ("POST", "/metric/M1", {"reading": 1}),
        ("PUT", "/metric/M1", {"code": "M1", "name": "n"}),
        ("GET", "/metric/M1", None),
        ("POST", "/metric/M2/deactivate", None),
        ("DELETE", "/metric/M2", None),
        ("GET", "/health", None),
        ("GET", "/", None),
    ):
        assert client(method, path, params=more, json=body).status_code == 200, (method, path)


ROW = b'{"metric":"M1","reading":1,"reading_at":1769860800}'
ODD_ROW = b'{"metric":"M1","reading":"1","reading_at":1769860800}'
COLUMNS = b'{"metric":"M1","reading":[1],"reading_at":[1769860800]}'
CSV = {"content-type": "text/csv"}
NDJSON = {"content-type": "application/x-ndjson"}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/write", b"m v=1 1769860800", {}),
        ("/write", b'm v=1,w="a\\"b" 1769860800', {}),
        ("/api/v2/write?precision=us", b"m v=1 1769860800", {}),
        ("/readings?precision=ms", b"[%s]" % ROW, {}),
        ("/readings?precision=ms", b"[%s]" % ODD_ROW, {}),
        ("/readings?precision=ms", COLUMNS, {}),
        ("/readings?precision=ms", ROW, NDJSON),
        ("/readings?precision=ms", b"metric,reading,reading_at\nM1,1,1769860800\n", CSV),
        ("/metric/M1/readings?precision=ms", b"1 1769860800", {}),
        ("/api/v1/import", b'{"metric":{"__name__":"m"},"values":[1],"timestamps":[1769860800]}', {}),
        ("/api/v1/import/prometheus", b"m 1 1769860800\n", {}),
        ("/api/v1/import/prometheus?timestamp=1769860800", b"m 1\n", {}),
    ],
)
def test_a_wrong_unit(client, path, body, headers):
    """Another one is advised where the door has the parameter for it, and only there."""
    text = client.post(path, content=body, headers=headers).text
    assert "looks like s: send " in text
    assert ("or add ?precision=s." in text) is ("import" not in path)
