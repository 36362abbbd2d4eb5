"""Metrics and series that readings make: when, and how many."""

from __future__ import annotations

import pytest


def push(client, *rows, status=200, **params):
    answer = client.post("/readings", json=list(rows), params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def row(metric, reading=1, **labels):
    return {"metric": metric, "reading": reading} | ({"labels": labels} if labels else {})


def codes(client):
    return [metric["code"] for metric in client.get("/metric/").json()]


def refused(receipt):
    return [(one["index"], one["code"]) for one in receipt["rejected"]]


def test_readings_make_their_metrics(client):
    """Named by the code, without limits (a large reading raises nothing), active, and the next push finds it."""
    push(client, row("a/b c", 1e300), row("a/b c", 2, host="x"), row("other"))
    metric = client.get("/metric/a%2Fb%20c").json()
    assert (metric["name"], metric["active"]) == ("a/b c", True)
    assert metric["max_reading"] == -metric["min_reading"] == 1.7976931348623157e308
    assert client.get("/events").json()["events"] == []
    assert len(metric["meters"]) == 2
    push(client, row("a/b c", 3, host="x"))
    assert len(client.get("/metric/a%2Fb%20c/readings").json()) == 3
    assert codes(client) == ["a/b c", "other"]


def test_a_single_push_makes_none(client):
    """``POST /metric/{code}`` keeps the original's contract."""
    assert client.post("/metric/nobody", json={"reading": 1}).status_code == 404
    assert codes(client) == []


def test_a_deleted_metric_is_made_anew(client):
    """Under another id, and without the old one's readings."""
    push(client, row("M", 1))
    old = client.get("/metric/M").json()["id"]
    client.post("/metric/M/deactivate")
    client.delete("/metric/M")
    push(client, row("M", 2))
    new = client.get("/metric/M").json()
    assert new["id"] > old
    assert [meter["reading"] for meter in new["meters"]] == [2]


def test_an_inactive_metric_is_not_made_active(client):
    """It takes nothing, and the reason says so."""
    push(client, row("M"))
    client.post("/metric/M/deactivate")
    assert refused(push(client, row("M"), row("N"), status=422)) == [(0, "metric-inactive")]
    assert codes(client) == ["M"]


@pytest.mark.parametrize("settings", [{"auto_create": "off"}])
def test_off(client):
    """An unknown metric is an error in the receipt."""
    assert refused(push(client, row("M"), status=422)) == [(0, "metric-not-found")]
    assert codes(client) == []


@pytest.mark.parametrize("settings", [{"auto_create": '{"org_01": ["app_", "host_"], "*": "off"}'}])
def test_prefixes_by_org(client):
    """Those that an org may make; others none."""
    receipt = push(client, row("app_a"), row("web_a"), row("host_"), partial="accept")
    assert (receipt["accepted"], refused(receipt)) == (2, [(1, "metric-not-found")])
    assert "codes begin with 'app_' or 'host_'; make it" in receipt["rejected"][0]["reason"]
    assert codes(client) == ["app_a", "host_"]
    other = client.post("/readings", json=[row("app_a")], token="token-two")
    assert refused(other.json()) == [(0, "metric-not-found")]
    assert "auto_create lets none be made" in other.json()["rejected"][0]["reason"]


@pytest.mark.parametrize("settings", [{"auto_create": '["a", "b", "c", "d", "e"]'}])
def test_many_prefixes(client):
    """Some are told, and how many more there are."""
    (rejected,) = push(client, row("x"), status=422)["rejected"]
    assert "codes begin with 'a' or 'b' or 'c' or 2 more; make it" in rejected["reason"]


def test_refused_whole_makes_nothing(client):
    """Neither metric nor series, whatever was good in it."""
    bad = {"metric": "B", "reading": 1, "reading_at": "2200-01-01T00:00:00Z"}
    assert refused(push(client, row("A", host="x"), bad, status=422)) == [(1, "time-in-future")]
    assert codes(client) == []
    assert push(client, row("A", host="x"), bad, partial="accept")["accepted"] == 1
    assert codes(client) == ["A"]


@pytest.mark.parametrize("settings", [{"metric_series_max": 4}])
def test_a_metric_holds_so_many_series(client):
    """That without labels is one; who is refused learns which label has too many values."""
    push(client, *(row("M", 1, host="h", id=str(n)) for n in range(3)))
    receipt = push(client, row("M", 1, host="h", id="0"), row("M", 1, host="h", id="9"), status=422)
    assert refused(receipt) == [(1, "series-too-many")]
    assert "'id' has 4 values" in receipt["rejected"][0]["reason"]
    rows = [row("M", 2, host="h", id="8"), row("M", 2), row("N", 2, id="1")]
    assert refused(push(client, *rows, partial="accept")) == [(0, "series-too-many")]
    single = client.post("/metric/M", json={"reading": 1, "labels": {"id": "7"}})
    assert (single.status_code, single.json()["type"]) == (409, "/problems/series-too-many")
    assert (
        client.post("/metric/M", json={"reading": 1, "labels": {"host": "h", "id": "0"}}).status_code == 200
    )


@pytest.mark.parametrize("settings", [{"org_series_max": 3}])
def test_an_org_holds_so_many_series(client):
    """A metric counts as one; a deleted one makes room again; other orgs have room of their own."""
    push(client, row("A"), row("B", 1, host="x"))
    receipt = push(client, row("C"), row("A", 1, host="y"), partial="accept", status=422)
    assert refused(receipt) == [(0, "series-too-many"), (1, "series-too-many")]
    assert "The org holds its 3 series" in receipt["rejected"][0]["reason"]
    assert client.post("/readings", json=[row("C")], token="token-two").status_code == 200
    client.post("/metric/B/deactivate")
    client.delete("/metric/B")
    assert push(client, row("C"), row("A", 1, host="y"))["accepted"] == 2
    assert codes(client) == ["A", "C"]


@pytest.mark.parametrize("settings", [{"max_future": "", "trust_timestamps": True}, {}])
def test_times(client, settings):
    """Far ahead, and milliseconds that look like seconds: as the settings say."""
    status = 200 if settings else 422
    ahead = {"metric": "M", "reading": 1, "reading_at": "2200-01-01T00:00:00Z"}
    push(client, ahead, status=status)
    looks_wrong = {"metric": "M", "reading": 1, "reading_at": 1_767_225_600}
    push(client, looks_wrong, precision="ms", status=status)
    push(client, looks_wrong, precision="s")
    client.post("/metric/", json={"code": "S", "name": "S"})
    single = client.post("/metric/S", json={"reading": 1, "reading_at": "2200-01-01T00:00:00Z"})
    assert single.status_code == 200
