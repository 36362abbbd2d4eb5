"""The contract with the original's clients: a test a row of its table, and what the words mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from e2e.server import ONE, TWO

AT = "2026-01-31T12:34:56.789Z"
BASE = ("code", "name", "min_reading", "max_reading", "truncate_reading_to")
METRIC = (
    *BASE,
    *("id", "org", "active", "current_reading", "current_reading_at", "last_reading", "last_reading_at"),
)


def make(client, code, **fields):
    answer = client.post("/metric/", json={"code": code, "name": code, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def push(client, code, reading, at=None):
    body = {"reading": reading} | ({} if at is None else {"reading_at": at})
    answer = client.post(f"/metric/{code}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def is_problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("/problems/")
    assert isinstance(body["detail"], list if status == 422 else str)


# --- Credentials


def test_token_in_header_query_and_cookie(server):
    """All three are named ``api_key_name``; without a valid one it is 401."""
    nobody = server.client(None)
    assert nobody.get("/metric/", headers={"x-auth-token": ONE}).status_code == 200
    assert nobody.get("/metric/", params={"x-auth-token": ONE}).status_code == 200
    assert nobody.get("/metric/", headers={"cookie": f"x-auth-token={ONE}"}).status_code == 200
    is_problem(nobody.get("/metric/"), 401)
    is_problem(nobody.get("/metric/", headers={"x-auth-token": "wrong"}), 401)
    is_problem(nobody.get("/metric/", headers={"x-auth-token": ""}), 401)


def test_several_tokens_may_name_one_org(server, client, code):
    """``123456`` and ``111111`` are both org_01; ``567890`` is another."""
    assert server.client("111111").get(f"/metric/{code}").status_code == 200
    is_problem(server.client(TWO).get(f"/metric/{code}"), 404)


def test_docs_with_the_token_in_the_address(server, client, code):
    """200 with page and cookie, no redirect; then the docs' calls work through the cookie."""
    nobody = server.client(None)
    host = {"host": f"localtest.me:{server.port}"}
    page = nobody.get("/docs", params={"x-auth-token": ONE}, headers=host | {"accept": "text/html"})
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    cookie = page.headers["set-cookie"]
    assert "domain=localtest.me" in cookie.lower()
    assert "httponly" in cookie.lower()
    assert ONE not in cookie
    through = host | {"cookie": cookie.partition(";")[0], "sec-fetch-site": "same-origin"}
    nobody.cookies.clear()
    assert nobody.get("/openapi.json", headers=through).status_code == 200
    assert nobody.post(f"/metric/{code}", json={"reading": 1}, headers=through).status_code == 200
    del through["sec-fetch-site"]
    is_problem(nobody.post(f"/metric/{code}", json={"reading": 1}, headers=through), 403)


# --- Calls


def test_get_root(server):
    """No token; says that the service is up and where the docs are."""
    answer = server.client(None).get("/")
    assert answer.status_code == 200
    assert "/docs" in answer.text


@pytest.mark.parametrize("place", ["/docs", "/redocs"])
def test_get_docs(server, client, place):
    """Swagger UI and ReDoc need a token, and nothing from another host."""
    is_problem(server.client(None).get(place), 401)
    page = client.get(place)
    assert page.status_code == 200
    for kind in ('src="http', "src='http", 'href="http', 'src="//', 'href="//'):
        assert kind not in page.text


def test_get_openapi(server, client):
    """The document needs a token and describes every call of the table."""
    is_problem(server.client(None).get("/openapi.json"), 401)
    paths = client.get("/openapi.json").json()["paths"]
    assert {"get", "post"} <= set(paths["/metric/"])
    assert {"get", "put", "post", "delete"} <= set(paths["/metric/{code}"])
    assert "post" in paths["/metric/{code}/activate"]
    assert "post" in paths["/metric/{code}/deactivate"]


def test_get_logout(server):
    """No token; removes the cookie and goes to the root."""
    answer = server.client(None).get("/logout")
    assert answer.is_redirect
    assert answer.headers["location"] == "/"
    assert "x-auth-token=" in answer.headers["set-cookie"]
    assert "max-age=0" in answer.headers["set-cookie"].lower()


def test_get_metrics(client, code):
    """Metrics in the order of ids, without ``meters``; ``limit``; ``/metric`` is the same place."""
    make(client, f"{code}-b")
    listed = client.get("/metric/").json()
    assert client.get("/metric").json() == listed
    assert [metric["id"] for metric in listed] == sorted(metric["id"] for metric in listed)
    assert {code, f"{code}-b"} <= {metric["code"] for metric in listed}
    assert all("meters" not in metric for metric in listed)
    assert client.get("/metric/", params={"limit": 1}).json() == listed[:1]
    is_problem(client.get("/metric/", params={"limit": 0}), 422)
    is_problem(client.get("/metric/", params={"limit": "many"}), 422)


