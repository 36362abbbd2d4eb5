"""OTLP's metrics, as protobuf and as JSON: both become the same."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import struct
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from meterite.model.columns import STALE_BITS, Described
from meterite.model.errors import InvalidInputError, MalformedError, MeteriteError, TooLargeError
from meterite.wire.otlp import decode_otlp
from meterite.wire.otlp_json import decode_otlp_json
from wire.known_names import check_known_names
from wire.otlp_messages import AT_NS, AT_US, attributes, export, gauge, point, to_json, to_protobuf

MAX = 10_000


def decode(document, readings_max=MAX):
    """As protobuf and as JSON."""
    binary = decode_otlp(to_protobuf(document), readings_max=readings_max)
    text = decode_otlp_json(json.dumps(document).encode(), readings_max=readings_max)
    assert plain(binary) == plain(text)
    assert binary.described == text.described
    return binary


def plain(decoded):
    """(row, code, labels, time, value by its bits) of each reading, (row, code) of each rejection, how many skipped."""
    assert len(set(decoded.keys)) == len(decoded.keys)
    assert (decoded.counted, decoded.unit) == ("index", "ns")
    keys = [decoded.keys[i] for i in decoded.key_index.tolist()]
    bits = decoded.values.view(np.uint64).tolist()
    columns = (decoded.row.tolist(), keys, decoded.at_us.tolist(), bits)
    taken = [(row, k.code, k.labels, at, value) for row, k, at, value in zip(*columns, strict=True)]
    return taken, [(r.index, r.code) for r in decoded.rejected], decoded.skipped


def readings(decoded):
    """{(code, labels): value}; all at the one time."""
    assert set(decoded.at_us.tolist()) <= {AT_US}
    assert not decoded.rejected
    keys = [decoded.keys[i] for i in decoded.key_index.tolist()]
    return {(key.code, key.labels): value for key, value in zip(keys, decoded.values.tolist(), strict=True)}


@pytest.mark.parametrize(
    "kind",
    [
        {"gauge": {}},
        {"sum": {"aggregationTemporality": 1, "isMonotonic": True}},
        {"sum": {"aggregationTemporality": 2, "isMonotonic": True}},
        {"sum": {"aggregationTemporality": 2}},
    ],
)
def test_numbers(kind):
    """A gauge's and a sum's points are readings at their time; names and attributes stay as they are."""
    points = [
        point({"http.route": "/a b", "größe": "ß"}, asDouble=1.5, startTimeUnixNano="5"),
        point(asInt="-3"),
    ]
    ((name, inner),) = kind.items()
    decoded = decode(export({"name": "http.server.größe", name: inner | {"dataPoints": points}}))
    labels = (("größe", "ß"), ("http.route", "/a b"))
    assert readings(decoded) == {("http.server.größe", labels): 1.5, ("http.server.größe", ()): -3.0}
    assert decoded.row.tolist() == [0, 1]


def test_a_delta_that_comes_again_is_the_same_reading():
    """Metric, labels and time are its name: the start doesn't matter."""
    sums = {"aggregationTemporality": 1, "dataPoints": [point({"a": "1"}, asInt="7", startTimeUnixNano="1")]}
    once = decode(export({"name": "hits", "sum": sums}))
    assert plain(once) == plain(decode(export({"name": "hits", "sum": sums})))


