"""Prometheus' door."""

from __future__ import annotations

import struct

import cramjam
import pytest

from meterite.api.unpack import MIB
from wire.prometheus_messages import request_2, write_request

T = 1_790_000_000_000
AT = "2026-09-21T14:13:20Z"
UP = {"__name__": "up", "job": "node"}
TYPE_1 = "application/x-protobuf"
TYPE_2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
BOTH = pytest.mark.parametrize(("make", "content_type"), [(write_request, TYPE_1), (request_2, TYPE_2)])


def snappy(request):
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def push(client, body, content_type=TYPE_1, **headers):
    headers = {"content-type": content_type, "content-encoding": "snappy"} | headers
    sent = {name: value for name, value in headers.items() if value is not None}
    return client.post("/api/v1/write", content=body, headers=sent)


def written(answer):
    """Samples, histograms and exemplars."""
    return tuple(
        int(answer.headers[f"x-prometheus-remote-write-{what}-written"])
        for what in ("samples", "histograms", "exemplars")
    )


@pytest.fixture(autouse=True)
def up(client):
    client.post("/metric/", json={"code": "up", "name": "up"})


def stored(client):
    return [
        (row["reading_at"], row["reading"], row.get("labels"))
        for row in client.get("/metric/up/readings").json()
    ]


@BOTH
def test_samples_are_written(client, make, content_type):
    """204 without a body, and how many; out of order is fine, and so is a sample that was sent before."""
    request = make([(UP, [(T, 1), (T + 1000, 0)])])
    request.timeseries[0].exemplars.add(value=1, timestamp=T)
    for body in (request, request, make([(UP, [(T - 60_000, 5)])])):
        answer = push(client, snappy(body), content_type)
        assert (answer.status_code, answer.content) == (204, b"")
        assert written(answer) == (len(body.timeseries[0].samples), 0, 0)
    labels = {"job": "node"}
    assert stored(client) == [
        ("2026-09-21T14:12:20Z", 5, labels), (AT, 1, labels), ("2026-09-21T14:13:21Z", 0, labels)
    ]  # fmt: skip


@BOTH
def test_good_samples_are_written_beside_bad_ones(client, make, content_type):
    """400, which no sender repeats, tells how many weren't taken and why."""
    request = make([(UP, [(T, 1)]), ({"job": "a"}, [(T, 1), (T + 1, 1)]), (UP, []), (UP, [(T + 1, 2)])])
    request.timeseries[2].histograms.add(count_int=1, timestamp=T)
    answer = push(client, snappy(request), content_type)
    assert answer.status_code == 400
    assert written(answer) == (2, 0, 0)
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("3 of 5 not taken: 2 × name-missing: A series needs")
    assert "1 × native-histogram:" in answer.text
    assert [value for _, value, _ in stored(client)] == [1, 2]


def test_metrics_are_made(client):
    """With the description and the unit that come along in 2.0."""
    series = [({"__name__": "temp_celsius", "room": "r1"}, [(T, 21.5)])]
    answer = push(client, snappy(request_2(series, {"temp_celsius": ("How warm it is.", "celsius")})), TYPE_2)
    assert (answer.status_code, written(answer)) == (204, (1, 0, 0))
    metric = client.get("/metric/temp_celsius").json()
    assert (metric["unit"], metric["description"]) == ("celsius", "How warm it is.")


def test_metadata_behind_the_samples(client):
    """1.0 tells it in requests of its own: metrics learn what they lack, those of a histogram, too; the rest stays."""
    series = [({"__name__": name}, [(T, 1)]) for name in ("warm", "t_bucket", "t_sum", "t_count", "own")]
    push(client, snappy(write_request(series)))
    client.put("/metric/own", json={"code": "own", "name": "n", "description": "Mine."})
    families = ((2, "warm"), (3, "t"), (2, "own"), (2, "unknown"))
    told = [{"type": t, "metric_family_name": f, "help": f"About {f}.", "unit": "s"} for t, f in families]
    assert push(client, snappy(write_request([], told))).status_code == 204
    known = {
        metric["code"]: (metric["unit"], metric["description"]) for metric in client.get("/metric/").json()
    }
    assert known["warm"] == ("s", "About warm.")
    assert known["t_bucket"][1] == known["t_sum"][1] == known["t_count"][1] == "About t."
    assert known["own"] == ("s", "Mine.")
    assert "unknown" not in known


