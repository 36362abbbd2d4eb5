"""Many readings in, all kinds of answers out, over the socket."""

from __future__ import annotations

import csv
import gzip
import io
import json
import time
from datetime import datetime
from urllib.parse import quote

import pytest

DAY_S = 86_400
BEGIN_S = 1_769_817_600  # 2026-01-31T00:00:00Z
BEGIN_US = BEGIN_S * 1_000_000
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def send(client, body, status=200, **params):
    answer = client.post("/readings", json=body, params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def rows(client, code, **params):
    answer = client.get(f"/metric/{quote(code, safe='')}/readings", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def us(text):
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def columns(code, count, step_s=60, **more):
    """``count`` readings from :data:`BEGIN_S` on; the reading is the number of the step."""
    times = [BEGIN_S + n * step_s for n in range(count)]
    return {"metric": code, "reading_at": times, "reading": list(range(count)), **more}


# --- POST /readings


def test_rows(client, code):
    """An array of rows; a row may have labels and may lack a time."""
    body = [
        {"metric": code, "reading": 1, "reading_at": "2026-01-31T00:00:00Z"},
        {"metric": code, "reading": 2.5, "reading_at": "2026-01-31T00:01:00Z", "labels": {"host": "a"}},
        {"metric": code, "reading": 3},
    ]
    receipt = send(client, body)
    assert (receipt["accepted"], receipt["rejected"]) == (3, [])
    assert receipt["committed_at"].endswith("Z")
    found = rows(client, code)
    assert [row["reading"] for row in found] == [1, 2.5, 3]
    assert [row.get("labels") for row in found] == [None, {"host": "a"}, None]
    assert found[2]["recorded_at"] == receipt["committed_at"]


def test_one_row(client, code):
    """One object is as good as an array of one."""
    assert send(client, {"metric": code, "reading": 1})["accepted"] == 1


def test_columns(client, code):
    """Columns, and an array of columns and rows."""
    assert send(client, columns(code, 100), precision="s")["accepted"] == 100
    body = [columns(code, 100, labels={"host": "b"}), {"metric": code, "reading": 7, "reading_at": BEGIN_S}]
    assert send(client, body, precision="s")["accepted"] == 101
    assert len(rows(client, code)) == 200
    assert rows(client, code, limit=1, labels="host=b")[0]["reading"] == 0


def test_ndjson(client, code):
    """A row a line under ``application/x-ndjson``; packed, too."""
    lines = [
        {"metric": code, "reading": n, "reading_at": f"2026-01-31T00:{n:02}:00+00:00"} for n in range(60)
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    headers = {"content-type": "application/x-ndjson"}
    assert client.post("/readings", content=body, headers=headers).json()["accepted"] == 60
    headers["content-encoding"] = "gzip"
    again = client.post("/readings", content=gzip.compress(body), headers=headers, params={"receipt": "full"})
    assert (again.json()["replaced"], again.json()["unchanged"]) == (0, 60)
    assert len(rows(client, code)) == 60


@pytest.mark.parametrize("unit", UNITS)
def test_precision(client, code, unit):
    """Integers in s, ms, us or ns are the same instant."""
    body = [{"metric": code, "reading": 1, "reading_at": BEGIN_S * UNITS[unit]}]
    assert send(client, body, precision=unit)["accepted"] == 1
    assert us(rows(client, code)[0]["reading_at"]) == BEGIN_US


def test_all_or_nothing(client, code):
    """One bad reading refuses the request whole; ``partial=accept`` takes the others."""
    body = [
        {"metric": code, "reading": 1, "reading_at": BEGIN_S},
        {"metric": "..", "reading": 2, "reading_at": BEGIN_S},
        {"metric": code, "reading": "x", "reading_at": BEGIN_S + 1},
        {"metric": code, "reading": 4, "reading_at": BEGIN_S + 2},
    ]
    refused = send(client, body, 422, precision="s")
    assert refused["accepted"] == 0
    assert [each["index"] for each in refused["rejected"]] == [1, 2]
    assert all(each["code"] and each["reason"] for each in refused["rejected"])
    assert rows(client, code) == []
    taken = send(client, body, precision="s", partial="accept")
    assert taken["accepted"] == 2
    assert taken["rejected"] == refused["rejected"]
    assert [row["reading"] for row in rows(client, code)] == [1, 4]


def test_receipt_full(client, code):
    """Compared with the state just before the commit."""
    first = send(client, columns(code, 10), precision="s", receipt="full")
    assert (first["replaced"], first["unchanged"]) == (0, 0)
    body = columns(code, 12)
    body["reading"][:5] = [-1] * 5
    second = send(client, body, precision="s", receipt="full")
    assert (second["accepted"], second["replaced"], second["unchanged"]) == (12, 5, 5)


def test_rows_without_a_time_get_one_each(client, code):
    """Also in columns."""
    send(client, {"metric": code, "reading": [1, 2, 3]})
    send(client, [{"metric": code, "reading": 4}, {"metric": code, "reading": 5}])
    found = rows(client, code)
    assert [row["reading"] for row in found] == [1, 2, 3, 4, 5]
    assert len({row["reading_at"] for row in found}) == 5


# --- GET readings


def test_formats(client, code):
    """JSON, NDJSON and CSV by Accept tell the same."""
    send(client, columns(code, 5, labels={"host": 'a"b'}), precision="s")
    place = f"/metric/{code}/readings"
    as_json = client.get(place).json()
    answer = client.get(place, headers={"accept": "application/x-ndjson"})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == as_json
    answer = client.get(place, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert [float(row["reading"]) for row in read] == [row["reading"] for row in as_json]
    assert [row["reading_at"] for row in read] == [row["reading_at"] for row in as_json]
    assert json.loads(read[0]["labels"]) == {"host": 'a"b'}


def test_order_and_limit(client, code):
    """Ascending is the default; the limit counts from the side that comes first."""
    send(client, columns(code, 100), precision="s")
    assert [row["reading"] for row in rows(client, code, limit=3)] == [0, 1, 2]
    assert [row["reading"] for row in rows(client, code, limit=3, order="desc")] == [99, 98, 97]
    for order, step in (("asc", 1), ("desc", -1)):
        assert [row["reading"] for row in rows(client, code, order=order)] == list(range(100))[::step]


def test_start_and_end(client, code):
    """RFC 3339, epoch seconds and fractions of them; start included, end not; start after end is a 422."""
    send(client, columns(code, 100), precision="s")

    def found(**params):
        return [row["reading"] for row in rows(client, code, **params)]

    assert found(start="2026-01-31T00:01:00Z", end="2026-01-31T00:03:00Z") == [1, 2]
    assert found(start=BEGIN_S + 60, end=BEGIN_S + 180) == [1, 2]
    assert found(start=f"{BEGIN_S + 60}.000001", end=f"{BEGIN_S + 180}.5") == [2, 3]
    assert found(end=BEGIN_S + 60) == [0]
    assert found(start=BEGIN_S + 99 * 60) == [99]
    assert found(start=BEGIN_S, end=BEGIN_S) == []
    crossed = client.get(f"/metric/{code}/readings", params={"start": BEGIN_S + 1, "end": BEGIN_S})
    assert crossed.status_code == 422


def test_relative_bounds(client, code):
    """``-1d`` and ``now``."""
    now = int(time.time())
    times = [now - 2 * DAY_S, now - 3600, now + 3600]
    send(client, {"metric": code, "reading_at": times, "reading": [1, 2, 3]}, precision="s")
    assert [row["reading"] for row in rows(client, code, start="-1d", end="now")] == [2]
    assert [row["reading"] for row in rows(client, code, start="-3d")] == [1, 2, 3]
    assert [row["reading"] for row in rows(client, code, start="now")] == [3]
    assert [row["reading"] for row in rows(client, code, end="-90m")] == [1]


def test_labels(client, code):
    """All that are named must hold; without, all series."""
    for host in ("a", "b"):
        for disk in ("x=y", "z"):
            body = {"metric": code, "reading": 1, "reading_at": BEGIN_S}
            send(client, [body | {"labels": {"host": host, "disk": disk}}], precision="s")
    assert len(rows(client, code)) == 4
    assert len(rows(client, code, labels="host=a")) == 2
    assert rows(client, code, labels=["host=a", "disk=x=y"])[0]["labels"] == {"host": "a", "disk": "x=y"}
    assert rows(client, code, labels="host=c") == []
    assert rows(client, code, labels="rack=1") == []


def test_a_large_answer(client, code):
    """More than any buffer holds comes whole and in order."""
    count = 200_000
    send(client, columns(code, count, 1), precision="s")
    found = rows(client, code)
    assert [row["reading"] for row in found] == list(range(count))


# --- DELETE readings


def test_delete_needs_to_be_told_what(client, code):
    """Neither bounds nor labels nor ``all=true``: 422, and nothing is gone."""
    send(client, columns(code, 10), precision="s")
    assert client.delete(f"/metric/{code}/readings").status_code == 422
    assert client.delete("/metric/nowhere/readings", params={"all": "true"}).status_code == 404
    assert len(rows(client, code)) == 10


def test_delete(client, code):
    """A range, then labels, then all; current and last are right when it answers; written again, it is back."""
    send(client, [columns(code, 10), columns(code, 10, labels={"host": "a"})], precision="s")
    place = f"/metric/{code}/readings"
    answer = client.delete(place, params={"start": BEGIN_S + 8 * 60})
    assert answer.json()["committed_at"].endswith("Z")
    metric = client.get(f"/metric/{code}").json()
    assert (metric["current_reading"], metric["last_reading"]) == (7, 7)
    assert len(rows(client, code)) == 16
    client.delete(place, params={"labels": "host=a"})
    assert [row["reading"] for row in rows(client, code)] == list(range(8))
    metric = client.get(f"/metric/{code}").json()
    assert (metric["current_reading"], metric["last_reading"]) == (7, 6)
    client.delete(place, params={"start": BEGIN_S + 60, "end": BEGIN_S + 120})
    assert [row["reading"] for row in rows(client, code)] == [0, 2, 3, 4, 5, 6, 7]
    client.delete(place, params={"all": "true"})
    assert rows(client, code) == []
    metric = client.get(f"/metric/{code}").json()
    assert metric["current_reading"] is None
    assert metric["last_reading_at"] is None
    send(client, columns(code, 3), precision="s")
    assert [row["reading"] for row in rows(client, code)] == [0, 1, 2]


# --- Summary


def test_summary_by_hour(client, code):
    """Fixed steps; a row for each step that has readings; CSV tells the same."""
    send(client, columns(code, 120), precision="s")
    params = {"every": "1h", "fn": "mean,min,max,sum,count,first,last,p50", "start": BEGIN_S}
    place = f"/metric/{code}/summary"
    summary = client.get(place, params=params).json()
    assert summary["every"] == "1h"
    assert [us(row.pop("start")) for row in summary["rows"]] == [BEGIN_US, BEGIN_US + 3_600_000_000]
    first = {"mean": 29.5, "min": 0, "max": 59, "sum": 1770, "count": 60, "first": 0, "last": 59, "p50": 29.5}
    assert summary["rows"][0] == first
    assert summary["rows"][1]["first"] == 60
    answer = client.get(place, params=params, headers={"accept": "text/csv"})
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert [float(row["sum"]) for row in read] == [1770, 5370]


def test_summary_by_day_in_a_zone(client, code):
    """The day the clocks go forward has 23 hours in Berlin."""
    begin = us("2026-03-28T00:00:00+01:00") // 1_000_000
    hours = [begin + 3600 * n for n in range(24 + 23 + 24)]
    send(client, {"metric": code, "reading_at": hours, "reading": [1] * len(hours)}, precision="s")
    params = {"every": "day", "tz": "Europe/Berlin", "fn": "count", "start": begin, "end": hours[-1] + 1}
    summary = client.get(f"/metric/{code}/summary", params=params).json()
    assert [row["count"] for row in summary["rows"]] == [24, 23, 24]
    assert us(summary["rows"][1]["start"]) == us("2026-03-29T00:00:00+01:00")
    assert us(summary["rows"][2]["start"]) == us("2026-03-30T00:00:00+02:00")


def test_summary_refuses(client, code):
    """Unknown steps, functions and zones are 422; so is more than can be answered."""
    for params in ({"every": "1x"}, {"fn": "median"}, {"every": "day", "tz": "Mars/Olympus"}, {"fn": "p101"}):
        assert client.get(f"/metric/{code}/summary", params=params).status_code == 422, params
    send(client, columns(code, 2, -365 * DAY_S), precision="s")
    params = {"every": "1us", "start": BEGIN_S - 366 * DAY_S, "end": BEGIN_S + 1}
    assert client.get(f"/metric/{code}/summary", params=params).status_code == 422
    assert client.get("/metric/nowhere/summary").status_code == 404


# --- Policies, orgs, codes


@pytest.mark.parametrize(
    ("policy", "kept"), [("last", 2), ("first", 3), ("min", 1), ("max", 7), ("sum", 3 + 7 + 1 + 2)]
)
def test_policies(client, policy, kept):
    """What four readings at one time come to; fixed once there was one; state and summary agree."""
    code = f"policy-{policy}"
    client.post("/metric/", json={"code": code, "name": code, "on_conflict": policy})
    for reading in (3, 7):
        client.post(f"/metric/{code}", json={"reading": reading, "reading_at": "2026-01-31T00:00:00Z"})
    send(client, [{"metric": code, "reading": n, "reading_at": "2026-01-31T00:00:00Z"} for n in (1, 2)])
    assert [row["reading"] for row in rows(client, code)] == [kept]
    assert client.get(f"/metric/{code}").json()["current_reading"] == kept
    summary = client.get(f"/metric/{code}/summary", params={"fn": "sum,count"}).json()
    assert (summary["rows"][0]["sum"], summary["rows"][0]["count"]) == (kept, 1)
    other_policy = "min" if policy != "min" else "max"
    changed = client.put(f"/metric/{code}", json={"code": code, "name": code, "on_conflict": other_policy})
    assert changed.status_code == 409


def test_two_orgs_never_see_each_other(client, other):
    """The same code is two metrics; another org's metric answers exactly as one that doesn't exist."""
    for org in (client, other):
        assert org.post("/metric/", json={"code": "shared", "name": "n"}).status_code == 200
    client.post("/metric/", json={"code": "only-one", "name": "n"})
    send(client, columns("shared", 3), precision="s")
    send(other, columns("shared", 1), precision="s")
    assert (len(rows(client, "shared")), len(rows(other, "shared"))) == (3, 1)
    other.delete("/metric/shared/readings", params={"all": "true"})
    assert (len(rows(client, "shared")), len(rows(other, "shared"))) == (3, 0)
    assert "only-one" not in other.get("/metric/").text
    for method, place, body in (
        ("GET", "", None),
        ("PUT", "", {"code": "CODE", "name": "n"}),
        ("POST", "", {"reading": 1}),
        ("DELETE", "", None),
        ("POST", "/activate", None),
        ("POST", "/deactivate", None),
        ("GET", "/readings", None),
        ("DELETE", "/readings?all=true", None),
        ("GET", "/summary", None),
    ):
        answers = []
        for code in ("only-one", "not-there"):
            sent = None if body is None else {k: code if v == "CODE" else v for k, v in body.items()}
            answer = other.request(method, f"/metric/{code}{place}", json=sent)
            assert answer.status_code == 404, (method, place)
            text = answer.text.replace(code, "CODE")
            answers.append(text.partition('"request_id"')[0])
        assert answers[0] == answers[1]
    for code in ("only-one", "not-there"):  # each is made in the org that pushes it
        assert send(other, [{"metric": code, "reading": 1}])["accepted"] == 1
        assert len(rows(other, code)) == 1
    assert rows(client, "only-one") == []
    assert client.get("/metric/not-there").status_code == 404


CODES = [
    "readings",
    "summary",
    "activate",
    "deactivate",
    "a/readings",
    "a%2Fb",
    "a/b/c",
    "/",
    "//",
    "a/",
    "/a",
    "readings/readings",
    "a b",
    "a+b",
    "a?b",
    "a#b",
    "a%b",
    "a;b=c",
    "...",
    "a/../b",
    "ä",
    "日本/語",
    "👋🏽",
    '"',
    "\\",
    " ",
    "\u200b",
]


@pytest.mark.parametrize("code", CODES)
def test_no_code_is_unreachable(client, code):
    """Whatever its letters and last part: made, read, written, changed, taken out of use and deleted."""
    place = f"/metric/{quote(code, safe='').replace('.', '%2E')}"
    assert client.post("/metric/", json={"code": code, "name": "n"}).status_code == 200
    assert client.get(place).json()["code"] == code
    answer = client.post(place, json={"reading": 5, "reading_at": "2026-01-31T00:00:00Z"})
    assert answer.status_code == 200
    assert send(client, [{"metric": code, "reading": 6, "reading_at": "2026-01-31T00:00:01Z"}])["accepted"]
    assert [row["reading"] for row in client.get(f"{place}/readings").json()] == [5, 6]
    assert client.get(f"{place}/summary", params={"fn": "count"}).json()["rows"][0]["count"] == 2
    assert client.put(place, json={"code": code, "name": "new"}).json()["name"] == "new"
    assert client.delete(f"{place}/readings", params={"all": "true"}).status_code == 200
    assert client.post(f"{place}/deactivate").json()["active"] is False
    assert client.post(f"{place}/activate").json()["active"] is True
    assert client.post(f"{place}/deactivate").json()["code"] == code
    assert client.delete(place).json()["code"] == code
    assert client.get(place).status_code == 404


def test_a_slash_as_it_is(client):
    """``a/b`` works unescaped, too, and its last part is an action only where it is one of ours."""
    client.post("/metric/", json={"code": "x/y", "name": "n"})
    assert client.post("/metric/x/y", json={"reading": 1}).status_code == 200
    assert len(client.get("/metric/x/y/readings").json()) == 1
    assert client.get("/metric/x/y").json()["code"] == "x/y"
    assert client.get("/metric/x%2Freadings").status_code == 404