def test_labels():
    """Of the point, the scope and the resource; nearer ones stay, and the other's name says whose it is."""
    scope = {"name": "lib", "version": "1.2", "attributes": attributes({"x": "1", "name": "no"})}
    resource = {"service.name": "shop", "host": "r", "otel.scope.x": "r", "none": ""}
    document = export(gauge("m", point({"host": "p"}, asInt="1")), resource=resource, scope=scope)
    ((_, labels),) = readings(decode(document))
    assert dict(labels) == {
        "host": "p",
        "otel.scope.name": "lib",
        "otel.scope.version": "1.2",
        "otel.scope.x": "1",
        "resource.host": "r",
        "resource.otel.scope.x": "r",
        "service.name": "shop",
    }


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({"stringValue": "a\u00a0b"}, "a\u00a0b"),
        ({"boolValue": True}, "true"),
        ({"boolValue": False}, "false"),
        ({"intValue": str(-(2**63))}, "-9223372036854775808"),
        ({"doubleValue": 0.1}, "0.1"),
        ({"doubleValue": 3.0}, "3"),
        ({"doubleValue": "NaN"}, "NaN"),
        ({"doubleValue": "-Infinity"}, "-Infinity"),
        ({"bytesValue": "+/8="}, "+/8="),
        (
            {"arrayValue": {"values": [{"intValue": "1"}, {}, {"doubleValue": 1.5}, {"bytesValue": "AA=="}]}},
            '[1,null,1.5,"AA=="]',
        ),
        ({"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": True}}]}}, '{"a":true}'),
        ({"arrayValue": {}}, "[]"),
    ],
)
def test_values_of_attributes(value, label):
    """As the specification writes values that are no strings."""
    ((_, labels),) = readings(decode(export(gauge("m", point([("a", value)], asInt="1")))))
    assert labels == (("a", label),)


@pytest.mark.parametrize("value", [{}, {"stringValue": ""}, {"bytesValue": ""}])
def test_empty_values_are_no_labels(value):
    """A label with an empty value is none."""
    assert readings(decode(export(gauge("m", point([("a", value)], asInt="1"))))) == {("m", ()): 1.0}


def test_histogram():
    """Buckets are cumulative as in Prometheus' formats; what isn't known is no series."""
    full = point(
        {"a": "1"}, count="6", sum=9.5, min=0.5, max=7, bucketCounts=["1", "2", "3"], explicitBounds=[1, 2.5]
    )
    bare = point({"a": "2"}, count="6")
    decoded = decode(export({"name": "h", "unit": "s", "histogram": {"dataPoints": [full, bare]}}))
    one, two = ("a", "1"), ("a", "2")
    assert readings(decoded) == {
        ("h_bucket", (one, ("le", "1"))): 1.0,
        ("h_bucket", (one, ("le", "2.5"))): 3.0,
        ("h_bucket", (one, ("le", "+Inf"))): 6.0,
        ("h_count", (one,)): 6.0,
        ("h_sum", (one,)): 9.5,
        ("h_min", (one,)): 0.5,
        ("h_max", (one,)): 7.0,
        ("h_bucket", (two, ("le", "+Inf"))): 6.0,
        ("h_count", (two,)): 6.0,
    }
    assert {code for code, said in decoded.described.items() if said.unit} == {"h_sum", "h_min", "h_max"}


def test_exponential_histogram():
    """Bounds are those of the buckets that it has: negative ones, zero, positive ones."""
    both = point(
        count="10",
        sum=1,
        scale=1,
        zeroCount="2",
        zeroThreshold=0.25,
        negative={"offset": 1, "bucketCounts": ["1", "2"]},
        positive={"offset": 2, "bucketCounts": ["3", "0", "2"]},
    )
    decoded = decode(export({"name": "e", "exponentialHistogram": {"dataPoints": [both]}}))
    le = {
        dict(labels)["le"]: value for (code, labels), value in readings(decoded).items() if code == "e_bucket"
    }
    half = 2**0.5
    assert [(float(bound), count) for bound, count in le.items()] == [
        (pytest.approx(-2.0), 2.0),
        (pytest.approx(-half), 3.0),
        (0.25, 5.0),
        (pytest.approx(2 * half), 8.0),
        (pytest.approx(4.0), 8.0),
        (pytest.approx(4 * half), 10.0),
        (math.inf, 10.0),
    ]


@pytest.mark.parametrize("scale", [-(2**31), -11, 20, 2**31 - 1])
@pytest.mark.parametrize("offset", [-(2**31), 0, 2**31 - 1])
def test_bounds_that_no_float_is_near(scale, offset):
    """Whatever scale and offset say, bounds are distinct and rise, and the last is +Inf."""
    buckets = {"offset": offset, "bucketCounts": ["1"] * 4}
    made = point(count="9", scale=scale, zeroCount="1", positive=buckets, negative=buckets)
    decoded = decode(export({"name": "e", "exponentialHistogram": {"dataPoints": [made]}}))
    found = readings(decoded)
    les = [
        (float(dict(labels)["le"]), value) for (code, labels), value in found.items() if code == "e_bucket"
    ]
    assert les == sorted(set(les))
    assert les[-1] == (math.inf, 9.0)


