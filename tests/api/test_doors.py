"""The doors of other protocols: what stands before their routes refuses in the protocol's shape, too.

Generated from the table of doors, so that one that is added has to say its shape here.
"""

from __future__ import annotations

import gzip
import json

import pytest
from google.rpc.status_pb2 import Status

from meterite.api.collectd import CollectdRoute
from meterite.api.influx import _Route1, _Route2
from meterite.api.otlp import OtlpRoute
from meterite.api.plain import TextRoute
from meterite.api.protocol import ProtocolRoute
from meterite.api.remote_write import RemoteWriteRoute
from meterite.api.route import PlaceRoute
from wire.otlp_messages import export, gauge, point
from wire.prometheus_messages import write_request

PROTOBUF = "application/x-protobuf"
LIMIT = 65_536


def door_of(path):
    return next((door for place, door in ProtocolRoute.doors.items() if place.match(path)), None)


DOORS = sorted(
    (method, path.replace("{grouping}", "eA"))
    for path, methods in PlaceRoute.allowed.items()
    for method in methods
    if door_of(path.replace("{grouping}", "eA")) is not None
)
WRITES = [(method, path) for method, path in DOORS if method != "GET"]


def influx_1(answer):
    assert answer.headers["content-type"] == "application/json"
    (sentence,) = answer.json().values()
    assert set(answer.json()) == {"error"}
    return sentence


def influx_2(answer):
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"code", "message"}
    words = {
        400: "invalid",
        401: "unauthorized",
        405: "method not allowed",
        413: "request too large",
        415: "unsupported media type",
    }
    assert answer.json()["code"] == words[answer.status_code]
    return answer.json()["message"]


def otlp(answer):
    assert answer.headers["content-type"] == PROTOBUF
    status = Status.FromString(answer.content)
    assert status.code == (16 if answer.status_code == 401 else 3)
    return status.message


def text(answer):
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.count("\n") == 1
    return answer.text


def remote_write(answer):
    assert answer.headers["x-prometheus-remote-write-samples-written"] == "0"
    return text(answer)


def collectd(answer):
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["detail"]


SHAPES = {
    CollectdRoute: collectd,
    OtlpRoute: otlp,
    RemoteWriteRoute: remote_write,
    TextRoute: text,
    _Route1: influx_1,
    _Route2: influx_2,
}
TOO_LARGE = {RemoteWriteRoute: 400}
"""413 elsewhere."""


def told(path, answer):
    assert answer.headers["x-request-id"]
    return SHAPES[door_of(path)](answer)


def test_all_are_looked_at():
    """Each shape belongs to a door, and each door has one."""
    assert {door_of(path) for _, path in DOORS} == set(SHAPES)


@pytest.mark.parametrize(("token", "word"), [(None, "Send a token"), ("wrong", "holds no token")])
def test_no_valid_token(client, token, word):
    """401 with a challenge."""
    for method, path in DOORS:
        answer = client(method, path, token=token, headers={"content-type": PROTOBUF})
        assert (path, answer.status_code) == (path, 401)
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert word in told(path, answer)


def test_a_cookie(client):
    """401: no browser's page is a client of these."""
    headers = {"cookie": "x-auth-token=token-one", "origin": "http://test", "content-type": PROTOBUF}
    assert client.get("/metric/", token=None, headers=headers).status_code == 200
    for method, path in DOORS:
        answer = client(method, path, token=None, headers=headers)
        assert (path, answer.status_code) == (path, 401)
        assert "A cookie opens no door" in told(path, answer)


