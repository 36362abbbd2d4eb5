"""What HTTP lets a client do with a body, over a socket: each door takes it, whatever its Content-Type says.

A door is added to :data:`DOORS` with a body that brings the reading 42 of a metric, at :data:`AT_US` if it has times.
"""

from __future__ import annotations

import gzip
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from clients.between import End
from clients.found import readings
from e2e.server import ONE
from wire.otlp_messages import export, gauge, point, to_protobuf
from wire.prometheus_messages import write_request

if TYPE_CHECKING:
    from collections.abc import Callable

AT, AT_S, AT_US = "2026-01-31T12:00:00Z", 1_769_860_800, 1_769_860_800_000_000


@dataclass(frozen=True, eq=False)
class Door:
    """``types`` name the format; ``any_type``: so does any other. ``methods`` are those that bring bodies.

    ``path`` and ``body`` are by the metric's code; ``labels`` are those of the reading, which is of now without
    ``timed``. ``bad`` is a body that is refused.
    """

    path: Callable[[str], str]
    body: Callable[[str], bytes]
    types: tuple[str, ...]
    any_type: bool = True
    methods: tuple[str, ...] = ("POST",)
    labels: tuple[tuple[str, str], ...] = ()
    timed: bool = True
    bad: bytes = b"?"


def at(path):
    return lambda _: path


def as_json(code):
    return json.dumps({"metric": code, "reading": 42, "reading_at": AT}).encode()


def line(code):
    return f"{code} value=42 {AT_S}000000000\n".encode()


def otlp(code):
    return export(gauge(code, point(asInt="42", at_ns=AT_S * 10**9)))


def of_collectd(code):
    plugin, _, kind = code.partition("_")
    value = {"values": [42], "dstypes": ["gauge"], "dsnames": ["value"], "time": AT_S, "interval": 10}
    return json.dumps([value | {"host": "a", "plugin": plugin, "type": kind}]).encode()


def of_victoria(code):
    return json.dumps({"metric": {"__name__": code}, "values": [42], "timestamps": [AT_S * 1000]}).encode()


LINES = ("text/plain", "text/plain; charset=utf-8")
DOORS = {
    "json": Door(at("/readings"), as_json, ("application/json", "text/json")),
    "ndjson": Door(at("/readings"), as_json, ("application/x-ndjson",), any_type=False),
    "csv": Door(
        at("/readings"),
        lambda code: f"metric,reading,reading_at\n{code},42,{AT}\n".encode(),
        ("text/csv",),
        any_type=False,
    ),
    "plain": Door(lambda code: f"/metric/{code}/readings", lambda _: f"42 {AT}".encode(), LINES),
    "influxdb1": Door(at("/write?db=x"), line, LINES),
    "influxdb2": Door(at("/api/v2/write?bucket=x&org=y"), line, LINES),
    "influxdb3": Door(at("/api/v3/write_lp?db=x"), line, LINES),
    "prometheus": Door(
        at("/api/v1/write"),
        lambda code: write_request([({"__name__": code}, [(AT_S * 1000, 42)])]).SerializeToString(),
        ("application/x-protobuf",),
    ),
    "otlp": Door(
        at("/v1/metrics"), lambda code: to_protobuf(otlp(code)), ("application/x-protobuf",), any_type=False
    ),
    "otlp-json": Door(
        at("/v1/metrics"), lambda code: json.dumps(otlp(code)).encode(), ("application/json",), any_type=False
    ),
    "pushgateway": Door(
        at("/metrics/job/j"),
        lambda code: f"{code} 42\n".encode(),
        LINES,
        methods=("POST", "PUT"),
        labels=(("job", "j"),),
        timed=False,
    ),
    "collectd": Door(
        at("/collectd"), of_collectd, ("application/json",), labels=(("host", "a"), ("plugin", "test"))
    ),
    "victoria": Door(at("/api/v1/import"), of_victoria, ("application/json",)),
    "victoria-text": Door(
        at("/api/v1/import/prometheus"), lambda code: f"{code} 42 {AT_S}000\n".encode(), LINES
    ),
}
ANY_TYPE = (None, "", "application/x-www-form-urlencoded", "application/octet-stream", "nonsense")
TYPES = [
    (name, content_type)
    for name, door in DOORS.items()
    for content_type in (*door.types, *(ANY_TYPE if door.any_type else ()))
]
METHODS = [(name, method) for name, door in DOORS.items() for method in door.methods]


