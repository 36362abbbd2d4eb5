"""VictoriaMetrics' doors for imports."""

from __future__ import annotations

import gzip

import pytest

LINES = b'{"metric":{"__name__":"a","x":"1"},"values":[1,null,2.5],"timestamps":[1000,2000,3000]}\n'
IMPORT = "/api/v1/import"
TEXT = f"{IMPORT}/prometheus"
CSV = f"{IMPORT}/csv"


@pytest.fixture(autouse=True)
def metrics(client):
    """Each code is there."""
    for code in ("a", "b"):
        client.post("/metric/", json={"code": code, "name": code})


def readings(client, code="a"):
    return [
        (row.get("labels", {}), row["reading_at"], row["reading"])
        for row in client.get(f"/metric/{code}/readings").json()
    ]


def is_done(answer):
    return (answer.status_code, answer.content) == (204, b"")


def test_lines(client):
    """204 without a body; unknown values are skipped; packed bodies."""
    packed = {"content": gzip.compress(LINES), "headers": {"content-encoding": "gzip"}}
    for sent in ({"content": LINES}, packed):
        assert is_done(client.post(IMPORT, **sent))
    labels = {"x": "1"}
    assert readings(client) == [
        (labels, "1970-01-01T00:00:01Z", 1),
        (labels, "1970-01-01T00:00:03Z", 2.5),
    ]


def test_infinities_are_stored(client):
    """As an export writes them."""
    line = b'{"metric":{"__name__":"a"},"values":["Infinity"],"timestamps":[1000]}'
    assert is_done(client.post(IMPORT, content=line))
    assert readings(client) == [({}, "1970-01-01T00:00:01Z", "+Inf")]


def test_exposition(client):
    """Times in the body, in the address, or the server's."""
    assert is_done(client.post(f"{TEXT}?timestamp=5000", content=b'a{x="1"} 1 1000\na 2'))
    assert is_done(client.post(TEXT, content=b"a 3 2\n# EOF\n"))
    assert is_done(client.post(TEXT, content=b"b 4\n"))
    assert readings(client) == [
        ({"x": "1"}, "1970-01-01T00:00:01Z", 1),
        ({}, "1970-01-01T00:00:02Z", 3),
        ({}, "1970-01-01T00:00:05Z", 2),
    ]
    ((_, at, _),) = readings(client, "b")
    assert at > "2026"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_labels_from_the_path(client, method):
    """As a Pushgateway groups, and nothing is replaced; extra labels stand above all."""
    path = f"{TEXT}/metrics/job@base64/YS9i/x/1"
    assert is_done(client(method, f"{path}?extra_label=y=2&extra_label=x=3", content=b'a{job="z"} 1 1000'))
    assert is_done(client(method, path, content=b"b 1 1000"))
    assert readings(client) == [({"job": "a/b", "x": "3", "y": "2"}, "1970-01-01T00:00:01Z", 1)]


def test_csv(client):
    """By its columns; another delimiter."""
    params = {"format": "2:metric:a,3:metric:b,1:label:x,4:time:unix_s", "extra_label": "y=z"}
    assert is_done(client.post(CSV, content=b"G,1,2,5\nG,3,,6\n", params=params))
    assert is_done(client.post(CSV, content=b"H;4;5;7", params=params | {"delimiter": ";"}))
    assert [(labels["x"], value) for labels, _, value in readings(client)] == [("G", 1), ("G", 3), ("H", 4)]
    assert readings(client, "b")[0] == ({"x": "G", "y": "z"}, "1970-01-01T00:00:05Z", 2)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (IMPORT, LINES + b"{", "line 2: "),
        (TEXT, b"a 1 1\n?\n", "line 2: Column 1: "),
        (TEXT, b"a 1 1\nnobody 1 1\n", None),
        (f"{CSV}?format=1:metric:a", b"1\nx\n", "line 2: 'x' is no finite number"),
        (CSV, b"1\n", "The parameter format is missing: "),
        (f"{CSV}?format=1:metric:a&delimiter=,,", b"1\n", "(csv-format-invalid)"),
        (f"{IMPORT}?extra_label=x", LINES, "(label-invalid)"),
        (f"{TEXT}?timestamp=x", b"a 1", "(time-invalid)"),
        (f"{TEXT}?timestamp=9999999999999999999", b"a 1", "(time-out-of-range)"),
        (f"{TEXT}/metrics/job/a/b", b"a 1", "(grouping-invalid)"),
        (TEXT, b"\xff", "Line 1 is not UTF-8"),
    ],
)
def test_what_is_refused(client, path, body, said):
    """400 with text, and nothing was written."""
    if said is None:
        client.post("/metric/", json={"code": "nobody", "name": "n"})
        client.post("/metric/nobody/deactivate")
        said = "(metric-inactive)"
    answer = client.post(path, content=body)
    assert answer.status_code == 400
    assert said in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert readings(client) == []


def test_the_good_lines(client):
    """Where they are asked for: 400 tells of the others."""
    answer = client.post(f"{TEXT}?partial=accept", content=b"a 1 1000\n?\n")
    assert (answer.status_code, "line 2" in answer.text) == (400, True)
    assert len(readings(client)) == 1
