"""Many readings at once: in, out, away, and in a few numbers."""

from __future__ import annotations

import gzip

import pytest

DAY = "2026-01-01T00:00:0{}Z"


@pytest.fixture
def metric(client):
    client.post("/metric/", json={"code": "M1", "name": "Meter 1"})
    return "M1"


@pytest.fixture
def three(client, metric):
    rows = [
        {
            "metric": "M1",
            "reading": n,
            "reading_at": DAY.format(n),
            "labels": {"host": "ab"[n % 2]} if n else {},
        }
        for n in range(3)
    ]
    assert client.post("/readings", json=rows).status_code == 200
    return rows


def test_rows_columns_and_lines(client, metric):
    """All three shapes are taken and counted in the receipt."""
    columns = {"metric": "M1", "reading": [1, 2], "reading_at": [10, 20]}
    answer = client.post("/readings", json=columns, params={"precision": "s"})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 2
    assert answer.json()["committed_at"].endswith("Z")
    lines = client.post(
        "/readings",
        content=b'{"metric":"M1","reading":1}\n{"metric":"M1","reading":2}\n',
        headers={"content-type": "application/x-ndjson; charset=utf-8"},
    )
    assert lines.json()["accepted"] == 2
    packed = gzip.compress(b'{"metric":"M1","reading":1}')
    assert (
        client.post("/readings", content=packed, headers={"content-encoding": "gzip"}).json()["accepted"] == 1
    )


@pytest.mark.parametrize("receipt", [None, "full"])
def test_nothing_written_has_no_time(client, metric, receipt):
    """An empty request is taken, and ``committed_at`` is null."""
    params = {"receipt": receipt} if receipt else {}
    for body in (b"[]", b'{"metric":"M1","reading":[]}'):
        answer = client.post("/readings", content=body, params=params)
        assert answer.status_code == 200
        assert (answer.json()["accepted"], answer.json()["committed_at"]) == (0, None)


def test_all_or_nothing_unless_asked_otherwise(client, metric):
    """A bad row refuses the request (422 with a receipt); ``partial=accept`` takes the good ones."""
    rows = [
        {"metric": "M1", "reading": 1},
        {"metric": "nobody", "reading": 1, "reading_at": "2200-01-01T00:00:00Z"},
        {"metric": "M1", "reading": None},
    ]
    refused = client.post("/readings", json=rows)
    assert refused.status_code == 422
    assert (refused.json()["accepted"], refused.json()["committed_at"]) == (0, None)
    assert [row["index"] for row in refused.json()["rejected"]] == [1, 2]
    assert client.get("/metric/M1/readings").json() == []
    taken = client.post("/readings", json=rows, params={"partial": "accept"})
    assert (taken.status_code, taken.json()["accepted"], len(taken.json()["rejected"])) == (200, 1, 2)
    none = client.post("/readings", json=rows[1:], params={"partial": "accept"})
    assert (none.status_code, none.json()["committed_at"]) == (422, None)
    assert client.get("/metric/nobody").status_code == 404


def test_the_full_receipt_compares(client, three):
    """``receipt=full`` adds what was replaced and what was there already."""
    three[0]["reading"] = 100
    receipt = client.post("/readings", json=three, params={"receipt": "full"}).json()
    assert (receipt["replaced"], receipt["unchanged"]) == (1, 2)
    assert "replaced" not in client.post("/readings", json=three).json()


def test_the_full_receipt_tells_events(client):
    """Those that the request's readings raised, none where they raised none, and the same again under its key."""
    client.post("/metric/", json={"code": "L", "name": "n", "max_reading": 10})
    rows = [{"metric": "L", "reading": value, "labels": {"n": str(value)}} for value in (5, 11, 12)]
    asked = {"params": {"receipt": "full"}, "headers": {"idempotency-key": "k"}}
    first = client.post("/readings", json=rows, **asked)
    told = [client.get(f"/events/{id_}").json()["data"]["labels"]["n"] for id_ in first.json()["events"]]
    assert sorted(told) == ["11", "12"]
    assert [event["id"] for event in client.get("/events").json()["events"]] == first.json()["events"]
    assert client.post("/readings", json=rows, **asked).content == first.content
    quiet = client.post("/readings", json=rows[:1], params={"receipt": "full"}).json()
    assert quiet["events"] == []
    nothing = client.post("/readings", json=[], params={"receipt": "full"}).json()
    assert nothing["events"] == []


