"""Damage as clients see it: what is left is answered, and a header says what is missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from meterite.storage.maintenance import compact

PAST, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.fixture
def change(tmp_path):
    def change(*statement):
        with closing(sqlite3.connect(tmp_path / "m.db")) as conn:
            conn.execute(*statement)
            conn.commit()

    return change


@pytest.fixture
def metric(client):
    """With a current and a last reading."""
    client.post("/metric/", json={"code": "M1", "name": "Meter 1"})
    for at, reading in ((PAST, 1), (LATER, 2)):
        assert client.post("/metric/M1", json={"reading": reading, "reading_at": at}).status_code == 200
    return "M1"


def test_times_of_recording_that_are_lost(client, metric, change, tmp_path):
    """``recorded_at`` is null, with a warning; before it was 1970, or all answers 500."""
    compact(f"sqlite:///{tmp_path}/m.db", lambda _: None)
    change("UPDATE commit_time SET data = x'00'")
    answer = client.get("/metric/M1")
    assert [meter["recorded_at"] for meter in answer.json()["meters"]] == [None, None]
    assert "recorded_at" in answer.headers["Meterite-Warning"]
    answer = client.get("/metric/M1/readings")
    assert [(row["reading"], row["recorded_at"]) for row in answer.json()] == [(1, None), (2, None)]
    assert "recorded_at" in answer.headers["Meterite-Warning"]
    answer = client.get("/metric/M1/summary")
    assert "Meterite-Warning" not in answer.headers
