"""Who may reach what, for every route there is: a route that is added is tested without being named here."""

from __future__ import annotations

import base64
import json
import re

import pytest

from meterite.api.route import PlaceRoute
from meterite.app import openapi_document

OPEN = {"/", "/logout", "/health", "/ready", "/ping", "/settings"}
BODIES = {
    ("PUT", "/metric/{code}"): {"code": "M1", "name": "n"},
    ("POST", "/metric/{code}"): {"reading": 1},
}
MAKES_METRICS = {("POST", "/metric/{code}/readings")}
PARAMS = {("DELETE", "/metric/{code}/readings"): {"all": "true"}}
WAYS = ("header", "bearer", "token", "basic", "query", "cookie")


def routes():
    """The routes of the API, in the document or not, and the pages."""
    document = openapi_document()
    known = {(method, path) for path, methods in PlaceRoute.allowed.items() for method in methods}
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert known <= documented
    return sorted({*known, *documented, ("GET", "/docs"), ("GET", "/redocs"), ("GET", "/openapi.json")})


CLOSED = [(method, path) for method, path in routes() if path not in OPEN]
OF_A_METRIC = [(method, path) for method, path in CLOSED if "{code}" in path]
OF_AN_EVENT = [(method, path) for method, path in CLOSED if "{event_id}" in path]
NO_EVENT = "01a20d65-79d3-7000-8000-000400000000"


def test_every_route_is_looked_at():
    """What stands in a path is the metric's code, an event's id and its handler, or what a Pushgateway groups by."""
    named = {path: set(re.findall(r"{(\w+)}", path)) for _, path in CLOSED}
    assert set().union(*named.values()) == {"code", "event_id", "handler", "grouping"}


def ask(client, method, path, code="M1", event_id=NO_EVENT, **options):
    kept = {"json": BODIES.get((method, path)), "params": PARAMS.get((method, path))}
    path = path.replace("{code}", code).replace("{event_id}", event_id).replace("{handler}", "ops")
    path = path.replace("{grouping}", "eA")
    return client(method, path, **(kept | options))


def raise_event(client):
    """The id of an event of org_01, and what there is to know of it."""
    client.post("/metric/", json={"code": "M1", "name": "n", "max_reading": 1})
    client.post("/metric/M1", json={"reading": 2})
    (event,) = client.get("/events").json()["events"]
    return event["id"], event


def with_token(way, token):
    basic = "Basic " + base64.b64encode(f"me:{token}".encode()).decode()
    return {
        "header": {"headers": {"x-auth-token": token}},
        "bearer": {"headers": {"authorization": f"Bearer {token}"}},
        "token": {"headers": {"authorization": f"Token {token}"}},
        "basic": {"headers": {"authorization": basic}},
        "query": {"params": {"x-auth-token": token}},
        "cookie": {"headers": {"cookie": f"x-auth-token={token}", "origin": "http://test"}},
    }[way]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_no_valid_token_is_401(client, method, path):
    """None at all, an unknown one by every way, an empty one: 401 with a challenge, and nothing is said or done.

    In which shape that is told at the doors of other protocols: see test_doors.py.
    """
    client.post("/metric/", json={"code": "M1", "name": "n"})
    before = client.get("/metric/M1").json()
    answers = [ask(client, method, path, token=None), ask(client, method, path, token=" ")]
    answers += [ask(client, method, path, token=None, **with_token(way, "wrong")) for way in WAYS]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert "wrong" not in answer.text
    assert client.get("/metric/M1").json() == before


@pytest.mark.parametrize(("method", "path"), sorted({*OF_A_METRIC} - MAKES_METRICS))
def test_another_orgs_metric_is_none(client, method, path):
    """Exactly the answer of a metric that doesn't exist, and it stays as it is."""
    client.post("/metric/", json={"code": "M1", "name": "n"})
    client.post("/metric/M1", json={"reading": 1})
    before = client.get("/metric/M1").json()
    foreign = ask(client, method, path, token="token-two")
    assert foreign.status_code == 404
    assert client.get("/metric/M1").json() == before
    client.post("/metric/M1/deactivate")
    client.delete("/metric/M1")
    nobodys = ask(client, method, path, token="token-two")
    assert nobodys.status_code == 404

    def said(answer):
        return {key: value for key, value in answer.json().items() if key != "request_id"}

    assert said(foreign) == said(nobodys)