def test_minus_zero():
    """Is zero as a bound and as a quantile, and as a value what it is."""
    zero = point(count="1", zeroCount="1", zeroThreshold=-0.0)
    quantiles = [{"quantile": -0.0, "value": -0.0}]
    summary = point(count="1", sum=-0.0, quantileValues=quantiles)
    kinds = [
        {"name": "e", "exponentialHistogram": {"dataPoints": [zero]}},
        {"name": "s", "summary": {"dataPoints": [summary]}},
    ]
    found = readings(decode(export(*kinds)))
    assert found["e_bucket", (("le", "0"),)] == 1.0
    assert math.copysign(1, found["s", (("quantile", "0"),)]) == -1.0


def test_summary():
    """Quantiles are labels of the name itself."""
    quantiles = [{"quantile": 0.5, "value": 2}, {"quantile": 1, "value": 4}]
    made = point(count="3", sum=7, quantileValues=quantiles)
    assert readings(decode(export({"name": "s", "summary": {"dataPoints": [made]}}))) == {
        ("s", (("quantile", "0.5"),)): 2.0,
        ("s", (("quantile", "1"),)): 4.0,
        ("s_count", ()): 3.0,
        ("s_sum", ()): 7.0,
    }


def test_an_attribute_gives_way_to_a_bound():
    """``le`` and ``quantile`` are the point's own."""
    made = point({"le": "mine"}, count="1")
    decoded = decode(export({"name": "h", "histogram": {"dataPoints": [made]}}))
    assert ("h_bucket", (("le", "+Inf"), ("resource.le", "mine"))) in readings(decoded)


def test_no_recorded_value():
    """The flag is a stale marker, bit by bit, for each series that the point names."""
    kinds = [
        gauge("g", point(flags=1)),
        {
            "name": "h",
            "histogram": {"dataPoints": [point(flags=1, explicitBounds=[1], bucketCounts=["0", "0"])]},
        },
        {"name": "s", "summary": {"dataPoints": [point(flags=1)]}},
    ]
    taken, rejected, _ = plain(decode(export(*kinds)))
    assert not rejected
    assert {row[1] for row in taken} == {"g", "h_bucket", "h_count", "s_count", "s_sum"}
    assert {row[4] for row in taken} == {STALE_BITS}


def test_numbers_that_json_lacks():
    """NaN and the infinities are readings; a NaN's bits come through protobuf as they are."""
    points = [point({"n": value}, asDouble=value) for value in ("NaN", "Infinity", "-Infinity")]
    values = decode(export(gauge("m", *points))).values.tolist()
    assert [str(value) for value in values] == ["nan", "inf", "-inf"]
    body = to_protobuf(export(gauge("m", point(asDouble=1.0))))
    odd = 0xFFF8_0000_DEAD_BEEF
    body = body.replace(struct.pack("<d", 1.0), struct.pack("<Q", odd))
    assert decode_otlp(body, readings_max=1).values.view(np.uint64).tolist() == [odd]


def test_unit_and_description():
    """Describe the metric; what can't be kept tells nothing and costs no reading."""
    decoded = decode(export(gauge("m", point(asInt="1"), unit="By", description="Größe\nof it")))
    assert decoded.described == {"m": Described("By", "Größe\nof it")}
    assert decode(export(gauge("m", point(asInt="1"), unit="x" * 300))).described == {}


def test_exemplars_are_skipped():
    """And counted."""
    exemplar = {"timeUnixNano": "1", "asDouble": 1, "traceId": "00" * 16}
    body = json.dumps(export(gauge("m", point(asInt="1", exemplars=[exemplar, exemplar]))))
    assert plain(decode_otlp_json(body.encode(), readings_max=9))[2] == 2
    del exemplar["traceId"]
    assert decode(export(gauge("m", point(asInt="1", exemplars=[exemplar] * 3)))).skipped == 3


