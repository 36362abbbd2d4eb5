"""What a worker keeps of the labels of series."""

from __future__ import annotations

import pytest

from meterite.model.metric import MetricSpec
from meterite.storage import labels as labels_module
from storage.place import Clock
from storage.sqlite_place import sqlite_place


@pytest.mark.parametrize("bytes_kept", [0, 6000, 1 << 20])
def test_no_more_is_kept_than_may_be(monkeypatch, bytes_kept):
    """But of the metric that was asked for last; what was forgotten is read again, and the answers are the same."""
    monkeypatch.setattr(labels_module, "BYTES_KEPT", bytes_kept)
    with sqlite_place() as place:
        store = place.store(Clock())
        store.open()
        here = store.catalog.org_id("here")
        index = store._labels
        made = {}
        for n in range(6):
            metric = store.catalog.create("here", MetricSpec(code=f"m{n}", name=""))
            series = store.catalog.series(
                here, metric, [(("host", f"h{m}"), ("odd", str(m % 2))) for m in range(5)]
            )
            made[metric] = series
        for _ in range(2):
            for metric, series in made.items():
                for labels, expected in (
                    ((("host", "h3"),), series[3:4]),
                    ((("odd", "1"),), series[1::2]),
                    ((("odd", "1"), ("host", "h3")), series[3:4]),
                    ((("odd", "0"), ("host", "h3")), []),
                    ((("odd", "2"),), []),
                ):
                    assert store.span(metric, None, None, labels).series.tolist() == expected
                assert metric.id in index._metrics
                assert index.nbytes == sum(known.nbytes for known in index._metrics.values())
                assert len(index._metrics) == 1 or index.nbytes <= bytes_kept
        assert len(index._metrics) in {0: {1}, 6000: {2, 3, 4, 5}, 1 << 20: {6}}[bytes_kept]
        store.close()
