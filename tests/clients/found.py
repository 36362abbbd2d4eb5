"""What a server has, read back whole."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
PAUSE_S = 0.05


def codes(client):
    """Of all metrics."""
    answer = client.get("/metric/", params={"limit": 10_000})
    assert answer.status_code == 200, answer.text
    return {metric["code"] for metric in answer.json()}


def readings(client, code, **params):
    """All readings of a metric as ``{(labels, reading_at): value}``, each once; of an unknown metric none.

    Labels are a sorted tuple of pairs, ``reading_at`` is µs since 1970, a value is as JSON says it (NaN is None).
    """
    answer = client.get(f"/metric/{quote(code, safe='')}/readings", params=params)
    if answer.status_code == 404:
        return {}
    assert answer.status_code == 200, answer.text
    rows = [(_key(row), row["reading"]) for row in answer.json()]
    found = dict(rows)
    assert len(found) == len(rows), f"readings that are there twice: {rows}"
    return found


def expect(client, code, wanted, seconds=20):
    """Until the metric has just these readings; clients send when they like."""
    until(lambda: readings(client, code) == wanted, seconds, lambda: (readings(client, code), wanted))


def until(condition, seconds=20, told=lambda: "it didn't happen"):
    """Ask again and again, with a bound."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(PAUSE_S)


def _key(row):
    labels = tuple(sorted(row.get("labels", {}).items()))
    return labels, (datetime.fromisoformat(row["reading_at"]) - EPOCH) // MICROSECOND
