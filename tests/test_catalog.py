"""What a worker keeps of the catalogue. How it is told of changes is tested with the recorder."""

from __future__ import annotations

import ctypes

import numpy as np

from meterite import catalog
from meterite.catalog import Kept, Known, Resolution
from meterite.model.columns import Decoded, SeriesKey
from meterite.model.metric import Metric, MetricSpec


def keys(*names):
    return [SeriesKey("M", (("host", name),)) for name in names]


def resolution(of, ids=None):
    metric = Metric(id=1, org="here", spec=MetricSpec(code="M", name="M"))
    return Resolution(of, {"M": Known(metric, 7, None)}, ids or list(range(100, 100 + len(of))))


def test_the_same_keys_again():
    """Equal ones are as good as the same objects; others, of another org, or after a metric changed, are looked up."""
    kept = Kept()
    one = resolution(keys("a", "b"))
    kept.keep_request("here", one)
    assert kept.request("here", keys("a", "b")) is one
    assert kept.request("there", keys("a", "b")) is None
    assert kept.request("here", keys("b", "a")) is kept.request("here", keys("a")) is None
    kept.drop(7, "another")
    assert kept.request("here", keys("a", "b")) is None


def test_many_series_come_in_parts():
    """Requests that are as long, and begin with other keys, are each known again."""
    kept = Kept()
    parts = [resolution(keys(f"a{n}", f"b{n}")) for n in range(100)]
    for one in parts:
        kept.keep_request("here", one)
    assert all(kept.request("here", keys(f"a{n}", f"b{n}")) is one for n, one in enumerate(parts))
    kept.keep_request("here", other := resolution(keys("a1", "c")))
    assert kept.request("here", keys("a1", "c")) is other
    assert kept.request("here", keys("a1", "b1")) is None


def test_bounded(monkeypatch):
    """By keys and their labels; the oldest request goes first, and one that comes again is counted once."""
    monkeypatch.setattr(catalog, "REQUEST_NAMES_KEPT", 10)
    kept = Kept()
    for n in (1, 2, 2, 3):
        kept.keep_request("here", resolution(keys(*"abc"[:n])))
    found = [kept.request("here", keys(*"abc"[:n])) is not None for n in (1, 2, 3)]
    assert found == [False, True, True]


def test_metrics_bounded_by_bytes(monkeypatch):
    """Descriptions may be long; the oldest go first, what is kept again is counted once, what is dropped no more."""
    monkeypatch.setattr(catalog, "METRICS_BYTES_KEPT", 25_000)

    def known(code, letters=10_000):
        spec = MetricSpec(code=code, name=code, description="d" * letters)
        return Known(Metric(id=1, org="here", spec=spec), 7, None)

    def codes():
        return [code for _, code in kept.metrics]

    kept = Kept()
    for code in "abba":
        kept.keep_metric("here", known(code))
    assert codes() == ["b", "a"]
    kept.keep_metric("here", known("c"))
    assert codes() == ["a", "c"]
    kept.drop(7, "a")
    kept.drop(7, "a")
    kept.keep_metric("here", known("d"))
    assert codes() == ["c", "d"]
    kept.keep_metric("here", known("d", letters=1))
    kept.keep_metric("here", known("e"))
    assert codes() == ["c", "d", "e"]


def test_what_a_metric_counts_for_does_not_grow(monkeypatch):
    """CPython keeps the UTF-8 of a text that was asked for it: what goes counts as it did when it came."""
    monkeypatch.setattr(catalog, "METRICS_BYTES_KEPT", 25_000)
    kept = Kept()
    for n in range(10):
        spec = MetricSpec(code=f"m{n}", name="m", description="\u0414" * 2000)
        kept.keep_metric("here", Known(Metric(id=1, org="here", spec=spec), 7, None))
        assert [code for _, code in kept.metrics] == [f"m{m}" for m in range(max(0, n - 1), n + 1)]
        descriptor = ctypes.pythonapi.PyUnicode_AsUTF8
        descriptor(ctypes.py_object(spec.description))


def test_series_bounded_by_bytes(monkeypatch):
    """Labels may be long; the oldest go first, and one that is kept again is counted once."""
    monkeypatch.setattr(catalog, "SERIES_BYTES_KEPT", 4000)
    kept = Kept()
    for n in (1, 2, 2, 2, 3, 4):
        kept.keep_series(1, (("host", str(n) * 1000),), n)
    assert list(kept.series.values()) == [3, 4]
    kept.keep_series(1, (("host", "h" * 5000),), 5)
    assert not kept.series
    kept.keep_series(1, (("host", "h"),), 6)
    assert list(kept.series.values()) == [6]


def test_a_batch_of_it():
    """Series ascending and distinct, those without rows left out; a resolution serves many requests."""
    one = resolution(keys("a", "b", "c"), [30, 0, 20])
    for rows in ([0, 2, 0], [2], [0]):
        values = np.arange(len(rows), dtype=np.float64)
        decoded = Decoded(one.keys, np.array(rows, np.uint32), np.arange(len(rows)), values)
        batch = one.batch(decoded, decoded.at_us)
        assert batch.series[batch.series_index].tolist() == [one.ids[row] for row in rows]
        assert batch.series.tolist() == sorted({one.ids[row] for row in rows})