LONG = {f"a{n}": "x" for n in range(65)}
BAD = [
    (gauge("m", point(asInt="1", at_ns=0)), "time-invalid"),
    (gauge("m", point(asInt="1", at_ns=2**64 - 1)), "time-out-of-range"),
    (gauge("m", point()), "reading-invalid"),
    (gauge("", point(asInt="1")), "code-invalid"),
    (gauge("x" * 201, point(asInt="1")), "code-invalid"),
    (gauge("m", point({"a": "x" * 1001}, asInt="1")), "label-invalid"),
    (gauge("m", point({"": "x"}, asInt="1")), "label-invalid"),
    (gauge("m", point([("a", "1"), ("a", "2")], asInt="1")), "label-invalid"),
    (gauge("m", point(LONG, asInt="1")), "labels-too-many"),
    (gauge("m", point({f"{n}": "x" for n in range(1000)}, asInt="1")), "labels-too-many"),
    (
        {"name": "h", "histogram": {"dataPoints": [point(explicitBounds=[1], bucketCounts=["1"])]}},
        "lengths-differ",
    ),
    ({"name": "h", "histogram": {"dataPoints": [point(explicitBounds=[1])]}}, "lengths-differ"),
    (
        {"name": "h", "histogram": {"dataPoints": [point(explicitBounds=[2, 1], bucketCounts=["1"] * 3)]}},
        "shape-invalid",
    ),
]


@pytest.mark.parametrize(("bad", "code"), BAD)
def test_what_can_not_be_taken(bad, code):
    """Is rejected whole, by its number, and costs nothing of what is beside it."""
    good = gauge("m", point(asInt="1"))
    decoded = decode(export(good, bad, good))
    assert plain(decoded)[1] == [(1, code)]
    assert decoded.row.tolist() == [0, 2]


@pytest.mark.parametrize(
    "around",
    [
        {"resource": {"a": "x" * 1001}},
        {"resource": [("a", "1"), ("a", "2")]},
        {"scope": {"attributes": attributes([("a", "1"), ("a", "2")])}},
        {"scope": {"name": "a\nb"}},
    ],
)
def test_a_resource_that_can_not_be_named(around):
    """Its points are rejected, those of the next are taken."""
    document = export(gauge("m", point(asInt="1"), point({"x": "1"}, asInt="1")), **around)
    document["resourceMetrics"] += export(gauge("m", point(asInt="1")))["resourceMetrics"]
    taken, rejected, _ = plain(decode(document))
    assert rejected == [(0, "label-invalid"), (1, "label-invalid")]
    assert [row[0] for row in taken] == [2]


def test_nothing():
    """An empty request, empty envelopes, and metrics of kinds that nobody knows are taken."""
    for document in ({}, {"resourceMetrics": [{}]}, export(), export({"name": "m"}), export(gauge("m"))):
        assert plain(decode(document)) == ([], [], 0)


def test_bound():
    """Readings count, not points; many buckets are refused before they are many."""
    document = export({"name": "h", "histogram": {"dataPoints": [point(count="1")]}})
    assert len(decode(document, readings_max=2)) == 2
    many = export(
        {
            "name": "e",
            "exponentialHistogram": {"dataPoints": [point(positive={"bucketCounts": ["0"] * 5000})]},
        }
    )
    for made, bound in ((document, 1), (many, 1000)):
        with pytest.raises(TooLargeError):
            decode_otlp(to_protobuf(made), readings_max=bound)
        with pytest.raises(TooLargeError):
            decode_otlp_json(json.dumps(made).encode(), readings_max=bound)


# JSON alone


def test_json_as_it_is_written():
    """Integers as numbers, names as in the protobuf, null, and what isn't known."""
    document = {
        "resource_metrics": [
            {
                "scope_metrics": [
                    {
                        "scope": None,
                        "metrics": [
                            {
                                "name": "m",
                                "new": {"x": [1]},
                                "sum": {
                                    "aggregation_temporality": "AGGREGATION_TEMPORALITY_DELTA",
                                    "data_points": [
                                        {"time_unix_nano": AT_NS, "as_int": 7, "attributes": None},
                                        {"timeUnixNano": float(AT_NS), "asDouble": "1.5e0"},
                                    ],
                                },
                            }
                        ],
                    }
                ]
            }
        ]
    }
    decoded = decode_otlp_json(json.dumps(document).encode(), readings_max=9)
    assert decoded.values.tolist() == [7.0, 1.5]


