"""StatsD's lines."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterite.model.columns import SeriesKey
from meterite.wire.statsd import Sample, decode_statsd

A = SeriesKey("a.b")


def tagged(**labels):
    return SeriesKey("a.b", tuple(sorted(labels.items())))


@pytest.mark.parametrize(
    ("line", "samples"),
    [
        ("a.b:1|c", [Sample(A, "counter", 1)]),
        ("a.b:-2.5|c|@0.1", [Sample(A, "counter", -2.5, 0.1)]),
        ("a.b:320|ms|@0.5", [Sample(A, "timer", 320, 0.5)]),
        ("a.b:3|h", [Sample(A, "timer", 3)]),
        ("a.b:3|d", [Sample(A, "timer", 3)]),
        ("a.b:333|g", [Sample(A, "gauge", 333)]),
        ("a.b:-10|g", [Sample(A, "step", -10)]),
        ("a.b:+4|g", [Sample(A, "step", 4)]),
        ("a.b:765|s", [Sample(A, "set", 0, 1, "765")]),
        ("a.b:1:2:3|ms", [Sample(A, "timer", 1), Sample(A, "timer", 2), Sample(A, "timer", 3)]),
        ("a.b:1|c|#env:prod,up,x:y:z", [Sample(tagged(env="prod", up="true", x="y:z"), "counter", 1)]),
        ("a.b:1|c|@0.5|#env:prod|c:1234|T1769860800", [Sample(tagged(env="prod"), "counter", 1, 0.5)]),
        ("a.b,env=prod,zone=1:1|c", [Sample(tagged(env="prod", zone="1"), "counter", 1)]),
        ("a.b;env=prod:1|c|#host:x", [Sample(tagged(env="prod", host="x"), "counter", 1)]),
        ("  a.b:1|c\r\n\na.b:2|c\n", [Sample(A, "counter", 1), Sample(A, "counter", 2)]),
    ],
)
def test_lines(line, samples):
    """Types, rates, steps, several values, and tags in the three ways that clients have."""
    found = decode_statsd(line.encode())
    assert (found.samples, found.rejected, found.skipped) == (samples, [], 0)


def test_what_is_no_metric_is_skipped():
    """Events and service checks of DogStatsD."""
    found = decode_statsd(b"_e{5,4}:title|text\n_sc|check|0\na.b:1|c")
    assert (found.skipped, found.samples) == (2, [Sample(A, "counter", 1)])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("a.b", "line-invalid"),
        ("a.b:1", "line-invalid"),
        ("a.b|c", "line-invalid"),
        ("a.b:1|x", "line-invalid"),
        ("a.b:1|c|@0", "line-invalid"),
        ("a.b:1|c|@2", "line-invalid"),
        ("a.b:1|c|@x", "reading-invalid"),
        ("a.b:x|c", "reading-invalid"),
        ("a.b:1:x|c", "reading-invalid"),
        ("a.b:|c", "reading-invalid"),
        ("a.b:nan|g", "reading-invalid"),
        ("a.b:1e999|g", "reading-invalid"),
        (":1|c", "code-invalid"),
        ("a.b,x:1|c", "label-invalid"),
        ("a.b:1|c|#:v", "label-invalid"),
        (f"a.b:{'x' * 1001}|s", "line-invalid"),
    ],
)
def test_bad_lines(line, code):
    """Each is told by its number, and costs nothing beside it; of a line with several values none is taken."""
    found = decode_statsd(f"a.b:1|c\n{line}\na.b:2|c".encode())
    assert [(each.index, each.code) for each in found.rejected] == [(2, code)]
    assert [sample.value for sample in found.samples] == [1, 2]


def test_utf_8():
    """Names are texts of any script; bytes that aren't UTF-8 are refused."""
    found = decode_statsd("zähler:1|c\n".encode() + b"\xff:1|c")
    assert found.samples == [Sample(SeriesKey("zähler"), "counter", 1)]
    assert [(each.index, each.code) for each in found.rejected] == [(2, "not-utf-8")]


@given(st.one_of(st.binary(max_size=60), st.text("ab:|@#,;=+-1.\n_e{sgcm", max_size=60).map(str.encode)))
def test_any_bytes(body):
    """Samples and rejections."""
    decode_statsd(body)


@pytest.mark.parametrize("piece", [b"a:1|c\n", b":1", b"|#a:b", b",a=b", b"|", b"\n", b"\xff\n"])
def test_time_is_linear(piece):
    """Ten times the bytes take about ten times as long."""

    def took(count):
        begun = time.process_time()
        decode_statsd(b"a:1|c" + piece * count)
        return time.process_time() - begun

    small = min(took(2000) for _ in range(3))
    assert min(took(20_000) for _ in range(2)) < 40 * small + 0.05
