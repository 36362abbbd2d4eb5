"""The Pushgateway's door."""

from __future__ import annotations

import gzip
import math

import pytest

from wire.prometheus_families import family, gauge, metric

GROUP = "/metrics/job/backup/instance/db1"
PROTO = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


@pytest.fixture(autouse=True)
def metrics(client):
    """Each code is there."""
    for code in ("a", "b", "h_bucket", "h_sum", "h_count"):
        client.post("/metric/", json={"code": code, "name": code})


def values(client, code):
    """A metric's readings by labels, in the order of their times; what is no number is None."""
    found = {}
    for row in client.get(f"/metric/{code}/readings").json():
        labels = tuple(
            sorted((name, text) for name, text in row["labels"].items() if name not in {"job", "instance"})
        )
        found.setdefault(labels, []).append(row["reading"])
    return found


def labels(client, code):
    (row,) = client.get(f"/metric/{code}/readings").json()
    return row["labels"]


def test_a_push(client):
    """200 without a body; code is the metric's name, the group's labels are labels."""
    answer = client.put(GROUP, content=b'# TYPE a gauge\na{x="1"} 42\n')
    assert (answer.status_code, answer.content) == (200, b"")
    assert labels(client, "a") == {"job": "backup", "instance": "db1", "x": "1"}
    assert values(client, "a") == {(("x", "1"),): [42]}


def test_put_replaces_the_group(client):
    """Series that aren't pushed again end with a stale marker; what they had stays."""
    client.put(GROUP, content=b'a{x="1"} 1\na{x="2"} 2\nb 3\n')
    client.put("/metrics/job/other", content=b"b 9\n")
    assert client.put(GROUP, content=b'a{x="2"} 4\n').status_code == 200
    assert values(client, "a") == {(("x", "1"),): [1, None], (("x", "2"),): [2, 4]}
    readings = client.get("/metric/b/readings").json()
    assert [(row["labels"]["job"], row["reading"]) for row in readings] == [
        ("backup", 3),
        ("other", 9),
        ("backup", None),
    ]
    assert client.get("/metric/a").json()["current_reading"] == 4


def test_post_replaces_metrics_of_the_same_name(client):
    """Others stay in the group until it is replaced or deleted."""
    client.put(GROUP, content=b'a{x="1"} 1\nb 3\n')
    assert client.post(GROUP, content=b'a{x="2"} 2\n').status_code == 200
    assert values(client, "a") == {(("x", "1"),): [1, None], (("x", "2"),): [2]}
    assert values(client, "b") == {(): [3]}
    client.delete(GROUP)
    assert values(client, "a") == {(("x", "1"),): [1, None], (("x", "2"),): [2, None]}
    assert values(client, "b") == {(): [3, None]}


def test_current_outlives_its_series(client):
    """A marker never becomes current, in whatever way it is asked for: the last number stays, with its time."""
    client.put(GROUP, content=b'a{x="1"} 1\n')
    client.put(GROUP, content=b'a{x="2"} 2\n')
    before = client.get("/metric/a").json()
    client.delete(GROUP)
    assert values(client, "a") == {(("x", "1"),): [1, None], (("x", "2"),): [2, None]}
    (listed,) = [one for one in client.get("/metric/").json() if one["code"] == "a"]
    for shown in (client.get("/metric/a").json(), listed):
        for name in ("current_reading", "current_reading_at", "last_reading", "last_reading_at"):
            assert shown[name] == before[name], name
    assert (before["current_reading"], before["last_reading"]) == (2, 1)
    assert client.post("/metric/a/deactivate").json()["current_reading"] == 2


def test_delete(client):
    """202, again and where there never was such a group; only this group's series end, once."""
    client.put(GROUP, content=b"a 1\n")
    client.put("/metrics/job/backup", content=b"a 2\n")
    for path in (GROUP, GROUP, "/metrics/job/nobody"):
        answer = client.delete(path)
        assert (answer.status_code, answer.content) == (202, b"")
    assert values(client, "a") == {(): [1, 2, None]}


def test_the_order_of_labels_makes_no_other_group(client):
    """Nor do the ways to write it."""
    client.put("/metrics/job/j/x/1/y/2", content=b"a 1\n")
    client.put("/metrics/job@base64/ag/y@base64/Mg==/x/1/z@base64/=", content=b"b 1\n")
    assert [row["reading"] for row in client.get("/metric/a/readings").json()] == [1, None]
    assert labels(client, "b") == {"job": "j", "x": "1", "y": "2"}


@pytest.mark.parametrize(
    ("path", "job"),
    [
        ("/metrics/job/a+b", "a+b"),
        ("/metrics/job/a%2Bb", "a+b"),
        ("/metrics/job/a%2Fb", "a/b"),
        ("/metrics/job/a%20b", "a b"),
        ("/metrics/job@base64/L3Zhci90bXA=", "/var/tmp"),
        ("/metrics/job%40base64/L3Zhci90bXA", "/var/tmp"),
    ],
)
def test_paths(client, path, job):
    """As they were sent: a plus is a plus, and an escaped slash belongs to the value."""
    assert client.post(path, content=b"a 1\n").status_code == 200
    assert labels(client, "a") == {"job": job}