@pytest.mark.parametrize(
    "change",
    [
        {"timeUnixNano": "x"},
        {"timeUnixNano": -1},
        {"timeUnixNano": 1.5},
        {"timeUnixNano": True},
        {"timeUnixNano": "1" * 21},
        {"asDouble": "x"},
        {"asDouble": True},
        {"asDouble": "1e999"},
        {"asDouble": int("9" * 400)},
        {"asDouble": "１"},
        {"asInt": str(2**63)},
        {"attributes": {"a": 1}},
        {"attributes": [1]},
        {"attributes": [{"key": 1}]},
        {"attributes": [{"key": "a", "value": {"bytesValue": "é"}}]},
        {"attributes": [{"key": "a", "value": {"bytesValue": "AAAAA"}}]},
        {"attributes": [{"key": "a", "value": {"boolValue": "true"}}]},
        {"attributes": [{"key": "a", "value": "x"}]},
        {"flags": "x"},
    ],
)
def test_json_that_is_no_export(change):
    """Is refused whole, as protobuf would be."""
    body = json.dumps(export(gauge("m", point(asInt="1") | {"asInt": None} | change))).encode()
    with pytest.raises(MalformedError):
        decode_otlp_json(body, readings_max=9)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"resourceMetrics":1}', b'{"resourceMetrics":[[]]}']
)
def test_bodies_that_are_no_object(body):
    """The same."""
    with pytest.raises(MalformedError):
        decode_otlp_json(body, readings_max=9)


def test_base64_in_any_alphabet():
    """The label is the same."""
    for text in ("+/8=", "-_8=", "-_8"):
        made = json.dumps(export(gauge("m", point([("a", {"bytesValue": text})], asInt="1")))).encode()
        assert decode_otlp_json(made, readings_max=9).keys[0].labels == (("a", "+/8="),)


# Protobuf alone


def test_fields_in_any_order():
    """What points share may stand behind them, and a field that stands twice counts once."""
    document = export(gauge("m", point(asInt="1")), resource={"r": "1"}, scope={"name": "s"})
    message = ExportMetricsServiceRequest.FromString(to_protobuf(document))
    (resource_metrics,) = message.resource_metrics
    (scope_metrics,) = resource_metrics.scope_metrics
    (metric,) = scope_metrics.metrics

    def field(number, raw):
        return bytes([number << 3 | 2, len(raw)]) + raw

    named = field(5, metric.gauge.SerializeToString()) + field(1, b"x") + field(1, b"m")
    scoped = field(2, named) + field(1, scope_metrics.scope.SerializeToString())
    body = field(1, field(2, scoped) + field(1, resource_metrics.resource.SerializeToString()))
    assert plain(decode_otlp(body, readings_max=9)) == plain(decode(document))


def test_wrong_lengths():
    """A message cut anywhere, or with a byte changed, gives columns or our error."""
    body = to_protobuf(export(gauge("m", point({"a": "1"}, asDouble=1.0)), resource={"r": "1"}))
    for at in range(len(body)):
        for made in (body[:at], body[:at] + bytes([body[at] ^ 0x7F]) + body[at + 1 :]):
            with contextlib.suppress(MeteriteError):
                decode_otlp(made, readings_max=9)
    with pytest.raises(MalformedError):
        decode_otlp(body[:-1], readings_max=9)


