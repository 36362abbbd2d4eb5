"""The bodies of ``wire/corpus`` at the doors that take them: an answer of the right kind to each, never one of 5xx."""

from __future__ import annotations

import json

import cramjam
import pytest

from wire.every_decoder import CSV_FORMAT, DECODERS, bodies_of

PACKED = {"content-encoding": "snappy"}
PROTOBUF = "application/x-protobuf"
LINES = (
    "/write",
    "/api/v2/write?bucket=b",
    "/api/v3/write_lp?db=d",
    "/api/v3/write_lp?db=d&accept_partial=false",
)
GROUP = "/metrics/job/j/instance/i"
DOORS = {
    "collectd": [("/collectd", {"content-type": "application/json"})],
    "columns": [("/readings?precision=ms", {})],
    "csv": [("/readings", {"content-type": "text/csv"})],
    "exposition": [("/api/v1/import/prometheus", {}), (GROUP, {})],
    "families": [(GROUP, {"content-type": "application/vnd.google.protobuf"})],
    "lp": [(path, {}) for path in LINES],
    "ndjson": [("/readings", {"content-type": "application/x-ndjson"})],
    "otlp": [("/v1/metrics", {"content-type": PROTOBUF})],
    "otlpjson": [("/v1/metrics", {"content-type": "application/json"})],
    "plain": [("/metric/M1/readings?precision=s&labels=host=a", {})],
    "push": [("/metric/M1", {})],
    "readings": [("/readings", {})],
    "rw1": [("/api/v1/write", PACKED | {"content-type": PROTOBUF})],
    "rw2": [("/api/v1/write", PACKED | {"content-type": f"{PROTOBUF};proto=io.prometheus.write.v2.Request"})],
    "vmcsv": [(f"/api/v1/import/csv?format={CSV_FORMAT}", {})],
    "vmjson": [("/api/v1/import", {})],
}
LISTENERS = {"graphite", "pickle", "statsd"}
IN_PART = {"otlp", "otlpjson"}
"""Whose protocol answers 200 and says in it what was refused."""


def test_every_format_has_its_doors():
    assert DOORS.keys() | LISTENERS == DECODERS.keys()


def is_pushable(readings):
    """Pushed groups have no times, and each series once."""
    series = [(code, *sorted(labels.items())) for _, code, labels, _, _ in readings]
    return all(reading[3] is None for reading in readings) and len(set(series)) == len(series)


def kind_of(form, door, expected):
    """Of the status: 2 or 4."""
    if expected.get("error") == "too-many-readings":  # the corpus has a bound of its own
        return 2
    if "error" in expected or ("rejected" in expected and form not in IN_PART):
        return 4
    return 4 if door == GROUP and not is_pushable(expected["readings"]) else 2


@pytest.mark.parametrize("form", DOORS)
def test_doors(client, form):
    """What can't be read is answered by 4xx, and so is what is refused in part; all else by 2xx."""
    client.post("/metric/", json={"code": "M1", "name": "M1"})
    for path in bodies_of(form):
        expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        body = path.read_bytes()
        for door, headers in DOORS[form]:
            packed = "content-encoding" in headers
            content = bytes(cramjam.snappy.compress_raw(body)) if packed else body
            answer = client.post(door, content=content, headers=headers)
            told = (path.stem, door, answer.status_code // 100)
            assert told == (path.stem, door, kind_of(form, door, expected)), answer.text