def test_nothing_but_metadata(client):
    """Is fine."""
    request = write_request([], [{"type": 2, "metric_family_name": "up", "help": "Whether it is up."}])
    answer = push(client, snappy(request))
    assert (answer.status_code, written(answer)) == (204, (0, 0, 0))


@pytest.mark.parametrize("coding", ["snappy", "zstd", "gzip", None])
@pytest.mark.parametrize("said", [True, False])
def test_packings(client, coding, said):
    """Named, or not named and told by their bytes."""
    body = write_request([(UP, [(T, 1)])]).SerializeToString()
    packed = {
        "snappy": cramjam.snappy.compress_raw,
        "zstd": cramjam.zstd.compress,
        "gzip": cramjam.gzip.compress,
        None: bytes,
    }[coding](body)
    answer = push(client, bytes(packed), **{"content-encoding": coding if said else None})
    if coding == "gzip" and not said:
        assert answer.status_code == 400
    else:
        assert (answer.status_code, written(answer)) == (204, (1, 0, 0))
        assert len(stored(client)) == 1


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/octet-stream"}, {"content-type": ""}])
def test_senders_that_say_little(client, headers):
    """Neither packing nor version nor type: 1.0, packed with snappy."""
    answer = client.post("/api/v1/write", content=snappy(write_request([(UP, [(T, 1)])])), headers=headers)
    assert (answer.status_code, written(answer)) == (204, (1, 0, 0))


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"\x0a\x05ab", {"content-encoding": None}, 400, "protobuf-invalid"),
        (b"\xff\xff", {}, 400, "body-not-unpackable"),
        (b"", {}, 204, None),
        (b"\x05\x10abcde", {"content-encoding": None}, 400, "protobuf-invalid"),
        (b"", {"content-type": "application/x-protobuf;proto=x.y"}, 415, "protobuf-unknown"),
        (snappy(request_2([(UP, [(T, 1)])])), {}, 400, "protobuf-invalid"),
        (b"\x80\x80\x80\x80\x08\x00a", {"content-encoding": None}, 400, "body-too-large-unpacked"),
    ],
)
def test_what_never_will_succeed(client, body, headers, status, code):
    """4xx, a line that says why, and nothing written."""
    answer = push(client, body, **headers)
    assert answer.status_code == status
    assert code is None or code in answer.text
    assert stored(client) == []


@pytest.mark.parametrize(
    ("pack", "size", "code"),
    [
        (cramjam.snappy.compress_raw, 70 * MIB, "body-too-large-unpacked"),
        (cramjam.zstd.compress, 40 * MIB, "body-ratio"),
    ],
)
def test_a_bomb_whose_packing_nobody_named(client, pack, size, code):
    """Is noticed by the same limits as any other."""
    answer = push(client, bytes(pack(bytes(size))), **{"content-encoding": None})
    assert answer.status_code == 400
    assert answer.text.startswith(code)


def test_stale_markers(client):
    """Are written as what they are, and are null outside."""
    request = write_request([(UP, [(T, 0)])]).SerializeToString()
    stale = struct.pack("<Q", 0x7FF0000000000002)
    series = request[2:-9] + b"\x12\x10\x09" + stale + request[-7:]
    answer = push(client, bytes(cramjam.snappy.compress_raw(b"\x0a" + bytes([len(series)]) + series)))
    assert written(answer) == (1, 0, 0)
    assert stored(client) == [(AT, None, {"job": "node"})]


def test_a_cookie_opens_nothing(client):
    """No browser's page is this door's client."""
    headers = {"cookie": "x-auth-token=token-one", "origin": "http://test"}
    answer = client("POST", "/api/v1/write", token=None, headers=headers, content=b"")
    assert answer.status_code == 401