@pytest.mark.parametrize(("method", "path"), sorted(MAKES_METRICS))
def test_another_orgs_metric_takes_nothing(client, method, path):
    """Where a metric may be made, its code in another org is another metric: nothing is told of it, or done to it."""
    client.post("/metric/", json={"code": "M1", "name": "n"})
    client.post("/metric/M1", json={"reading": 1})
    before = client.get("/metric/M1").json()
    ask(client, method, path, token="token-two", content=b"42", json=None)
    assert client.get("/metric/M1").json() == before


@pytest.mark.parametrize(("method", "path"), OF_AN_EVENT)
def test_another_orgs_event_is_none(client, method, path):
    """Exactly the answer of an event that doesn't exist, but for the id that was sent, and it stays as it is."""
    id_, event = raise_event(client)
    foreign = ask(client, method, path, event_id=id_, token="token-two")
    nobodys = ask(client, method, path, token="token-two")
    assert (foreign.status_code, nobodys.status_code) == (404, 404)

    def said(answer, id_):
        text = {key: value for key, value in answer.json().items() if key != "request_id"}
        return json.loads(json.dumps(text).replace(id_, "ID"))

    assert said(foreign, id_) == said(nobodys, NO_EVENT)
    assert client.get(f"/events/{id_}").json() == event | {"deliveries": []}
    assert client.get("/events", token="token-two").json()["events"] == []
    assert client.get("/alerts", token="token-two").json() == {"alerts": [], "next": None}


def test_orgs_have_their_own_metrics(client):
    """The same code in two orgs is two metrics; lists and bulk pushes don't cross over."""
    for token in ("token-one", "token-two"):
        assert client.post("/metric/", json={"code": "M1", "name": token}, token=token).status_code == 200
    client.post("/metric/", json={"code": "mine", "name": "n"})
    assert [metric["name"] for metric in client.get("/metric/", token="token-two").json()] == ["token-two"]
    pushed = client.post("/readings", json={"metric": "mine", "reading": 1}, token="token-two")
    assert pushed.json()["accepted"] == 1
    assert client.get("/metric/mine", token="token-two").json()["current_reading"] == 1
    assert client.get("/metric/mine").json()["current_reading"] is None
    client.post("/metric/M1", json={"reading": 5})
    assert client.get("/metric/M1", token="token-two").json()["current_reading"] is None


@pytest.mark.parametrize("way", [way for way in WAYS if way != "cookie"])
def test_every_way_of_a_token(client, way):
    """The same org by each."""
    assert client.get("/metric/", token=None, **with_token(way, "token-one")).status_code == 200


@pytest.mark.parametrize("path", sorted(OPEN))
def test_open_places(client, path):
    """They answer without a token, and with a wrong one."""
    for token in (None, "wrong"):
        assert client.get(path, token=token).status_code in {200, 204, 303}


def test_the_docs_cookie_opens_the_api(client):
    """Opened with the token in the address, the docs set a cookie that works from our own pages only."""
    page = client.get("/docs", token=None, params={"x-auth-token": "token-one"})
    assert page.status_code == 200
    value = page.headers["set-cookie"].partition(";")[0]
    assert "token-one" not in value
    client.http.cookies.clear()
    headers = {"cookie": value}
    assert client.get("/metric/", token=None, headers=headers).status_code == 200
    new = {"code": "C", "name": "n"}
    assert client.post("/metric/", token=None, headers=headers, json=new).status_code == 403
    ours = headers | {"sec-fetch-site": "same-origin"}
    assert client.post("/metric/", token=None, headers=ours, json=new).status_code == 200


def test_the_document_is_served(client):
    """``/openapi.json`` is the committed document."""
    assert client.get("/openapi.json").json() == openapi_document()
