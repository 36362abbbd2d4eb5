"""What is made to hurt, at every decoder: names and values of 10 MB, 100,000 labels, deep JSON, lengths that lie.

It is refused in a short sentence, in time that goes by its length. Zip bombs never come so far: ``api/test_body.py``.
"""

from __future__ import annotations

import json
import time

import pytest

from meterite.model.errors import MeteriteError
from wire.every_decoder import DECODERS
from wire.otlp_messages import export, gauge, point, to_protobuf
from wire.prometheus_families import family, metric
from wire.prometheus_families import gauge as family_gauge
from wire.prometheus_messages import request_2, write_request
from wire.test_fuzz import check_sound

MB = 1_000_000
SECONDS = 10
"""Of CPU for 10 MB; what is quadratic takes hours."""
REASON_CHARACTERS_MAX = 300


def row(labels):
    return json.dumps({"metric": "a", "reading": 1, "labels": labels}).encode()


def joined(labels, between, sign):
    return between.join(f"{name}{sign}{value}" for name, value in labels.items())


def otlp_document(labels):
    return export(gauge("a", point(labels, asInt="1")))


WITH_LABELS = {
    "columns": lambda labels: json.dumps({"metric": "a", "reading": [1], "labels": labels}).encode(),
    "csv": lambda labels: (
        f"metric,reading,{','.join(f'labels.{name}' for name in labels)}\na,1,{','.join(labels.values())}\n".encode()
    ),
    "exposition": lambda labels: (
        "a{" + ",".join(f'{n}="{v}"' for n, v in labels.items()) + "} 1\n"
    ).encode(),
    "families": lambda labels: family("a", metric(family_gauge(1), **labels)),
    "graphite": lambda labels: f"a;{joined(labels, ';', '=')} 1 1\n".encode(),
    "lp": lambda labels: f"a,{joined(labels, ',', '=')} value=1\n".encode(),
    "ndjson": row,
    "otlp": lambda labels: to_protobuf(otlp_document(labels)),
    "otlpjson": lambda labels: json.dumps(otlp_document(labels)).encode(),
    "push": row,
    "readings": row,
    "rw1": lambda labels: write_request([({"__name__": "a"} | labels, [(1, 1.0)])]).SerializeToString(),
    "rw2": lambda labels: request_2([({"__name__": "a"} | labels, [(1, 1.0)])]).SerializeToString(),
    "statsd": lambda labels: f"a:1|c|#{joined(labels, ',', ':')}".encode(),
    "vmjson": lambda labels: json.dumps(
        {"metric": {"__name__": "a"} | labels, "values": [1], "timestamps": [1]}
    ).encode(),
}
WITHOUT_LABELS = {"collectd", "pickle", "plain", "vmcsv"}
"""Names of labels are fixed there, or they are as elsewhere."""
LABELS = {
    "value": {"x": "y" * 10 * MB},
    "name": {"x" * 10 * MB: "y"},
    "many": {f"l{n}": "y" for n in range(100_000)},
}
LONG = {
    "collectd": b'[{"values":[1],"dsnames":["value"],"time":1,"host":"%s","plugin":"p","type":"t"}]',
    "graphite": b"%s 1 1",
    "pickle": b"\x80\x02]X\x80\x96\x98\x00%sK\x01K\x01\x86\x86a.",
    "plain": b"%s",
    "push": b'{"reading":"%s"}',
    "statsd": b"%s:1|c",
    "vmcsv": b"%s,1,2,1,N",
}
JSON = ("collectd", "columns", "ndjson", "otlpjson", "push", "readings", "vmjson")
PROTOBUF = ("families", "otlp", "rw1", "rw2")


def check_refused(form, body):
    """By an error of ours or by rejections, and soon."""
    begun = time.thread_time()
    try:
        decoded = DECODERS[form](body, readings_max=1000)
    except MeteriteError as error:
        reasons = [error.message]
    else:
        found = decoded.samples if form == "statsd" else decoded.values
        assert not len(found)
        reasons = [rejected.reason for rejected in decoded.rejected]
    assert time.thread_time() - begun < SECONDS
    assert reasons
    assert max(map(len, reasons)) < REASON_CHARACTERS_MAX


def test_every_format_is_looked_at():
    assert WITH_LABELS.keys() | WITHOUT_LABELS == DECODERS.keys()


@pytest.mark.parametrize("form", WITH_LABELS)
def test_a_label_is_no_trouble(form):
    """What the tests below make is taken where it is small."""
    decoded = DECODERS[form](WITH_LABELS[form]({"x": "y"}), readings_max=1000)
    keys = [sample.key for sample in decoded.samples] if form == "statsd" else decoded.keys
    assert [key.labels for key in keys] == [(("x", "y"),)]


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("form", WITH_LABELS)
def test_labels(form, kind):
    """A value of 10 MB, a name of 10 MB, 100,000 of them."""
    check_refused(form, WITH_LABELS[form](LABELS[kind]))


@pytest.mark.parametrize("form", LONG)
def test_long_texts(form):
    """10 MB where there is no label's name, or before it; the numbers of other formats have tests of their own."""
    check_refused(form, LONG[form] % (b"x" * 10 * MB))


@pytest.mark.parametrize("level", [b"[", b'{"metric":', b'[{"labels":', b'{"a":[{"b":['], ids=repr)
@pytest.mark.parametrize("form", JSON)
def test_deep_json(form, level):
    """100,000 levels, closed or not."""
    check_refused(form, level * 100_000)
    close = {ord("["): b"]", ord("{"): b"}"}
    end = b"".join(close[byte] for byte in reversed(level) if byte in close)
    check_refused(form, level * 100_000 + b"1" + end * 100_000)


@pytest.mark.parametrize("form", PROTOBUF)
def test_lengths_that_lie(form):
    """Any byte of a sound message as another, a long or an endless length: columns, or an error of ours."""
    body = WITH_LABELS[form]({"x": "y", "zone": "é" * 70})
    for at in range(len(body)):
        for other in (
            b"\x00",
            b"\x01",
            b"\x7f",
            b"\xff",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x80" * 11,
        ):
            check_sound(DECODERS[form], body[:at] + other + body[at + 1 :])
        check_sound(DECODERS[form], body[:at])
