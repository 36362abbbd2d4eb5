"""OTLP: what decoding costs a reading, and the whole way through ``POST /v1/metrics``, compaction included.

5,000 readings a request: gauges of 5 metrics on 1,000 hosts each, with three attributes, under a resource and a scope,
as protobuf and as JSON. Decoding is measured in this process, the way of the requests as in ``post_readings``.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from benchmarks.load import request, send
from benchmarks.measure import Row, median, own_cpu_s
from benchmarks.post_readings import rest
from benchmarks.servers import TOKEN, meterite
from benchmarks.stores import START_US
from meterite.wire.names import Names
from meterite.wire.otlp import decode_otlp
from meterite.wire.otlp_json import decode_otlp_json

if TYPE_CHECKING:
    from collections.abc import Callable

METRICS = 5
HOSTS = 1000
POINTS = METRICS * HOSTS
CONNECTIONS = 4
STEP_NS = 10 * 10**9
READINGS_MAX = 1_000_000


def run(*, full: bool) -> list[Row]:
    count, turns = (400, 5) if full else (60, 3)
    rows: list[Row] = []
    for what, media, encode, decode in (
        ("protobuf", "application/x-protobuf", ExportMetricsServiceRequest.SerializeToString, decode_otlp),
        ("JSON", "application/json", _json, decode_otlp_json),
    ):
        rng = np.random.default_rng(1)
        bodies = [encode(_export(rng, n)) for n in range(count)]
        decoding = median([_decoded(decode, bodies[0]) for _ in range(7)])
        before, after = zip(*[_sent(bodies, media) for _ in range(turns)], strict=True)
        how = f"{len(bodies[0]) // POINTS} bytes each; median of {turns} servers, {count * POINTS / 1e6:g} M readings"
        rested = f"{median(after):.2f} µs until the server rests; decoding is {decoding / median(before):.0%}"
        rows += [
            Row(
                f"OTLP {what}: CPU to decode a reading",
                decoding,
                "µs",
                note="plain Python, names known, median of 7",
            ),
            Row(f"`POST /v1/metrics`, {what}: CPU a reading", median(before), "µs", note=f"{how}; {rested}"),
        ]
    return rows


def _decoded(decode: Callable[..., object], body: bytes) -> float:
    names = Names()
    began = own_cpu_s()
    rounds = 0
    while own_cpu_s() - began < 0.3:
        decode(body, readings_max=READINGS_MAX, names=names)
        rounds += 1
    return (own_cpu_s() - began) / (rounds * POINTS) * 1e6


def _sent(bodies: list[bytes], media: str) -> tuple[float, float]:
    requests = [request("POST", "/v1/metrics", body, TOKEN, media) for body in bodies]
    with tempfile.TemporaryDirectory() as name, meterite(Path(name)) as server:
        for n in range(METRICS):
            server.ask("POST", "/metric/", {"code": f"system.metric.{n}", "name": f"Metric {n}"})
        before = server.cpu_s()
        send(server.port, requests, connections=CONNECTIONS, total=len(bodies))
        answered = server.cpu_s() - before
        rested = rest(server) - before
    readings = len(bodies) * POINTS
    return answered / readings * 1e6, rested / readings * 1e6


def _json(message: ExportMetricsServiceRequest) -> bytes:
    return json.dumps(MessageToDict(message, use_integers_for_enums=True)).encode()


def _export(rng: np.random.Generator, turn: int) -> ExportMetricsServiceRequest:
    """Two-decimal values; each series' times go on from request to request."""
    message = ExportMetricsServiceRequest()
    resource_metrics = message.resource_metrics.add()
    for name, value in (
        ("service.name", "shop"),
        ("service.instance.id", "i-1"),
        ("telemetry.sdk.language", "python"),
    ):
        resource_metrics.resource.attributes.add(key=name).value.string_value = value
    scope_metrics = resource_metrics.scope_metrics.add()
    scope_metrics.scope.name = "benchmarks"
    values = np.round(50 + 10 * rng.standard_normal((METRICS, HOSTS)), 2).tolist()
    at_ns = START_US * 1000 + turn * STEP_NS
    for n in range(METRICS):
        metric = scope_metrics.metrics.add(name=f"system.metric.{n}", unit="%", description="One of some")
        for host, value in enumerate(values[n]):
            point = metric.gauge.data_points.add(
                time_unix_nano=at_ns, start_time_unix_nano=START_US * 1000, as_double=value
            )
            for name, said in (
                ("host.name", f"host-{host:04}"),
                ("rack", f"r{host % 7}"),
                ("region", "eu-west"),
            ):
                point.attributes.add(key=name).value.string_value = said
    return message