def test_the_groups_labels_stand_above_the_bodys(client):
    """An empty one takes the body's away."""
    path = "/metrics/job/j/instance@base64/="
    assert client.put(path, content=b'a{job="x",instance="y",z="1"} 1\n').status_code == 200
    assert labels(client, "a") == {"job": "j", "z": "1"}


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_empty_push(client, method):
    """PUT empties the group, POST changes nothing."""
    client.put(GROUP, content=b"a 1\n")
    assert client(method, GROUP, content=b"").status_code == 200
    assert values(client, "a") == {(): [1, None] if method == "PUT" else [1]}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"a 1\n", {}),
        (b"a 1\n", {"content-type": "application/x-www-form-urlencoded"}),
        (b"a 1\n# EOF\n", {"content-type": "text/plain; version=0.0.4"}),
        (b"a 1\n# EOF\n", {"content-type": "application/openmetrics-text; version=1.0.0"}),
        (gzip.compress(b"a 1\n", mtime=0), {"content-encoding": "gzip"}),
        (family("a", metric(gauge(1))), {"content-type": PROTO}),
    ],
)
def test_formats(client, body, headers):
    """By Content-Type where it tells, else by content; packed ones, too."""
    assert client.put(GROUP, content=body, headers=headers).status_code == 200
    assert values(client, "a") == {(): [1]}


def test_a_chunked_push(client):
    """As Go's library sends it."""

    async def chunks():
        for part in (b"a ", b"1", b"\n"):
            yield part

    assert client.put(GROUP, content=chunks()).status_code == 200
    assert values(client, "a") == {(): [1]}


def test_what_is_no_number_is_stored(client):
    """NaN and infinities; none of them becomes current."""
    client.put(GROUP, content=b'a{x="1"} 5\na{x="2"} NaN\na{x="3"} +Inf\n')
    assert values(client, "a") == {(("x", "1"),): [5], (("x", "2"),): [None], (("x", "3"),): ["+Inf"]}
    assert client.get("/metric/a").json()["current_reading"] == 5
    assert math.isfinite(client.get("/metric/a").json()["current_reading"])


def test_a_histogram_is_series_of_three_codes(client):
    """From text and from protobuf alike."""
    body = b'# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n'
    assert client.put(GROUP, content=body).status_code == 200
    assert values(client, "h_bucket") == {(("le", "1"),): [1], (("le", "+Inf"),): [2]}
    assert (values(client, "h_sum"), values(client, "h_count")) == ({(): [3]}, {(): [2]})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a 1\n? 2\n", "line 2: Column 1: "),
        (b"a 1\nb 2 1395066363000\n", "line 2: pushed metrics must not have timestamps"),
        (b'a{x="1"} 1\nb 2\na{x="1"} 3\n', "line 3: a series of 'a' was there before"),
        (b'a{job="1"} 1\na{job="2"} 3\n', "line 2: a series of 'a' was there before"),
        (b"a 1\n\xff 2\n", "Line 2 is not UTF-8"),
        (b"\n".join(b"?" for _ in range(30)), "and 10 more"),
    ],
)
def test_what_is_refused(client, body, said):
    """400 with text, and nothing was written: a push is all or nothing."""
    client.put(GROUP, content=b"b 7\n")
    answer = client.put(GROUP, content=body)
    assert answer.status_code == 400
    assert said in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (values(client, "a"), values(client, "b")) == ({}, {(): [7]})


@pytest.mark.parametrize(
    ("path", "body"),
    [("/metrics/job/x/y", b"a 1\n"), ("/metrics/job@base64/a", b""), ("/metrics/job//", b"")],
)
@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_paths_that_name_no_group(client, method, path, body):
    """400, for a delete, too."""
    answer = client(method, path, content=body if method != "DELETE" else None)
    assert answer.status_code == 400
    assert "(grouping-invalid)" in answer.text


def test_a_broken_protobuf(client):
    """400 with the byte."""
    answer = client.put(GROUP, content=b"\x05a", headers={"content-type": PROTO})
    assert answer.status_code == 400
    assert "at byte 0" in answer.text


def test_an_inactive_metric(client):
    """Refused with its line; and a delete goes around it."""
    client.put(GROUP, content=b"a 1\nb 1\n")
    client.post("/metric/a/deactivate")
    answer = client.put(GROUP, content=b"b 2\na 2\n")
    assert (answer.status_code, "line 2" in answer.text) == (400, True)
    assert client.delete(GROUP).status_code == 202
    assert (values(client, "a"), values(client, "b")) == ({(): [1]}, {(): [1, None]})


def test_orgs_have_groups_of_their_own(client):
    """A delete of one's group leaves the other's."""
    client.post("/metric/", json={"code": "a", "name": "a"}, token="token-two")
    client.put(GROUP, content=b"a 1\n")
    client.put(GROUP, content=b"a 2\n", token="token-two")
    client.delete(GROUP, token="token-two")
    assert values(client, "a") == {(): [1]}


def test_a_cookie_opens_no_door(client):
    """Only tokens that a page can't bring along do."""
    page = client.get("/docs", token=None, params={"x-auth-token": "token-one"})
    cookie = page.headers["set-cookie"].partition(";")[0]
    client.http.cookies.clear()
    headers = {"cookie": cookie, "sec-fetch-site": "same-origin"}
    assert client.put(GROUP, token=None, headers=headers, content=b"a 1\n").status_code == 401
    assert client.get("/metric/a", token=None, headers=headers).status_code == 200


def test_parameters_are_the_clients_own_business(client):
    """What isn't known is passed over, and the token may stand there."""
    assert client.put(f"{GROUP}?x=1&x-auth-token=token-one", token=None, content=b"a 1\n").status_code == 200


def test_a_push_makes_its_metrics(client):
    """With what describes them; and what makes one that nobody knows is in the group as all are."""
    body = b"# HELP made_seconds How long.\n# UNIT made_seconds seconds\nmade_seconds 3\n# EOF\n"
    assert client.put(GROUP, content=body).status_code == 200
    made = client.get("/metric/made_seconds").json()
    assert (made["unit"], made["description"], made["current_reading"]) == ("seconds", "How long.", 3)
    assert client.delete(GROUP).status_code == 202
    assert values(client, "made_seconds") == {(): [3, None]}