def nested(depth):
    value = {"intValue": "1"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return export(gauge("m", point([("a", value)], asInt="1")))


def test_deep_values():
    """Values may hold values, some levels deep."""
    assert readings(decode(nested(3))) == {("m", (("a", "[[[1]]]"),)): 1.0}
    with pytest.raises(MalformedError, match="nesting"):
        decode_otlp(to_protobuf(nested(40)), readings_max=9)
    with pytest.raises(TooLargeError):
        decode_otlp_json(json.dumps(nested(40)).encode(), readings_max=9)


# Properties

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
COUNT = st.integers(0, 2**64 - 1).map(str)
DOUBLE = st.floats(allow_nan=False).map(
    lambda value: value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
)
VALUES = st.recursive(
    st.fixed_dictionaries({}, optional={"stringValue": TEXT})
    | st.booleans().map(lambda value: {"boolValue": value})
    | st.integers(-(2**63), 2**63 - 1).map(lambda value: {"intValue": str(value)})
    | DOUBLE.map(lambda value: {"doubleValue": value})
    | st.sampled_from([{"bytesValue": ""}, {"bytesValue": "AAEC"}]),
    lambda inner: st.lists(inner, max_size=2).map(lambda values: {"arrayValue": {"values": values}}),
    max_leaves=4,
)
ATTRIBUTES = st.lists(st.fixed_dictionaries({"key": TEXT, "value": VALUES}), max_size=3)
TIME = st.sampled_from([str(AT_NS), "0", str(2**64 - 1)]) | COUNT
BUCKETS = st.fixed_dictionaries(
    {}, optional={"offset": st.integers(-(2**31), 2**31 - 1), "bucketCounts": st.lists(COUNT, max_size=4)}
)
SHARED = {"timeUnixNano": TIME, "attributes": ATTRIBUTES}
FLAGS = {"flags": st.integers(0, 3)}
NUMBER = st.fixed_dictionaries(SHARED, optional=FLAGS | {"asDouble": DOUBLE}) | st.fixed_dictionaries(
    SHARED | {"asInt": st.integers(-(2**63), 2**63 - 1).map(str)}
)
HISTOGRAM = st.fixed_dictionaries(
    SHARED | {"count": COUNT},
    optional=FLAGS
    | {
        "sum": DOUBLE,
        "min": DOUBLE,
        "max": DOUBLE,
        "bucketCounts": st.lists(COUNT, max_size=3),
        "explicitBounds": st.lists(DOUBLE, max_size=2),
    },
)
EXPONENTIAL = st.fixed_dictionaries(
    SHARED | {"count": COUNT},
    optional=FLAGS
    | {
        "sum": DOUBLE,
        "min": DOUBLE,
        "max": DOUBLE,
        "scale": st.integers(-12, 22) | st.integers(-(2**31), 2**31 - 1),
        "zeroCount": COUNT,
        "zeroThreshold": DOUBLE,
        "positive": BUCKETS,
        "negative": BUCKETS,
    },
)
SUMMARY = st.fixed_dictionaries(
    SHARED,
    optional=FLAGS
    | {
        "count": COUNT,
        "sum": DOUBLE,
        "quantileValues": st.lists(st.fixed_dictionaries({"quantile": DOUBLE, "value": DOUBLE}), max_size=2),
    },
)


def metric(kind, points):
    said = {"name": TEXT, "unit": TEXT, "description": TEXT}
    return st.fixed_dictionaries(
        said | {kind: st.fixed_dictionaries({"dataPoints": st.lists(points, max_size=2)})}
    )


METRICS = st.one_of(
    metric("gauge", NUMBER),
    metric("sum", NUMBER),
    metric("histogram", HISTOGRAM),
    metric("exponentialHistogram", EXPONENTIAL),
    metric("summary", SUMMARY),
)
SCOPES = st.fixed_dictionaries({}, optional={"name": TEXT, "version": TEXT, "attributes": ATTRIBUTES})
EXPORTS = st.fixed_dictionaries(
    {
        "resourceMetrics": st.lists(
            st.fixed_dictionaries(
                {
                    "resource": st.fixed_dictionaries({"attributes": ATTRIBUTES}),
                    "scopeMetrics": st.lists(
                        st.fixed_dictionaries({"scope": SCOPES, "metrics": st.lists(METRICS, max_size=3)}),
                        max_size=2,
                    ),
                }
            ),
            max_size=2,
        )
    }
)


def count_points(document):
    count = 0
    for resource_metrics in document["resourceMetrics"]:
        for scope_metrics in resource_metrics["scopeMetrics"]:
            for made in scope_metrics["metrics"]:
                count += sum(len(part["dataPoints"]) for part in made.values() if isinstance(part, dict))
    return count


@given(EXPORTS)
def test_both_encodings_are_one(document):
    """Whatever an export says, and also as the protobuf library writes it; each point is taken or rejected."""
    decoded = decode(document)
    assert set(decoded.row.tolist()).isdisjoint(each.index for each in decoded.rejected)
    rows = sorted({*decoded.row.tolist(), *(each.index for each in decoded.rejected)})
    assert rows == list(range(count_points(document)))
    written = to_json(
        ExportMetricsServiceRequest.FromString(to_protobuf(document)), preserving_proto_field_name=True
    )
    assert plain(decode_otlp_json(json.dumps(written).encode(), readings_max=MAX)) == plain(decoded)


@example(
    document=export(gauge("m", point({"a": "1"}, asInt="1")), resource={"b": "2"}),
    other=export(gauge("m", point({"a": "1"}, asInt="1")), resource={"b": "3"}),
)
@example(
    document=export(gauge("m", point({"a": "1"}, asInt="1"))),
    other=export(gauge("m", point({"a": "1"}, asInt="1")), resource={"b": "\x00"}),
)
@example(
    document=export(gauge("m", point({"a": "1"}, asInt="1")), scope={"name": "s"}),
    other=export(*(gauge(name, point({"a": "1"}, asInt="1")) for name in "mn"), scope={"version": "s"}),
)
@given(EXPORTS, EXPORTS)
def test_known_names_change_nothing(document, other):
    """Whatever came before, in whatever encoding."""
    check_known_names(
        [
            request
            for each in (document, other)
            for request in (
                (functools.partial(decode_otlp, readings_max=MAX), to_protobuf(each)),
                (functools.partial(decode_otlp_json, readings_max=MAX), json.dumps(each).encode()),
            )
        ]
    )


@given(EXPORTS, st.data())
def test_known_names_change_nothing_of_damaged_bodies(document, data):
    """Nor of a body that nearly came before."""
    bodies = [to_protobuf(document), *(changed(document, data) for _ in range(3))]
    check_known_names([(functools.partial(decode_otlp, readings_max=MAX), body) for body in bodies])


@given(st.binary(max_size=60))
def test_any_bytes(body):
    """Give columns or our error."""
    for way in (decode_otlp, decode_otlp_json):
        with contextlib.suppress(MeteriteError):
            way(body, readings_max=100)


def changed(document, data):
    """A protobuf of which some bytes aren't what they were, or are missing."""
    body = bytearray(to_protobuf(document))
    for at in data.draw(st.lists(st.integers(0, max(len(body) - 1, 0)), max_size=4)) if body else ():
        body[at] = data.draw(st.integers(0, 255))
    return bytes(body[: data.draw(st.integers(0, len(body)))]) if data.draw(st.booleans()) else bytes(body)


@given(EXPORTS, st.data())
def test_bytes_that_were_changed(document, data):
    """Give columns or our error."""
    with contextlib.suppress(MeteriteError):
        decode_otlp(changed(document, data), readings_max=1000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@given(EXPORTS, st.data())
@settings(max_examples=100_000, deadline=None)
def test_bytes_that_were_changed_for_long(document, data):
    """The same, for longer; and what comes as both encodings is one."""
    decode(document)
    with contextlib.suppress(MeteriteError):
        decode_otlp(changed(document, data), readings_max=1000)


def cpu_seconds(way, body):
    """The best of some, since the machine has other work."""
    best = math.inf
    for _ in range(3):
        begun = time.process_time()
        with contextlib.suppress(InvalidInputError):
            way(body, readings_max=10**6)
        best = min(best, time.process_time() - begun)
    return best


@pytest.mark.parametrize("kind", ["points", "attributes", "values"])
def test_time_is_linear(kind):
    """Eight times as much takes less than 24 times as long: many points, attributes of one, values in one."""

    def made(count):
        if kind == "points":
            return export(gauge("m", *(point({"a": str(n)}, asInt="1") for n in range(count))))
        if kind == "attributes":
            return export(gauge("m", point({str(n): "x" for n in range(count)}, asInt="1")))
        values = {"arrayValue": {"values": [{"intValue": "1"}] * count}}
        return export(gauge("m", point([("a", values)], asInt="1")))

    small, large = made(2000), made(16000)
    pairs = [
        (decode_otlp, to_protobuf(small), to_protobuf(large)),
        (decode_otlp_json, json.dumps(small).encode(), json.dumps(large).encode()),
    ]
    for way, less, more in pairs:
        assert cpu_seconds(way, more) < 24 * max(cpu_seconds(way, less), 0.0005)