def test_post_metric(client):
    """200 with the contract's fields and defaults; 409 where the code is registered."""
    metric = make(client, "posted")
    assert set(METRIC) <= set(metric)
    assert [metric[name] for name in BASE] == ["posted", "posted", -9999999, 9999999, None]
    assert (metric["org"], metric["active"]) == ("org_01", True)
    assert metric["current_reading"] is None
    assert metric["last_reading_at"] is None
    is_problem(client.post("/metric/", json={"code": "posted", "name": "x"}), 409)
    is_problem(client.post("/metric", json={"code": "posted", "name": "x"}), 409)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": "bad"},
        {"name": "bad"},
        {"code": "", "name": "bad"},
        {"code": ".", "name": "bad"},
        {"code": "..", "name": "bad"},
        {"code": "a\nb", "name": "bad"},
        {"code": "x" * 201, "name": "bad"},
        {"code": None, "name": "bad"},
        {"code": "bad", "name": "bad", "min_reading": 2, "max_reading": 1},
        {"code": "bad", "name": "bad", "min_reading": None},
        {"code": "bad", "name": "bad", "max_reading": True},
        {"code": "bad", "name": "bad", "truncate_reading_to": "7_minute"},
        {"code": "bad", "name": "bad", "truncate_reading_to": "fortnight"},
        {"code": "bad", "name": "bad", "timezone": "Mars/Olympus"},
        [],
        "text",
        1,
    ],
)
def test_post_metric_refuses(client, body):
    """What can't be kept is a 422 when the metric is made, with FastAPI's list in ``detail``."""
    answer = client.post("/metric/", json=body)
    is_problem(answer, 422)
    assert all({"loc", "msg", "type"} <= set(each) for each in answer.json()["detail"])


def test_get_metric(client, code):
    """200 with ``meters``, newest first; 404."""
    for minute in (2, 0, 1):
        push(client, code, minute, f"2026-01-31T00:0{minute}:00Z")
    metric = client.get(f"/metric/{code}").json()
    assert [meter["reading"] for meter in metric["meters"]] == [2, 1, 0]
    assert {"reading", "reading_at", "metric_id", "recorded_at"} <= set(metric["meters"][0])
    assert metric["meters"][0]["metric_id"] == metric["id"]
    newest = client.get(f"/metric/{code}", params={"limit": 1}).json()["meters"]
    assert newest == metric["meters"][:1]
    is_problem(client.get("/metric/nowhere"), 404)


def test_put_metric(client, code):
    """Name, limits, truncation change; the rest stays; 404; 422 where the body's code is another."""
    before = client.get(f"/metric/{code}").json()
    body = {"code": code, "name": "new", "min_reading": -1.5, "max_reading": 1, "truncate_reading_to": "hour"}
    after = client.put(f"/metric/{code}", json=body).json()
    assert [after[name] for name in BASE] == [code, "new", -1.5, 1, "hour"]
    assert (after["id"], after["active"]) == (before["id"], True)
    is_problem(client.put("/metric/nowhere", json={"code": "nowhere", "name": "x"}), 404)
    is_problem(client.put(f"/metric/{code}", json={"code": f"{code}x", "name": "x"}), 422)
    is_problem(client.put(f"/metric/{code}", json=body | {"truncate_reading_to": "5_year"}), 422)


def test_put_leaves_what_the_original_did_not_know(client):
    """Unit, description, timezone and policy stay where the body doesn't name them."""
    kept = {"unit": "kWh", "description": "d", "timezone": "Europe/Berlin", "on_conflict": "max"}
    make(client, "kept", **kept)
    after = client.put("/metric/kept", json={"code": "kept", "name": "new"}).json()
    assert {name: after[name] for name in kept} == kept
    assert client.put("/metric/kept", json={"code": "kept", "name": "n", "unit": None}).json()["unit"] is None


def test_delete_metric(client, code):
    """409 while it is active; then 200 the deleted metric, and its readings are gone with it; 404."""
    push(client, code, 5, AT)
    is_problem(client.delete(f"/metric/{code}"), 409)
    client.post(f"/metric/{code}/deactivate")
    deleted = client.delete(f"/metric/{code}")
    assert deleted.status_code == 200
    assert deleted.json()["code"] == code
    for answer in (client.get(f"/metric/{code}"), client.delete(f"/metric/{code}")):
        is_problem(answer, 404)
    is_problem(client.post(f"/metric/{code}", json={"reading": 1}), 404)
    again = make(client, code)
    assert again["id"] != deleted.json()["id"]
    assert client.get(f"/metric/{code}").json()["meters"] == []
    assert again["current_reading"] is None