def test_the_receipt_tells_what_was_skipped(client):
    """A row of CSV without a reading is none, and no error; so it is in the receipt that is kept under a key."""
    asked = {"headers": {"content-type": "text/csv", "idempotency-key": "k"}}
    rows = "metric,reading\nE,1\nE,\nE,\n"
    first = client.post("/readings", content=rows, **asked)
    assert (first.json()["accepted"], first.json()["skipped"]) == (1, 2)
    assert client.post("/readings", content=rows, **asked).content == first.content


def test_rows_come_back(client, three):
    """In order of time, or the newest first; bounds: start included, end not; labels all must hold."""
    rows = client.get("/metric/M1/readings").json()
    assert [row["reading"] for row in rows] == [0, 1, 2]
    assert "labels" not in rows[0]
    assert rows[1]["labels"] == {"host": "b"}
    assert rows[1].keys() == {"reading", "reading_at", "recorded_at", "labels"}

    def values(**params):
        return [row["reading"] for row in client.get("/metric/M1/readings", params=params).json()]

    assert values(order="desc", limit=2) == [2, 1]
    assert values(start=DAY.format(1), end=DAY.format(2)) == [1]
    assert values(labels="host=a") == [2]
    assert values(labels=["host=a", "rack=1"]) == []
    assert values(end="-1d", start="2026-01-01") in ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("accept", "media", "text"),
    [
        (None, "application/json", '[{"reading":'),
        ("text/html,*/*;q=0.1", "application/json", '[{"reading":'),
        ("application/x-ndjson", "application/x-ndjson", '{"reading":0'),
        ("text/csv;q=0.9, application/json;q=0.1", "text/csv", "reading,reading_at,recorded_at,labels\r\n0,"),
    ],
)
def test_three_formats(client, three, accept, media, text):
    """By ``Accept``."""
    answer = client.get("/metric/M1/readings", headers={"accept": accept} if accept else {})
    assert answer.headers["content-type"].startswith(media)
    assert answer.text.replace("[\n", "[").startswith(text)


@pytest.mark.parametrize("path", ["/metric/M1/readings", "/metric/M1/summary"])
@pytest.mark.parametrize(
    "params",
    [
        {"start": "now", "end": "-1d"},
        {"start": "yesterday"},
        {"end": "3000-01-01"},
        {"labels": "host"},
        {"labels": "host="},
        {"labels": ["host=a", "host=b"]},
    ],
)
def test_bounds_and_labels_that_are_none(client, three, path, params):
    """422 with the parameter's place."""
    answer = client.get(path, params=params)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "query"


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": "x"}, {"order": "up"}])
def test_parameters_of_a_selection(client, three, params):
    """Checked before anything is read."""
    assert client.get("/metric/M1/readings", params=params).status_code == 422


@pytest.mark.parametrize("params", [{"precision": "h"}, {"partial": "yes"}, {"receipt": "long"}])
def test_parameters_of_a_push(client, metric, params):
    """Only what is known."""
    assert client.post("/readings", json=[], params=params).status_code == 422


def test_erasing(client, three):
    """Needs to be told what; a missing bound is open."""
    assert client.delete("/metric/M1/readings").status_code == 422
    assert client.delete("/metric/M1/readings", params={"all": "false"}).status_code == 422
    assert client.delete("/metric/M1/readings", params={"labels": "host="}).status_code == 422
    gone = client.delete("/metric/M1/readings", params={"end": DAY.format(1)})
    assert gone.json().keys() == {"committed_at"}
    assert [row["reading"] for row in client.get("/metric/M1/readings").json()] == [1, 2]
    client.delete("/metric/M1/readings", params={"labels": "host=a"})
    assert client.get("/metric/M1").json()["current_reading"] == 1
    client.delete("/metric/M1/readings", params={"all": "true"})
    assert client.get("/metric/M1/readings").json() == []


