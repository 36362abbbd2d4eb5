"""What HTTP lets a client do with a body, over a socket: each door takes it, whatever its Content-Type says.

A door is added to :data:`DOORS` with a body that brings the reading 42 at :data:`AT_US` for the metric ``{code}``.
"""

from __future__ import annotations

import gzip
import json
import socket
from dataclasses import dataclass

import pytest

from clients.between import End
from clients.found import readings
from e2e.server import ONE

AT, AT_US = "2026-01-31T12:00:00Z", 1_769_860_800_000_000


@dataclass(frozen=True)
class Door:
    """``types`` name the format; ``any_type``: so does any other. ``methods`` are those that bring bodies."""

    path: str
    body: str
    types: tuple[str, ...]
    any_type: bool = True
    methods: tuple[str, ...] = ("POST",)


JSON = json.dumps({"metric": "{code}", "reading": 42, "reading_at": AT}).replace("{", "{{").replace("}", "}}")
LINE = f"{{code}} value=42 {AT_US}000\n"
DOORS = {
    "json": Door("/readings", JSON.replace("{{code}}", "{code}"), ("application/json", "text/json")),
    "ndjson": Door(
        "/readings", JSON.replace("{{code}}", "{code}") + "\n", ("application/x-ndjson",), any_type=False
    ),
    "csv": Door("/readings", f"metric,reading,reading_at\n{{code}},42,{AT}\n", ("text/csv",), any_type=False),
    "plain": Door("/metric/{code}/readings", f"42 {AT}", ("text/plain", "text/plain; charset=utf-8")),
    "influxdb-1": Door("/write", LINE, ("text/plain", "text/plain; charset=utf-8")),
    "influxdb-2": Door("/api/v2/write", LINE, ("text/plain",)),
    "influxdb-3": Door("/api/v3/write_lp", LINE, ("text/plain",)),
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
    made = f"{request.node.name}".translate(str.maketrans("[]/;= ", "______"))
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made


def head(method, path, *headers, version="1.1"):
    lines = [f"{method} {path} HTTP/{version}", "host: localhost", f"x-auth-token: {ONE}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def of(door, content_type):
    """Path and body are still to be filled in; the header where there is one."""
    return [] if content_type is None else [f"content-type: {content_type}"]


def chunks(body, size):
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def answered(end, method="POST"):
    """The status, what the body says, and the head."""
    answer = end.head()
    raw = b"" if answer.first[1] == "100" else end.body(answer)[1]
    return int(answer.first[1]), raw, answer


def taken(end, client, code):
    """The answer is a success, and the reading is there."""
    status, raw, answer = answered(end)
    assert status in {200, 202, 204}, raw
    assert readings(client, code) == {((), AT_US): 42}
    return answer


@pytest.mark.parametrize(("name", "content_type"), TYPES)
def test_content_types(end, client, code, name, content_type):
    """The format's own, and where the route decides none, an empty one, a form's and any other."""
    door = DOORS[name]
    body = door.body.format(code=code).encode()
    path = door.path.format(code=code)
    end.send(head("POST", path, *of(door, content_type), f"content-length: {len(body)}") + body)
    taken(end, client, code)


@pytest.mark.parametrize("packed", [False, True], ids=["as-it-is", "gzip"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(("name", "method"), METHODS)
def test_chunked(end, client, code, name, method, size, packed):
    """In chunks of any size, packed and not."""
    door = DOORS[name]
    body = door.body.format(code=code).encode()
    more = ["content-encoding: gzip"] if packed else []
    path = door.path.format(code=code)
    end.send(head(method, path, *of(door, door.types[0]), "transfer-encoding: chunked", *more))
    end.send(chunks(gzip.compress(body) if packed else body, size))
    taken(end, client, code)


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_expect(end, client, code, name, method):
    """The server asks for the body, and then answers; with a wrong token it doesn't ask."""
    door = DOORS[name]
    body = door.body.format(code=code).encode()
    path = door.path.format(code=code)
    asking = [*of(door, door.types[0]), f"content-length: {len(body)}", "expect: 100-continue"]
    end.send(head(method, path, *asking))
    assert answered(end)[0] == 100
    end.send(body)
    taken(end, client, code)
    end.send(head(method, path, *asking).replace(ONE.encode(), b"wrong"))
    assert answered(end)[0] == 401


@pytest.mark.parametrize("keep", [False, True], ids=["close", "keep-alive"])
@pytest.mark.parametrize(("name", "method"), METHODS)
def test_http_1_0(end, client, code, name, method, keep):
    """The connection ends with the answer, which says so where it was asked to stay."""
    door = DOORS[name]
    body = door.body.format(code=code).encode()
    more = ["connection: keep-alive"] if keep else []
    path = door.path.format(code=code)
    request = head(
        method, path, f"content-length: {len(body)}", *of(door, door.types[0]), *more, version="1.0"
    )
    end.send(request + body)
    assert taken(end, client, code).headers["connection"] == "close"
    assert end.rest() == b""


@pytest.mark.parametrize("name", DOORS)
def test_a_connection_goes_on(end, client, code, name):
    """Requests one after the other on one connection, in all framings, a refused one among them."""
    door = DOORS[name]
    body = door.body.format(code=code).encode()
    path = door.path.format(code=code)
    typed = of(door, door.types[0])
    for _ in range(2):
        end.send(head("POST", path, *typed, f"content-length: {len(body)}") + body)
        taken(end, client, code)
        end.send(head("POST", path, *typed, "content-length: 1") + b"?")
        assert 400 <= answered(end)[0] < 500
        end.send(head("POST", path, *typed, "transfer-encoding: chunked") + chunks(body, 5))
        taken(end, client, code)


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