def test_activate_and_deactivate(client, code):
    """200 Metric; 404; 409 where it is so already."""
    is_problem(client.post(f"/metric/{code}/activate"), 409)
    assert client.post(f"/metric/{code}/deactivate").json()["active"] is False
    is_problem(client.post(f"/metric/{code}/deactivate"), 409)
    assert client.post(f"/metric/{code}/activate").json()["active"] is True
    for action in ("activate", "deactivate"):
        is_problem(client.post(f"/metric/nowhere/{action}"), 404)


def test_post_reading(client, code):
    """200 Meter; 404, no metric is made; 409 where the metric is not active; 422."""
    meter = push(client, code, 42.5, AT)
    assert meter["reading"] == 42.5
    assert datetime.fromisoformat(meter["reading_at"]) == datetime.fromisoformat(AT)
    assert meter["metric_id"] == client.get(f"/metric/{code}").json()["id"]
    assert meter["recorded_at"].endswith("Z")
    is_problem(client.post("/metric/nowhere", json={"reading": 1}), 404)
    is_problem(client.get("/metric/nowhere"), 404)
    is_problem(client.post(f"/metric/{code}", json={}), 422)
    client.post(f"/metric/{code}/deactivate")
    is_problem(client.post(f"/metric/{code}", json={"reading": 1}), 409)


# --- What it means


def test_only_active_metrics_take_readings(client, code):
    """Neither one by one nor many at once; and again once it is active."""
    client.post(f"/metric/{code}/deactivate")
    is_problem(client.post(f"/metric/{code}", json={"reading": 1}), 409)
    refused = client.post("/readings", json=[{"metric": code, "reading": 1}])
    assert refused.status_code == 422
    assert refused.json()["accepted"] == 0
    client.post(f"/metric/{code}/activate")
    push(client, code, 1)


def test_recording_again_at_the_same_time_replaces(client, code):
    """A reading is identified by its metric and ``reading_at``; the same time in another zone is the same."""
    push(client, code, 1, "2026-01-31T12:00:00Z")
    push(client, code, 2, "2026-01-31T13:00:00+01:00")
    meters = client.get(f"/metric/{code}").json()["meters"]
    assert [meter["reading"] for meter in meters] == [2]


@pytest.mark.parametrize(
    ("truncation", "at", "cut"),
    [
        ("second", AT, "2026-01-31T12:34:56Z"),
        ("minute", AT, "2026-01-31T12:34:00Z"),
        ("hour", AT, "2026-01-31T12:00:00Z"),
        ("day", AT, "2026-01-31T00:00:00Z"),
        ("week", AT, "2026-01-26T00:00:00Z"),
        ("month", AT, "2026-01-01T00:00:00Z"),
        ("quarter", "2026-06-30T12:00:00Z", "2026-04-01T00:00:00Z"),
        ("half_year", "2026-12-31T12:00:00Z", "2026-07-01T00:00:00Z"),
        ("year", AT, "2026-01-01T00:00:00Z"),
        ("15_second", AT, "2026-01-31T12:34:45Z"),
        ("5_minute", AT, "2026-01-31T12:30:00Z"),
        ("15_minute", AT, "2026-01-31T12:30:00Z"),
        ("6_hour", AT, "2026-01-31T12:00:00Z"),
    ],
)
def test_truncation(client, truncation, at, cut):
    """``reading_at`` is cut down before the comparison: one reading a minute, an hour, a week."""
    code = f"cut-{truncation}"
    make(client, code, truncate_reading_to=truncation)
    assert datetime.fromisoformat(push(client, code, 1, at)["reading_at"]) == datetime.fromisoformat(cut)
    push(client, code, 2, cut)
    assert [meter["reading"] for meter in client.get(f"/metric/{code}").json()["meters"]] == [2]


def test_truncation_in_a_time_zone(client):
    """A day begins at the zone's midnight, on the day the clocks change, too."""
    make(client, "cut-zone", truncate_reading_to="day", timezone="Europe/Berlin")
    assert push(client, "cut-zone", 1, "2026-03-29T12:00:00Z")["reading_at"].startswith("2026-03-28T23:00:00")
    assert push(client, "cut-zone", 1, "2026-03-29T22:30:00Z")["reading_at"].startswith("2026-03-29T22:00:00")


def test_new_truncation_holds_afterwards(client, code):
    """What was recorded before stays as it was."""
    push(client, code, 1, "2026-01-31T12:34:56Z")
    client.put(f"/metric/{code}", json={"code": code, "name": code, "truncate_reading_to": "hour"})
    push(client, code, 2, "2026-01-31T12:40:00Z")
    times = [meter["reading_at"] for meter in client.get(f"/metric/{code}").json()["meters"]]
    assert [time[:19] for time in times] == ["2026-01-31T12:34:56", "2026-01-31T12:00:00"]