def test_summary(client, three):
    """Steps and functions, as JSON or CSV."""
    params = {"every": "2s", "fn": "mean,count,max"}
    answer = client.get("/metric/M1/summary", params=params).json()
    assert answer == {
        "every": "2s",
        "tz": "UTC",
        "rows": [
            {"start": "2026-01-01T00:00:00Z", "mean": 0.5, "count": 2, "max": 1},
            {"start": "2026-01-01T00:00:02Z", "mean": 2, "count": 1, "max": 2},
        ],
    }
    table = client.get("/metric/M1/summary", params=params, headers={"accept": "text/csv"})
    assert table.text.splitlines()[0] == "start,mean,count,max"
    days = client.get("/metric/M1/summary", params={"every": "day", "tz": "Europe/Berlin"}).json()
    assert [row["start"] for row in days["rows"]] == ["2025-12-31T23:00:00Z"]
    assert client.get("/metric/M1/summary", params={"start": "2026-01-01"}).status_code == 200


@pytest.mark.parametrize(
    "params", [{"every": "0s"}, {"fn": "median"}, {"tz": "Nowhere"}, {"every": "1us", "fn": "sum"}]
)
def test_summaries_that_can_not_be(client, three, params):
    """422, the step too small for its range included."""
    assert client.get("/metric/M1/summary", params=params).status_code == 422


def test_health_and_ready(client):
    """Both answer without a token; the first as InfluxDB's clients know it, too."""
    health = {"name": "meterite", "status": "pass", "version": "0.1.0"}
    assert client.get("/health", token=None).json() == health
    assert client.get("/ready", token=None).json() == {"status": "ready", "problems": []}


def test_csv_there_and_back(client, metric, three):
    """What ``GET`` answers as CSV is the same again when it is sent; rejected rows are told by line."""
    body = client.get("/metric/M1/readings", headers={"accept": "text/csv"}).content
    headers = {"content-type": "text/csv"}
    params = {"metric": "M1", "receipt": "full"}
    again = client.post("/readings", content=body, headers=headers, params=params)
    assert (again.status_code, again.json()["accepted"], again.json()["unchanged"]) == (200, 3, 3)
    refused = client.post("/readings", content=b"metric,reading\nM1,1\n\nM1,x\n", headers=headers)
    assert refused.status_code == 422
    assert refused.json()["rejected"] == [
        {"line": 4, "code": "reading-invalid", "reason": "'x' is not a number."}
    ]
    assert client.post("/readings", content=b"[]", params={"metric": "M1"}).status_code == 422


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/json",
    ],
)
def test_plain_numbers(client, metric, content_type):
    """A number under any content type, with a time and with labels where they are said; the answer is a receipt."""
    headers = {} if content_type is None else {"content-type": content_type}
    answer = client.post("/metric/M1/readings", content=b"42", headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
    body = b"1 1769860800\n\n2 1769860801\n"
    params = {"precision": "s", "labels": ["host=a", "room=b"], "receipt": "full"}
    answer = client.post("/metric/M1/readings", content=body, headers=headers, params=params)
    assert (answer.json()["accepted"], answer.json()["replaced"]) == (2, 0)
    found = client.get("/metric/M1/readings", params={"labels": "room=b"}).json()
    assert [(row["reading"], row["reading_at"], row["labels"]) for row in found] == [
        (1, "2026-01-31T12:00:00Z", {"host": "a", "room": "b"}),
        (2, "2026-01-31T12:00:01Z", {"host": "a", "room": "b"}),
    ]


def test_plain_numbers_refused(client, metric):
    """All or nothing, by line, unless ``partial=accept``; JSON and nothing are 422 with what to do."""
    refused = client.post("/metric/M1/readings", content=b"1\n\nx\n")
    assert (refused.status_code, refused.json()["committed_at"]) == (422, None)
    assert [(each["line"], each["code"]) for each in refused.json()["rejected"]] == [(3, "reading-invalid")]
    assert client.get("/metric/M1/readings").json() == []
    taken = client.post("/metric/M1/readings", content=b"1\n\nx\n", params={"partial": "accept"})
    assert (taken.status_code, taken.json()["accepted"], len(taken.json()["rejected"])) == (200, 1, 1)
    for body, hint in ((b'{"reading": 1}', "/readings"), (b"", "no number")):
        answer = client.post("/metric/M1/readings", content=body)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/shape-invalid")
        assert hint in answer.json()["title"]
    assert client.post("/metric/M1/readings", content=b"1", params={"labels": "host"}).status_code == 422
