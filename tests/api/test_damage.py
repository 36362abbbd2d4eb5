"""Damage as clients see it: what is left is answered, and a header says what is missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from meterite.storage.maintenance import compact
from storage.sqlite_place import overwrite_page

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


CALLS = [
    ("GET", "/metric/"),
    ("GET", "/metric/M1"),
    ("PUT", "/metric/M1"),
    ("POST", "/metric/M1/deactivate"),
    ("POST", "/metric/M1/activate"),
    ("DELETE", "/metric/M1"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_current_reading_that_is_lost(client, metric, change, method, path):
    """Each answer that shows an older one as the current says so; those of other metrics don't."""
    client.post("/metric/", json={"code": "M2", "name": "Meter 2"})
    client.post("/metric/M2", json={"reading": 1, "reading_at": PAST})
    change("UPDATE journal SET checksum = 1 WHERE id = (SELECT id FROM journal ORDER BY id LIMIT 1 OFFSET 1)")
    if path.endswith("/activate") or method == "DELETE":
        client.post("/metric/M1/deactivate")
        client.post("/metric/M2/deactivate")
    for code in ("M1", "M2"):
        body = {"code": code, "name": "Another"} if method == "PUT" else None
        answer = client(method, path.replace("M1", code), json=body)
        assert answer.status_code == 200
        found = answer.json()[0] if path == "/metric/" else answer.json()
        assert found["current_reading"] == 1
        if code == "M1" or path == "/metric/":
            assert "2026-01-02" in answer.headers["Meterite-Warning"]
        else:
            assert "Meterite-Warning" not in answer.headers


def test_a_page_that_sqlite_calls_malformed(client, metric, tmp_path):
    """A request that meets it is told so, by a code of its own; the others are answered."""
    overwrite_page(tmp_path / "m.db", "receipt")
    body = [{"metric": "M1", "reading": 3}]
    for _ in range(2):
        answer = client.post("/readings", json=body, headers={"Idempotency-Key": "one"})
        assert (answer.status_code, answer.json()["type"]) == (500, "/problems/damaged")
        assert "meterite verify" in answer.json()["detail"]
    assert client.post("/readings", json=body).status_code == 200
    assert client.get("/metric/M1").status_code == 200