def test_current_and_last_whatever_the_order_of_arrival(client, code):
    """Current has the latest ``reading_at``, last is the one before it."""
    for day, reading in ((3, 30), (1, 10), (5, 50), (4, 40), (2, 20)):
        push(client, code, reading, f"2026-01-0{day}T00:00:00Z")
    metric = client.get(f"/metric/{code}").json()
    assert (metric["current_reading"], metric["last_reading"]) == (50, 40)
    assert metric["current_reading_at"].startswith("2026-01-05")
    assert metric["last_reading_at"].startswith("2026-01-04")
    push(client, code, 51, "2026-01-05T00:00:00Z")
    metric = client.get(f"/metric/{code}").json()
    assert (metric["current_reading"], metric["last_reading"]) == (51, 40)


def test_readings_outside_the_limits_are_recorded(client):
    """Limits refuse nothing."""
    make(client, "limited", min_reading=0, max_reading=10)
    assert push(client, "limited", 11)["reading"] == 11
    assert push(client, "limited", -1)["reading"] == -1
    assert len(client.get("/metric/limited").json()["meters"]) == 2


def test_whole_numbers_are_written_as_integers(client, code):
    """As the original, which knew integers only, wrote them; float64 otherwise."""
    sent = client.post(f"/metric/{code}", content=b'{"reading": 3.0, "reading_at": "2026-01-31T00:00:00Z"}')
    assert b'"reading":3,' in sent.content
    assert b'"current_reading":3,' in client.get(f"/metric/{code}").content
    for number in (0.1, 1e-300, -12345.678, 1.7976931348623157e308):
        assert push(client, code, number)["reading"] == number


@pytest.mark.parametrize("reading", ["NaN", "Infinity", "-Infinity", "1e999", "true", "null", '"x"', "{}"])
def test_refused_numbers(client, code, reading):
    """NaN, infinite and overflowing numbers, true and null: 422, whatever the place."""
    is_problem(client.post(f"/metric/{code}", content=f'{{"reading": {reading}}}'), 422)
    many = client.post("/readings", content=f'[{{"metric": "{code}", "reading": {reading}}}]')
    assert many.status_code == 422
    body = f'{{"code": "limits-{code}", "name": "n", "min_reading": {reading}}}'
    is_problem(client.post("/metric/", content=body), 422)
    assert client.get(f"/metric/{code}").json()["meters"] == []


def test_a_numeric_string_is_taken(client, code):
    """As a number."""
    assert push(client, code, "12.5")["reading"] == 12.5


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "x/y", None])
def test_json_under_any_content_type(client, code, kind):
    """``curl -d`` sends a form's."""
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post(f"/metric/{code}", content=b'{"reading": 7}', headers=headers)
    assert answer.json()["reading"] == 7
    answer = client.put(
        f"/metric/{code}", content=f'{{"code":"{code}","name":"n"}}'.encode(), headers=headers
    )
    assert answer.status_code == 200


def test_without_a_time_it_is_now_and_never_the_same(client, code):
    """No two readings of a series get the same time from the server."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    times = [push(client, code, n)["reading_at"] for n in range(20)]
    assert len(set(times)) == 20
    assert times == sorted(times)
    assert before < datetime.fromisoformat(times[0]) < datetime.now(UTC) + timedelta(seconds=1)
    rows = [{"metric": code, "reading": n} for n in range(50)]
    assert client.post("/readings", json=rows).json()["accepted"] == 50
    assert len(client.get(f"/metric/{code}").json()["meters"]) == 70


def test_times_are_utc(client, code):
    """Without an offset it is UTC; answers are UTC with Z, to the microsecond; nanoseconds are floored."""
    assert push(client, code, 1, "2026-01-31T12:00:00")["reading_at"].startswith("2026-01-31T12:00:00")
    shown = push(client, code, 1, "2026-01-31T12:00:00.123456789+02:00")["reading_at"]
    assert shown == "2026-01-31T10:00:00.123456Z"


def test_answers_what_was_sent(client):
    """Not what a conflict policy made of it."""
    make(client, "summed", on_conflict="sum")
    push(client, "summed", 1, AT)
    assert push(client, "summed", 2, AT)["reading"] == 2
    assert client.get("/metric/summed").json()["current_reading"] == 3


def test_codes_that_differ_in_case_are_two(client):
    """And 200 characters of any Unicode are a code."""
    ids = {make(client, code)["id"] for code in ("case", "Case", "ü", "ü" * 200, "日本", "👋🏽")}
    assert len(ids) == 6
