"""Exports of metrics, as the protobuf library of OpenTelemetry's own packages makes them."""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

AT_NS = 1_769_817_600_000_000_123
AT_US = 1_769_817_600_000_000


def export(*metrics, resource=(), scope=None):
    """One resource and one scope around metrics, each in the JSON of the specification."""
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": attributes(resource)},
                "scopeMetrics": [{"scope": scope or {}, "metrics": list(metrics)}],
            }
        ]
    }


def attributes(pairs):
    """Of texts, or of values as JSON writes them."""
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return [
        {"key": name, "value": {"stringValue": value} if isinstance(value, str) else value}
        for name, value in pairs
    ]


def point(labels=(), *, at_ns=AT_NS, **more):
    return {"timeUnixNano": str(at_ns), "attributes": attributes(labels), **more}


def gauge(name, *points, **more):
    return {"name": name, "gauge": {"dataPoints": list(points)}, **more}


def to_protobuf(document):
    return ParseDict(document, ExportMetricsServiceRequest()).SerializeToString()


def to_message(body):
    return ExportMetricsServiceRequest.FromString(body)


def to_json(message, **options):
    """A protobuf message in OTLP's JSON."""
    return MessageToDict(message, use_integers_for_enums=True, **options)