@pytest.mark.parametrize("settings", [{"body_bytes_max": LIMIT, "unpacked_bytes_max": LIMIT}])
@pytest.mark.parametrize(
    ("body", "coding"),
    [(b"x" * (LIMIT + 1), {}), (gzip.compress(b"x" * (LIMIT + 1)), {"content-encoding": "gzip"})],
    ids=["sent", "unpacked"],
)
def test_too_large(client, body, coding):
    """As it came, and unpacked: 413, or what the protocol's clients know; the rest isn't wanted."""
    for method, path in WRITES:
        answer = client(method, path, content=body, headers={"content-type": PROTOBUF} | coding)
        assert (path, answer.status_code) == (path, TOO_LARGE.get(door_of(path), 413))
        assert answer.headers.get_list("connection") == ["close"]
        assert str(LIMIT) in told(path, answer)


@pytest.mark.parametrize(
    ("coding", "status", "word"),
    [("gzip", 400, "packed body is damaged"), ("lzma", 415, "Content-Encoding is not taken")],
)
def test_not_unpackable(client, coding, status, word):
    """Damaged is 400, a coding that nobody knows 415."""
    headers = {"content-type": PROTOBUF, "content-encoding": coding}
    for method, path in WRITES:
        answer = client(method, path, content=b"\x1f\x8bnothing", headers=headers)
        assert (path, answer.status_code) == (path, status)
        assert word in told(path, answer)


def test_otlp_in_json(client):
    """The Status comes in the request's encoding, though its body was never read."""
    answer = client.post("/v1/metrics", token=None, json={})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == 16


def exemplar_1():
    request = write_request([({"__name__": "m"}, [(1_790_000_000_000, 1)])])
    request.timeseries[0].exemplars.add(value=1, timestamp=1_790_000_000_000)
    return request.SerializeToString()


def collectd_list(*values):
    kinds = {"dstypes": ["gauge"] * len(values), "dsnames": [f"n{n}" for n in range(len(values))]}
    place = {"host": "h", "plugin": "p", "plugin_instance": "", "type": "t", "type_instance": ""}
    return json.dumps([{"values": values, "time": 1769817600.25, "interval": 10.0} | kinds | place])


SKIPPED = [
    ("/api/v1/import", '{"metric":{"__name__":"m"},"values":[1,null],"timestamps":[1,2]}', 204),
    ("/api/v1/import/csv?format=1:metric:m,2:metric:n", "1,\n", 204),
    ("/api/v1/import/prometheus", "m_total 1 # {} 1\n# EOF\n", 204),
    ("/api/v1/write", exemplar_1(), 204),
    ("/api/v2/write", 'm text="x",value=1', 204),
    ("/api/v3/write_lp", 'm text="x",value=1', 204),
    ("/collectd", collectd_list(1, None), 200),
    ("/metrics/job/j", "m_total 1 # {} 1\n# EOF\n", 200),
    ("/v1/metrics", json.dumps(export(gauge("m", point({}, asInt="1", exemplars=[{"asInt": "1"}])))), 200),
    ("/write", 'm text="x",value=1', 204),
]


def test_skipped(client):
    """Told by a header, where there was something; the same again under an Idempotency-Key."""
    assert {door_of(path.partition("?")[0]) for path, _, _ in SKIPPED} == set(SHAPES)
    for path, body, status in SKIPPED:
        for _ in range(2):
            answer = client.post(path, content=body, headers={"idempotency-key": "k"})
            assert (path, answer.status_code, answer.content.strip(b"{}")) == (path, status, b"")
            assert (path, answer.headers.get("meterite-skipped")) == (path, "1")
    assert "meterite-skipped" not in client.post("/write", content="m value=1").headers


@pytest.mark.parametrize("path", sorted({path for _, path in WRITES}))
def test_a_method_that_is_not_taken(client, path):
    """405 and what is, in the protocol's shape."""
    answer = client("PATCH", path, content=b"{}", headers={"content-type": PROTOBUF})
    assert answer.status_code == 405
    taken = {method for method, one in DOORS if one == path}
    assert set(answer.headers["allow"].split(", ")) >= taken
    sentence = SHAPES[door_of(path)](answer)
    assert all(method in sentence for method in taken)
    assert "x-request-id" in answer.headers