@pytest.fixture
def end(server):
    """A connection of the test's own."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        yield End(connection)


@pytest.fixture
def code(client, request):
    made = f"{request.node.name}".translate(str.maketrans("[]/;=- .", "________"))
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made


def head(method, path, *headers, version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", "host: localhost", f"x-auth-token: {ONE}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def typed(content_type):
    """The header, where there is one."""
    return [] if content_type is None else [f"content-type: {content_type}"]


def chunks(body, size):
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def answered(end, method="POST"):
    """The status, what the body says, and the head."""
    answer = end.head()
    raw = b"" if answer.first[1] == "100" else end.body(answer)[1]
    return int(answer.first[1]), raw, answer


def taken(end, client, code, door):
    """The answer is a success, and the reading is there."""
    status, raw, answer = answered(end)
    assert status in {200, 202, 204}, raw
    found = readings(client, code)
    assert set(found.values()) == {42}
    assert {labels for labels, _ in found} == {door.labels}
    if door.timed:
        assert [at_us for _, at_us in found] == [AT_US]
    return answer


@pytest.mark.parametrize(("name", "content_type"), TYPES)
def test_content_types(end, client, code, name, content_type):
    """The format's own, and where the route decides none, an empty one, a form's and any other."""
    door = DOORS[name]
    body = door.body(code)
    path = door.path(code)
    end.send(head("POST", path, *typed(content_type), f"content-length: {len(body)}") + body)
    taken(end, client, code, door)


@pytest.mark.parametrize("packed", [False, True], ids=["as-it-is", "gzip"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(("name", "method"), METHODS)
def test_chunked(end, client, code, name, method, size, packed):
    """In chunks of any size, packed and not."""
    door = DOORS[name]
    body = door.body(code)
    more = ["content-encoding: gzip"] if packed else []
    path = door.path(code)
    end.send(head(method, path, *typed(door.types[0]), "transfer-encoding: chunked", *more))
    end.send(chunks(gzip.compress(body) if packed else body, size))
    taken(end, client, code, door)


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_expect(end, client, code, name, method):
    """The server asks for the body, and then answers; with a wrong token it doesn't ask."""
    door = DOORS[name]
    body = door.body(code)
    path = door.path(code)
    asking = [*typed(door.types[0]), f"content-length: {len(body)}", "expect: 100-continue"]
    end.send(head(method, path, *asking))
    assert answered(end)[0] == 100
    end.send(body)
    taken(end, client, code, door)
    end.send(head(method, path, *asking).replace(ONE.encode(), b"wrong"))
    assert answered(end)[0] == 401


@pytest.mark.parametrize("keep", [False, True], ids=["close", "keep-alive"])
@pytest.mark.parametrize(("name", "method"), METHODS)
def test_http_1_0(end, client, code, name, method, keep):
    """The connection ends with the answer, which says so where it was asked to stay."""
    door = DOORS[name]
    body = door.body(code)
    more = ["connection: keep-alive"] if keep else []
    path = door.path(code)
    request = head(method, path, f"content-length: {len(body)}", *typed(door.types[0]), *more, version="1.0")
    end.send(request + body)
    assert taken(end, client, code, door).headers["connection"] == "close"
    assert end.rest() == b""


@pytest.mark.parametrize("name", DOORS)
def test_a_connection_goes_on(end, client, code, name):
    """Requests one after the other on one connection, in all framings, a refused one among them."""
    door = DOORS[name]
    body = door.body(code)
    path = door.path(code)
    kind = typed(door.types[0])
    for _ in range(2):
        end.send(head("POST", path, *kind, f"content-length: {len(body)}") + body)
        taken(end, client, code, door)
        end.send(head("POST", path, *kind, f"content-length: {len(door.bad)}") + door.bad)
        assert 400 <= answered(end)[0] < 500
        end.send(head("POST", path, *kind, "transfer-encoding: chunked") + chunks(body, 5))
        taken(end, client, code, door)


@pytest.mark.parametrize("packed", [False, True], ids=["as-it-is", "gzip"])
def test_put_in_chunks(end, client, code, packed):
    """A metric is changed so, too."""
    body = json.dumps({"code": code, "name": "changed"}).encode()
    more = ["content-encoding: gzip"] if packed else []
    end.send(head("PUT", f"/metric/{code}", "transfer-encoding: chunked", *more))
    end.send(chunks(gzip.compress(body) if packed else body, 3))
    assert answered(end)[0] == 200
    assert client.get(f"/metric/{code}").json()["name"] == "changed"


@pytest.mark.parametrize("length", [[], ["content-length: 0"]], ids=["none", "zero"])
@pytest.mark.parametrize(
    "path", ["/metric/{code}", "/metric/{code}/readings", "/metric/", "/events", "/query?q=CREATE+DATABASE+x"]
)
def test_a_form_without_body(end, code, path, length):
    """A GET that says it has a form, as some clients always do, has its answer."""
    form = "content-type: application/x-www-form-urlencoded"
    end.send(head("GET", path.format(code=code), form, *length))
    status, raw, _ = answered(end)
    assert (status, raw[:1] in {b"{", b"["}) == (200, True)
