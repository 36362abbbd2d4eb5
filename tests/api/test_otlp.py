"""OpenTelemetry's door."""

from __future__ import annotations

import gzip
import json

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from meterite.model.errors import UnavailableError
from wire.otlp_messages import export, gauge, point, to_protobuf

JSON, PROTOBUF = "application/json", "application/x-protobuf"
GOOD = gauge("queue.length", point({"a": "1"}, asInt="3"))
BAD = gauge("queue.length", point({"a": "1"}, asInt="4", at_ns=0), point(asInt="4", at_ns=0))


@pytest.fixture(autouse=True)
def metric(client):
    client.post("/metric/", json={"code": "queue.length", "name": "n"})


def send(client, document, media, **options):
    body = json.dumps(document).encode() if media == JSON else to_protobuf(document)
    return client.post("/v1/metrics", content=body, headers={"content-type": media}, **options)


def partial(answer):
    """rejected_data_points and error_message, however they were encoded."""
    if answer.headers["content-type"] == JSON:
        told = answer.json().get("partialSuccess")
        return told and (int(told["rejectedDataPoints"]), told["errorMessage"])
    message = ExportMetricsServiceResponse.FromString(answer.content)
    told = message.partial_success
    return (told.rejected_data_points, told.error_message) if message.HasField("partial_success") else None


def status(answer):
    """google.rpc.Status' code and message, however they were encoded."""
    if answer.headers["content-type"] == JSON:
        return answer.json()["code"], answer.json()["message"]
    told = Status.FromString(answer.content)
    return told.code, told.message


@pytest.mark.parametrize(("media", "empty"), [(JSON, b"{}"), (PROTOBUF, b"")])
def test_full_success(client, media, empty):
    """An empty message in the request's encoding; the reading is there, once however often it comes."""
    for document in (export(GOOD), export(GOOD), {}):
        answer = send(client, document, media)
        assert (answer.status_code, answer.content) == (200, empty)
        assert answer.headers["content-type"] == media
    (row,) = client.get("/metric/queue.length/readings").json()
    assert (row["reading"], row["reading_at"], row["labels"]) == (3, "2026-01-31T00:00:00Z", {"a": "1"})


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_partial_success(client, media):
    """The good data points are kept, the others counted, and the reasons told."""
    answer = send(client, export(BAD, GOOD, gauge("x" * 201, point(asInt="1"))), media)
    assert answer.status_code == 200
    count, told = partial(answer)
    assert count == 3
    assert "data point 0: time-invalid" in told
    assert "data point 3: code-invalid" in told
    assert len(client.get("/metric/queue.length/readings").json()) == 1


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_nothing_could_be_taken(client, media):
    """400 with a Status, so that the client says something."""
    answer = send(client, export(BAD), media)
    assert (answer.status_code, answer.headers["content-type"]) == (400, media)
    code, told = status(answer)
    assert (code, "time-invalid" in told) == (3, True)


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_a_histogram_counts_as_one(client, media):
    """Points are counted, not the readings that they are."""
    bare = gauge("x" * 195, point(asInt="1"))
    histogram = {"name": "x" * 195, "histogram": {"dataPoints": [point(count="1", sum=1)]}}
    count, _ = partial(send(client, export(GOOD, histogram, bare, BAD), media))
    assert count == 3
    assert partial(send(client, export(GOOD, histogram), media))[0] == 1


def test_many_reasons(client):
    """Some are told, and how many more there are."""
    points = (point({"n": str(n)}, asInt="1", at_ns=0) for n in range(5000))
    answer = send(client, export(GOOD, gauge("queue.length", *points)), PROTOBUF)
    count, told = partial(answer)
    assert (count, told.endswith("And 4990 more.")) == (5000, True)
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    ("sent", "answered"), [(JSON, JSON), (PROTOBUF, PROTOBUF), ("", PROTOBUF), ("text/plain", PROTOBUF)]
)
def test_what_is_neither(client, sent, answered):
    """400 with a Status in the encoding that the request said."""
    headers = {"content-type": sent} if sent else {}
    answer = client.post("/v1/metrics", content=b"\xff\xff", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (400, answered)
    assert status(answer)[0] == 3


@pytest.mark.parametrize("media", ["", "text/plain", "application/octet-stream", PROTOBUF])
def test_json_by_its_content(client, media):
    """A protobuf can't begin with a brace."""
    headers = {"content-type": media} if media else {}
    answer = client.post("/v1/metrics", content=json.dumps(export(GOOD)), headers=headers)
    assert (answer.status_code, answer.content) == (200, b"{}")


@pytest.mark.parametrize("media", [JSON + "; charset=utf-8", PROTOBUF])
def test_gzip(client, media):
    """As every SDK may send it."""
    body = json.dumps(export(GOOD)).encode() if media != PROTOBUF else to_protobuf(export(GOOD))
    headers = {"content-type": media, "content-encoding": "gzip"}
    assert client.post("/v1/metrics", content=gzip.compress(body), headers=headers).status_code == 200
    broken = client.post("/v1/metrics", content=gzip.compress(body)[:-9], headers=headers)
    unknown = client.post("/v1/metrics", content=body, headers=headers | {"content-encoding": "lzma"})
    assert (broken.status_code, unknown.status_code) == (400, 415)


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_not_now(client, app, media, monkeypatch):
    """503 with Retry-After and a Status: what all clients send again."""

    async def busy(*_args, **_options):
        raise UnavailableError("queue-full", "Not now.", retry_after_s=7)

    monkeypatch.setattr(app.api.state.service.recorder, "record", busy)
    answer = send(client, export(GOOD), media)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert (answer.headers["content-type"], status(answer)) == (media, (14, "queue-full: Not now."))


@pytest.mark.parametrize("media", [JSON, PROTOBUF])
def test_metrics_are_made(client, media):
    """With unit and description; a histogram's buckets and count have no unit."""
    histogram = {
        "name": "dauer",
        "unit": "s",
        "description": "Größe",
        "histogram": {"dataPoints": [point(sum=1)]},
    }
    assert partial(send(client, export(histogram), media)) is None
    made = {
        metric["code"]: (metric["unit"], metric["description"]) for metric in client.get("/metric/").json()
    }
    del made["queue.length"]
    assert made == {
        "dauer_bucket": (None, "Größe"),
        "dauer_count": (None, "Größe"),
        "dauer_sum": ("s", "Größe"),
    }
