"""Python's prometheus-client as jobs use it to push. It never tries again: whoever calls it is told, and may."""

from __future__ import annotations

import http.client
import urllib.error

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import (
    basic_auth_handler,
    delete_from_gateway,
    push_to_gateway,
    pushadd_to_gateway,
)

from clients.between import BUSY, KILLED, LATE, LOST
from e2e.server import ONE

PLACE = "/metrics/job"
GONE = (http.client.RemoteDisconnected, ConnectionResetError, urllib.error.URLError)
TRIES = 5


def handler(token):
    """The token is the password of Basic."""

    def handle(url, method, timeout, headers, data):
        return basic_auth_handler(url, method, timeout, headers, data, "anybody", token)

    return handle


def registry(code, **values):
    """One gauge with a label, a value for each of its series."""
    made = CollectorRegistry()
    gauge = Gauge(code, "What it is", ["part"], registry=made)
    for part, value in values.items():
        gauge.labels(part).set(value)
    return made


def call(way, proxy, job, made=None, *, token=ONE):
    """One call of the library."""
    options = {"job": job, "grouping_key": {"instance": "a/b", "empty": ""}, "handler": handler(token)}
    way(proxy.url, **options, **({} if made is None else {"registry": made}))


def called_until_it_went_well(way, proxy, job, made=None):
    """As a careful job would; what the library said each time before."""
    said = []
    for _ in range(TRIES):
        try:
            call(way, proxy, job, made)
        except urllib.error.HTTPError as error:
            said.append(error.code)
            error.close()
        except GONE:
            said.append("gone")
        else:
            return said
    raise AssertionError(said)


def found(client, code):
    """Values by part, in the order of their times. All have the group's labels."""
    values = {}
    for row in client.get(f"/metric/{code}/readings").json():
        labels = dict(row["labels"])
        assert (labels.pop("job"), labels.pop("instance")) == (code, "a/b")
        values.setdefault(labels.pop("part", None), []).append(row["reading"])
        assert set(labels) <= {"le"}
    return values


@pytest.fixture
def code(client, request):
    """A metric of the test's own."""
    made = request.node.name.translate(str.maketrans("[]-", "___"))
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made


def expected(script):
    """What the library says before it goes well."""
    return [503 if step == BUSY else "gone" for step in script]


def test_push(between, client, script, code):
    """A group is replaced, whatever goes wrong: what it had ends once. Where a push was committed and its answer lost,
    the next is there, too, with a time of its own.
    """
    call(push_to_gateway, between(), code, registry(code, old=0))
    proxy = between(script, PLACE)
    made = registry(code, x=1, y=2)
    assert called_until_it_went_well(push_to_gateway, proxy, code, made) == expected(script)
    proxy.wait()
    values = found(client, code)
    assert values.pop("old") == [0, None]
    times = {len(of_part) for of_part in values.values()}
    assert {part: set(of_part) for part, of_part in values.items()} == {"x": {1}, "y": {2}}
    assert times <= ({2} if {LOST, LATE} & set(script) else {1, 2} if KILLED in script else {1})
    assert len(times) == 1


def test_delete(between, client, script, code):
    """Each series ends once, however often it is asked for; what it had stays."""
    proxy = between()
    call(push_to_gateway, proxy, code, registry(code, x=1, y=2))
    proxy = between(script, PLACE)
    assert called_until_it_went_well(delete_from_gateway, proxy, code) == expected(script)
    proxy.wait()
    assert found(client, code) == {"x": [1, None], "y": [2, None]}
    assert proxy.seen[-1].status == 202


def test_push_replaces_and_pushadd_adds(between, client, code):
    """All of the group, or the metrics that are pushed."""
    other = f"{code}_other"
    client.post("/metric/", json={"code": other, "name": other})
    proxy = between()
    both = registry(code, x=1, y=2)
    Gauge(other, "Another", registry=both).set(7)
    call(push_to_gateway, proxy, code, both)
    call(pushadd_to_gateway, proxy, code, registry(code, y=3))
    assert found(client, code) == {"x": [1, None], "y": [2, 3]}
    assert [row["reading"] for row in client.get(f"/metric/{other}/readings").json()] == [7]
    call(push_to_gateway, proxy, code, registry(code, z=4))
    assert found(client, code) == {"x": [1, None], "y": [2, 3, None], "z": [4]}
    assert [row["reading"] for row in client.get(f"/metric/{other}/readings").json()] == [7, None]


def test_all_kinds(between, client):
    """Counters, histograms with their buckets, and when they were made, each by its own code."""
    made = CollectorRegistry()
    Counter("kinds_hits", "Hits", registry=made).inc(3)
    Histogram("kinds_took_seconds", "How long", buckets=(0.5, 1), registry=made).observe(0.7)
    codes = ["kinds_hits_total", "kinds_hits_created", "kinds_took_seconds_created"]
    codes += [f"kinds_took_seconds_{part}" for part in ("bucket", "sum", "count")]
    for code in codes:
        client.post("/metric/", json={"code": code, "name": code})
    push_to_gateway(between().url, job="kinds", registry=made, handler=handler(ONE))
    newest = {code: client.get(f"/metric/{code}/readings").json() for code in codes}
    assert [row["reading"] for row in newest["kinds_hits_total"]] == [3]
    assert {row["labels"]["le"]: row["reading"] for row in newest["kinds_took_seconds_bucket"]} == {
        "0.5": 0,
        "1.0": 1,
        "+Inf": 1,
    }
    assert [row["reading"] for row in newest["kinds_took_seconds_sum"]] == [0.7]
    assert len(newest["kinds_hits_created"]) == len(newest["kinds_took_seconds_created"]) == 1


@pytest.mark.parametrize("way", [push_to_gateway, pushadd_to_gateway, delete_from_gateway])
def test_wrong_token(between, client, code, way):
    """It is told 401, asks once, and nothing is written."""
    proxy = between()
    made = None if way is delete_from_gateway else registry(code, x=1)
    with pytest.raises(urllib.error.HTTPError) as raised:
        call(way, proxy, code, made, token="wrong")
    assert raised.value.code == 401
    raised.value.close()
    assert [seen.status for seen in proxy.seen] == [401]
    assert found(client, code) == {}
