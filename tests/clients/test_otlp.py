"""OpenTelemetry's SDK for Python with its OTLP/HTTP exporter (protobuf)."""

from __future__ import annotations

import contextlib
import math

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExportResult,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

from clients.between import PASS
from clients.found import readings
from e2e.server import ONE

RESOURCE = {"service.name": "shop", "service.instance.id": "i-1"}
SCOPE = {"otel.scope.name": "tests.größe", "otel.scope.version": "1.2"}
CODES = [
    "http.requests",
    "queue.length",
    "open.files",
    *(f"{name}_{part}" for name in ("duration", "size") for part in ("bucket", "count", "sum", "min", "max")),
]
DELTA = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}


@pytest.fixture(autouse=True)
def metrics(client):
    """Empty ones."""
    for code in CODES:
        client.post("/metric/", json={"code": code, "name": code})
        client.delete(f"/metric/{code}/readings", params={"all": "true"})


@pytest.fixture(params=[None, DELTA], ids=["cumulative", "delta"])
def measured(request):
    """Collected from instruments of all kinds: what an exporter is given, and the instants at which it is true."""
    reader = InMemoryMetricReader(preferred_temporality=request.param)
    with contextlib.closing(Provider(reader)) as provider:
        yield provider


class Provider:
    def __init__(self, reader):
        self.reader = reader
        exponential = View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())
        self.provider = MeterProvider(
            [reader], Resource(RESOURCE), views=[exponential], shutdown_on_exit=False
        )
        meter = self.provider.get_meter("tests.größe", "1.2")
        meter.create_counter("http.requests", "1", "Requests").add(3, {"http.route": "/a b", "ok": True})
        meter.create_up_down_counter("open.files").add(-2)
        meter.create_gauge("queue.length").set(4.5, {"q": [1, 2]})
        duration = meter.create_histogram("duration", "s", explicit_bucket_boundaries_advisory=[0.5, 10])
        size = meter.create_histogram("size", "By")
        for value in (0.25, 3, 70):
            duration.record(value, {"n": 1.5})
            size.record(value)
        self.data = reader.get_metrics_data()

    def close(self):
        self.provider.shutdown()

    def at_us(self):
        """By metric."""
        scope = self.data.resource_metrics[0].scope_metrics[0]
        return {each.name: each.data.data_points[0].time_unix_nano // 1000 for each in scope.metrics}

    def expected(self):
        """What Meterite has to answer, but for the exponential buckets."""
        at = self.at_us()

        def series(code, value, **labels):
            named = {name.replace("__", "."): text for name, text in labels.items()}
            key = tuple(sorted({**RESOURCE, **SCOPE, **named}.items()))
            name = code.rpartition("_")[0] if code.startswith(("duration_", "size_")) else code
            return {(key, at[name]): value}

        buckets = {}
        for le, count in (("0.5", 1), ("10", 2), ("+Inf", 3)):
            buckets |= series("duration_bucket", count, le=le, n="1.5")
        return {
            "http.requests": series("http.requests", 3, http__route="/a b", ok="true"),
            "open.files": series("open.files", -2),
            "queue.length": series("queue.length", 4.5, q="[1,2]"),
            "duration_bucket": buckets,
            "duration_count": series("duration_count", 3, n="1.5"),
            "duration_sum": series("duration_sum", 73.25, n="1.5"),
            "duration_min": series("duration_min", 0.25, n="1.5"),
            "duration_max": series("duration_max", 70, n="1.5"),
            "size_count": series("size_count", 3),
            "size_sum": series("size_sum", 73.25),
            "size_min": series("size_min", 0.25),
            "size_max": series("size_max", 70),
        }


@contextlib.contextmanager
def exporter(url, token=ONE, **options):
    made = OTLPMetricExporter(f"{url}/v1/metrics", headers={"x-auth-token": token}, timeout=30, **options)
    try:
        yield made
    finally:
        made.shutdown()


def test_matrix(between, client, script, measured):
    """Whatever goes wrong, the exporter sends again by its own rule, and each reading is there once."""
    proxy = between(script, "/v1/metrics")
    with exporter(proxy.url) as made:
        assert made.export(measured.data) is MetricExportResult.SUCCESS
    proxy.wait()
    assert [seen.step for seen in proxy.seen] == [*script, PASS]
    assert proxy.seen[-1].headers["content-type"] == "application/x-protobuf"
    wanted = measured.expected()
    assert {code: readings(client, code) for code in wanted} == wanted
    buckets = readings(client, "size_bucket")
    les = sorted((float(dict(labels)["le"]), value) for (labels, _), value in buckets.items())
    assert les[-1] == (math.inf, 3)
    for bound, count in les:
        assert count == sum(value <= bound for value in (0.25, 3, 70))


@pytest.mark.parametrize("compression", [Compression.Gzip, Compression.Deflate])
def test_compression(server, client, measured, compression):
    """Both that it knows."""
    with exporter(server.url, compression=compression) as made:
        assert made.export(measured.data) is MetricExportResult.SUCCESS
    assert readings(client, "http.requests") == measured.expected()["http.requests"]


def test_wrong_token(between, client, measured):
    """Is a failure at once: nothing is sent again, nothing is there."""
    proxy = between()
    with exporter(proxy.url, "wrong") as made:
        assert made.export(measured.data) is MetricExportResult.FAILURE
    assert [seen.status for seen in proxy.seen] == [401]
    assert readings(client, "http.requests") == {}


def test_what_never_succeeds_is_not_sent_again(between, client, measured):
    """An export of which nothing can be taken is a failure at once."""
    for code in CODES:
        client.post(f"/metric/{code}/deactivate")
    proxy = between()
    try:
        with exporter(proxy.url) as made:
            assert made.export(measured.data) is MetricExportResult.FAILURE
        assert [seen.status for seen in proxy.seen] == [400]
    finally:
        for code in CODES:
            client.post(f"/metric/{code}/activate")
