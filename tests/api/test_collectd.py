"""collectd's door."""

from __future__ import annotations

import pytest

LIST = {
    "values": [3, None],
    "dstypes": ["derive", "derive"],
    "dsnames": ["read", "write"],
    "time": 1769817600.250,
    "interval": 10.000,
    "host": "h1",
    "plugin": "disk",
    "plugin_instance": "sda",
    "type": "disk_octets",
    "type_instance": "",
}
CODE = "disk_disk_octets_read"


@pytest.fixture
def metric(client):
    client.post("/metric/", json={"code": CODE, "name": "n"})


def test_success_has_no_body(client, metric):
    """200, whatever the Content-Type says; unknown values are skipped."""
    for headers in ({"content-type": "application/json"}, {"content-type": "text/plain"}, {}):
        answer = client.post("/collectd", json=[LIST], headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
    (row,) = client.get(f"/metric/{CODE}/readings").json()
    assert (row["reading"], row["reading_at"]) == (3, "2026-01-31T00:00:00.250000Z")
    labels = {"host": "h1", "plugin": "disk", "plugin_instance": "sda", "dsname": "read"}
    assert row["labels"] == labels


def test_the_good_are_kept(client, metric):
    """Beside what can't be taken, of which a receipt with 400 tells."""
    answer = client.post("/collectd", json=[{**LIST, "values": [3, "x"]}, {**LIST, "time": None}])
    assert (answer.status_code, answer.json()["accepted"]) == (400, 1)
    assert [(row["index"], row["code"]) for row in answer.json()["rejected"]] == [
        (0, "reading-invalid"),
        (1, "time-invalid"),
        (1, "time-invalid"),
    ]
    assert len(client.get(f"/metric/{CODE}/readings").json()) == 1
    none = client.post("/collectd", json=[{**LIST, "time": None}])
    assert (none.status_code, none.json()["committed_at"]) == (400, None)


def test_what_is_no_json(client):
    """400 with a problem."""
    answer = client.post("/collectd", content=b"PUTVAL a/b/c N:1")
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/json-invalid")
    assert answer.headers["content-type"] == "application/problem+json"


def test_basic_after_a_challenge(client, metric):
    """Without credentials 401 challenges for Basic, with them the token is the password."""
    asked = client.post("/collectd", token=None, json=[LIST])
    assert (asked.status_code, asked.headers["www-authenticate"].partition(" ")[0]) == (401, "Basic")
    client.http.auth = ("collectd", "token-one")
    assert client.post("/collectd", token=None, json=[LIST]).status_code == 200


def test_a_cookie_opens_no_door(client):
    """401, also with a good one from our own page."""
    value = client.get("/docs", token=None, params={"x-auth-token": "token-one"}).headers["set-cookie"]
    client.http.cookies.clear()
    headers = {"cookie": value.partition(";")[0], "sec-fetch-site": "same-origin"}
    assert client.post("/collectd", token=None, headers=headers, json=[LIST]).status_code == 401
