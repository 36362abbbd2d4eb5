"""InfluxDB's doors."""

from __future__ import annotations

import base64
import gzip

import pytest

WRITES = ("/write", "/api/v2/write", "/api/v3/write_lp")
T_NS = 1767225600 * 10**9
LINE = b"weather,place=roof temperature=21.5 %d" % T_NS
CODE = "weather_temperature"
BAD = b"weather temperature=1 1000\nweather temperature=x\n\nweather temperature=2 2000\nweather\n"


@pytest.fixture
def metric(client):
    for code in (CODE, "weather_humidity", "weather_open"):
        assert client.post("/metric/", json={"code": code, "name": code}).status_code == 200


def values(client, code=CODE):
    return [row["reading"] for row in client.get(f"/metric/{code}/readings").json()]


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain; charset=utf-8"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/octet-stream"},
        {"content-type": "application/json"},
    ],
)
def test_success_has_no_body(client, metric, path, headers):
    """204, whatever the Content-Type, with the parameters that clients bring, and those nobody knows."""
    params = {"db": "x", "rp": "", "bucket": "b", "org": "o", "no_sync": "true", "consistency": "all"}
    answer = client.post(path, content=LINE, params=params, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    (row,) = client.get(f"/metric/{CODE}/readings").json()
    assert (row["reading"], row["reading_at"]) == (21.5, "2026-01-01T00:00:00Z")
    assert row["labels"] == {"place": "roof"}


@pytest.mark.parametrize("path", WRITES)
def test_what_clients_send(client, metric, path):
    """White space, comments, blank lines, packed; texts and switches cost nothing beside them; and nothing at all."""
    body = b"\n  \t" + LINE.replace(b" 17", b',note="a, b",open=t,humidity=40i 17') + b"\r\n# c\n\n"
    answer = client.post(path, content=gzip.compress(body), headers={"content-encoding": "gzip"})
    assert answer.status_code == 204
    assert (values(client), values(client, "weather_humidity")) == ([21.5], [40])
    assert values(client, "weather_open") == [1]
    assert client.post(path, content=b'weather note="x"\n').status_code == 204
    assert client.post(path, content=b"").status_code == 204


@pytest.mark.parametrize(
    ("path", "precision", "time"),
    [
        *(("/write", word, T_NS // 10**9) for word in ("s",)),
        *((path, "ms", T_NS // 10**6) for path in WRITES),
        *((path, "us", T_NS // 10**3) for path in WRITES),
        ("/write", "u", T_NS // 10**3),
        ("/write", "n", T_NS),
        ("/write", "h", T_NS // 10**9 // 3600),
        ("/api/v3/write_lp", "nanosecond", T_NS),
        ("/api/v3/write_lp", "second", T_NS // 10**9),
        *(("/api/v3/write_lp", word, T_NS // 10**6) for word in ("auto", "")),
        ("/api/v3/write_lp", "auto", T_NS // 10**9),
    ],
)
def test_precisions(client, metric, path, precision, time):
    """Each version's words for units; 3 guesses where none is said."""
    body = b"weather temperature=1 %d" % time
    assert client.post(path, content=body, params={"precision": precision}).status_code == 204
    assert client.get(f"/metric/{CODE}/readings").json()[0]["reading_at"] == "2026-01-01T00:00:00Z"


def test_version_1_keeps_the_good_lines(client, metric):
    """400 with what agents look for, so that they drop the batch; lines and not readings are counted."""
    answer = client.post("/write", content=BAD + b"weather a=1,b=2\n")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.startswith("partial write: unable to parse: Line 2, column 21: 'x' is no value")
    assert "Line 5, column 8" in error
    assert values(client) == [1, 2]


def test_version_1_is_unable_to_parse_what_has_no_sense_alone(client, metric):
    """Those lines come first, behind InfluxDB's words; a unit that can't be right was read."""
    client.post("/metric/weather_open/deactivate")
    error = client.post("/write", content=b"weather open=t 1000\nweather temperature=x\n").json()["error"]
    assert error.startswith("partial write: unable to parse: Line 2, column 21: 'x' is no value")
    assert error.index("Line 1: ") > error.index("Line 2, column")
    error = client.post("/write", content=b"weather temperature=1 %d" % (T_NS // 10**9)).json()["error"]
    assert error.startswith("partial write: Line 1")
    error = client.post("/write?precision=s", content=b"weather temperature=1 %d" % T_NS).json()["error"]
    assert error.startswith("partial write: Line 1, column")


def test_version_2_takes_all_or_nothing(client, metric):
    """400 with code, message and the number of the first line."""
    answer = client.post("/api/v2/write", content=BAD)
    assert (answer.status_code, answer.json()["code"], answer.json()["line"]) == (400, "invalid", 2)
    assert "Line 2, column 21" in answer.json()["message"]
    assert "Line 5, column 8" in answer.json()["message"]
    assert values(client) == []


def test_version_3_takes_what_it_is_told(client, metric):
    """The good lines, and a list of the bad; with ``accept_partial=false`` nothing, and the first of them."""
    answer = client.post("/api/v3/write_lp", content=BAD, params={"accept_partial": "false"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "parsing failed for write_lp endpoint"
    assert answer.json()["data"]["line_number"] == 2
    assert values(client) == []
    answer = client.post("/api/v3/write_lp", content=BAD)
    assert (answer.status_code, answer.json()["error"]) == (400, "partial write of line protocol occurred")
    first, second = answer.json()["data"]
    assert (first["original_line"], first["line_number"]) == ("weather temperature=x", 2)
    assert first["error_message"].startswith("Line 2, column 21")
    assert (second["original_line"], second["line_number"]) == ("weather", 5)
    assert values(client) == [1, 2]
    assert client.post("/api/v3/write_lp", content=LINE, params={"accept_partial": "x"}).status_code == 400


@pytest.mark.parametrize("path", ["/write", "/api/v2/write"])
@pytest.mark.parametrize("per_s", [1, 10**3, 10**6])
def test_times_that_are_no_nanoseconds(client, metric, path, per_s):
    """400 that says so: seconds, milliseconds and microseconds without their ``precision``; nothing is written."""
    answer = client.post(path, content=b"weather temperature=1 %d" % (T_NS // 10**9 * per_s))
    assert answer.status_code == 400
    assert "said to be in ns" in told(answer)
    assert values(client) == []


def test_metrics_are_made(client):
    """By the first line that names them, but by none that is refused."""
    assert client.post("/write", content=LINE + b"\nbroken a=1,b=\n").status_code == 400
    assert [metric["code"] for metric in client.get("/metric/").json()] == [CODE]
    assert values(client) == [21.5]


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("precision", ["s", "ms", "us"])
def test_nanoseconds_by_another_name(client, metric, path, precision):
    """400: such a time is beyond all that can be kept, and nothing is written."""
    answer = client.post(path, content=LINE, params={"precision": precision})
    assert answer.status_code == 400
    assert values(client) == []


def test_what_the_store_refuses_has_its_line(client, metric):
    """An inactive metric's readings are told by line; one line is dropped, however many of its readings are."""
    client.post("/metric/weather_open/deactivate")
    body = b"weather temperature=1 1000\n\nweather temperature=2,open=t,open=f 2000\n"
    answer = client.post("/api/v2/write", content=body)
    assert (answer.status_code, answer.json()["line"]) == (400, 3)
    assert answer.json()["message"].startswith("Line 3: ")
    assert values(client) == []
    error = client.post("/write", content=body).json()["error"]
    assert error.startswith("partial write: Line 3: ")
    assert "unable to parse" not in error
    assert error.endswith("dropped=1")
    assert values(client) == [1, 2]
    data = client.post("/api/v3/write_lp", content=body).json()["data"]
    assert {each["original_line"] for each in data} == {"weather temperature=2,open=t,open=f 2000"}


def told(answer):
    document = answer.json()
    return document.get("error") or document["message"]


@pytest.mark.parametrize("path", WRITES)
def test_errors_are_bounded(client, path):
    """However many lines are bad, the answer stays short."""
    answer = client.post(path, content=b"weather\n" * 5000 + b"m,a=" + b"x" * 100_000 + b"\n")
    assert answer.status_code == 400
    assert len(answer.content) < 30_000


@pytest.mark.parametrize("path", WRITES)
def test_what_never_succeeds_is_400(client, metric, path):
    """A precision that is none, a broken body: in the version's shape, or at least a 4xx."""
    answer = client.post(path, content=LINE, params={"precision": "fortnight"})
    assert answer.status_code == 400
    assert "fortnight" in told(answer)
    broken = client.post(path, content=LINE, headers={"content-encoding": "gzip"})
    assert broken.status_code == 400
    assert client.post(path, content=b"\xff\x00\n").status_code == 400


@pytest.mark.parametrize("path", WRITES)
def test_what_may_succeed_later_is_503(client, metric, app, path, monkeypatch):
    """With ``Retry-After``, in the version's shape."""
    from meterite.model.errors import UnavailableError

    async def full(*_, **__):
        raise UnavailableError("queue-full", "Too much is waiting.", retry_after_s=7)

    monkeypatch.setattr(app.api.state.service.recorder, "record", full)
    answer = client.post(path, content=LINE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert told(answer) == "Too much is waiting."


@pytest.mark.parametrize("path", WRITES)
def test_too_many(client, app, path, monkeypatch):
    """413 tells agents to send less at once."""
    monkeypatch.setattr(app.api.state, "readings_max", 2)
    answer = client.post(path, content=b"m v=1\n" * 3)
    assert answer.status_code == 413
    assert "at most 2" in told(answer)


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({"u": "me", "p": "token-one"}, {}),
        ({"u": "", "p": "token-one"}, {}),
        ({}, {"authorization": basic("me:token-one")}),
        ({}, {"authorization": "Token token-one"}),
        ({}, {"authorization": "Token me:token-one"}),
        ({}, {"authorization": "Bearer token-one"}),
    ],
)
def test_credentials(client, metric, params, headers):
    """The password carries the token, however a client brings it; a wrong one is 401."""
    assert client.post("/write", token=None, content=LINE, params=params, headers=headers).status_code == 204
    wrong = {name: value.replace("one", "x") for name, value in params.items()}
    headers = {name: value.replace("one", "x") for name, value in headers.items() if "Basic" not in value}
    assert client.post("/write", token=None, content=LINE, params=wrong, headers=headers).status_code == 401


def test_a_cookie_opens_nothing(client, metric):
    """No browser's page is a client of these."""
    page = client.get("/docs", token=None, params={"x-auth-token": "token-one"})
    headers = {"cookie": page.headers["set-cookie"].partition(";")[0], "sec-fetch-site": "same-origin"}
    client.http.cookies.clear()
    assert client.get("/metric/", token=None, headers=headers).status_code == 200
    for path in WRITES:
        assert client.post(path, token=None, content=LINE, headers=headers).status_code == 401
    assert values(client) == []


@pytest.mark.parametrize("token", [None, "token-one", "wrong"])
def test_ping(client, token):
    """GET and HEAD, with or without token: 204 with the headers that clients look for."""
    for method in ("GET", "HEAD"):
        answer = client(method, "/ping", token=token)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["x-influxdb-version"] == "1.8.10"
        assert answer.headers["x-influxdb-build"] == "Meterite"
    answer = client.get("/ping", token=token, params={"verbose": "true"})
    assert (answer.status_code, answer.json()) == (200, {"version": "1.8.10"})


@pytest.mark.parametrize("token", [None, "token-one", "wrong"])
def test_settings(client, token):
    """QuestDB's clients ask it before they have a token: text, not the binary of later versions."""
    answer = client.get("/settings", token=token)
    assert (answer.status_code, answer.json()) == (200, {"config": {"line.proto.support.versions": [1]}})


def test_health_passes(client):
    """As clients of InfluxDB 2 read it."""
    answer = client.get("/health", token=None)
    assert (answer.status_code, answer.json()["status"]) == (200, "pass")


@pytest.mark.parametrize(
    ("q", "count"),
    [
        ("CREATE DATABASE telegraf", 1),
        ('create database "my db; really" WITH DURATION 1d', 1),
        ("CREATE DATABASE a; CREATE DATABASE b;", 2),
    ],
)
def test_create_database_does_nothing(client, q, count):
    """Taken with GET and POST, in the address or a form, whatever the Content-Type says."""
    asked = [
        client.get("/query", params={"q": q}, headers={"content-type": "application/x-www-form-urlencoded"}),
        client.post("/query", params={"q": q}),
        client.post("/query", params={"q": q}, json={"any": "thing"}),
        client.post("/query", data={"q": q}),
        client.post("/query", data={"q": q}, headers={"content-type": "text/plain"}),
    ]
    for answer in asked:
        assert answer.status_code == 200
        assert answer.json() == {"results": [{"statement_id": number} for number in range(count)]}
    assert client.get("/query", params={"q": q, "p": "token-one"}, token=None).status_code == 200
    assert client.get("/query", params={"q": q}, token=None).status_code == 401


@pytest.mark.parametrize(
    "q", ["SELECT 1", "CREATE DATABASE a; DROP DATABASE a", "", None, "CREATE DATABASE", ";"]
)
def test_other_queries_are_refused(client, q):
    """400 that says what to do."""
    for answer in (
        client.get("/query", params={"q": q} if q is not None else {}),
        client.post("/query", data={"q": q}),
    ):
        assert answer.status_code == 400
        assert "CREATE DATABASE" in answer.json()["error"] or "required" in answer.json()["error"]


@pytest.mark.parametrize("path", WRITES)
def test_only_post_writes(client, path):
    """Others are told so."""
    answer = client.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
