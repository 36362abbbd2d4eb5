"""The contract's table, through the whole app."""

from __future__ import annotations

import pytest

M1 = {"code": "M1", "name": "Meter 1"}


@pytest.fixture
def metric(client):
    return client.post("/metric/", json=M1).json()


def test_a_metric_is_made_with_the_contracts_defaults(client):
    """``POST /metric/`` answers the whole metric; numbers that are whole have no fraction."""
    answer = client.post("/metric/", json=M1)
    assert answer.status_code == 200
    assert answer.json() == M1 | {
        "id": 1,
        "org": "org_01",
        "active": True,
        "min_reading": -9999999,
        "max_reading": 9999999,
        "truncate_reading_to": None,
        "unit": None,
        "description": None,
        "timezone": None,
        "on_conflict": "last",
        "notify": "change",
        "hysteresis": 0,
        "for": None,
        "expected_every": None,
        "mute_until": None,
        "current_reading": None,
        "current_reading_at": None,
        "last_reading": None,
        "last_reading_at": None,
    }
    assert '"min_reading":-9999999,' in answer.text
    assert client.post("/metric/", json=M1).status_code == 409


@pytest.mark.parametrize("path", ["/metric", "/metric/"])
def test_both_spellings_of_the_collection(client, metric, path):
    """``/metric`` is ``/metric/``, without a redirect."""
    assert client.get(path).json() == [metric]
    assert client.post(path, content=b'{"code":"M2","name":"two"}').status_code == 200


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"code": ""}, ["body", "code"]),
        ({"code": "a\nb"}, ["body", "code"]),
        ({"code": ".."}, ["body", "code"]),
        ({"code": 5}, ["body", "code"]),
        ({"name": None}, ["body", "name"]),
        ({"min_reading": True}, ["body", "min_reading"]),
        ({"min_reading": None}, ["body", "min_reading"]),
        ({"max_reading": "high"}, ["body", "max_reading"]),
        ({"min_reading": 2, "max_reading": 1}, ["body", "min_reading"]),
        ({"truncate_reading_to": "7_minute"}, ["body", "truncate_reading_to"]),
        ({"timezone": "Mars/Olympus"}, ["body", "timezone"]),
        ({"on_conflict": "best"}, ["body", "on_conflict"]),
        ({"unit": 1}, ["body", "unit"]),
        ({"notify": "never"}, ["body", "notify"]),
        ({"hysteresis": -0.1}, ["body", "hysteresis"]),
        ({"hysteresis": True}, ["body", "hysteresis"]),
        ({"hysteresis": "NaN"}, ["body", "hysteresis"]),
        ({"for": "5 minutes"}, ["body", "for"]),
        ({"for": "-5m"}, ["body", "for"]),
        ({"for": 5}, ["body", "for"]),
        ({"for": "101000w"}, ["body", "for"]),
        ({"expected_every": "0s"}, ["body", "expected_every"]),
        ({"expected_every": ""}, ["body", "expected_every"]),
        ({"mute_until": "tomorrow"}, ["body", "mute_until"]),
        ({"mute_until": 1767225600}, ["body", "mute_until"]),
    ],
)
def test_what_a_metric_may_not_be(client, change, place):
    """422 with the place, and nothing is made."""
    answer = client.post("/metric/", json=M1 | change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"][:2] == place
    assert client.get("/metric/").json() == []


@pytest.mark.parametrize(
    "sent", [b'{"code":"M1","name":"a","min_reading":NaN}', b'{"code":"M1","name":"a","max_reading":1e999}']
)
def test_numbers_that_are_none(client, sent):
    """NaN and what overflows are refused."""
    assert client.post("/metric/", content=sent).status_code == 422


@pytest.mark.parametrize(
    "sent", [b"", b"[", b"\xff", b'{"code":"a","code":"b","name":"c"}', b"[]", b"[" * 99]
)
def test_bodies_that_are_no_metric(client, sent):
    """Each a 4xx with a problem document."""
    answer = client.post("/metric/", content=sent)
    assert answer.status_code in {400, 413, 422}
    assert answer.headers["content-type"] == "application/problem+json"


def test_numeric_strings_and_any_content_type(client):
    """Numbers as strings are taken, and JSON under a form's content type."""
    answer = client.post(
        "/metric/",
        content=b'{"code":"M1","name":"a","min_reading":"-1.5","extra":1}',
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.json()["min_reading"] == -1.5


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("on_conflct", "on_conflict"),
        ("onConflict", "on_conflict"),
        ("time_zone", "timezone"),
        ("min_readin", "min_reading"),
        ("truncate-reading-to", "truncate_reading_to"),
        ("max", "max_reading"),
        ("Min", "min_reading"),
        ("truncate", "truncate_reading_to"),
        ("truncate-reading", "truncate_reading_to"),
        ("expected", "expected_every"),
        ("mute", "mute_until"),
    ],
)
def test_a_slip_in_a_fields_name(client, slip, meant):
    """422 with its place and what was meant, for a metric that is made and one that is changed: no limit is lost."""
    client.post("/metric/", json=M1 | {"max_reading": 5})
    for answer in (
        client.post("/metric/", json={"code": "M2", "name": "n", slip: None}),
        client.put("/metric/M1", json=M1 | {slip: None}),
    ):
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", slip]
        assert f"did you mean {meant}?" in answer.json()["title"]
    assert client.get("/metric/M2").status_code == 404
    assert client.get("/metric/M1").json()["max_reading"] == 5


def test_a_metric_is_sent_back_as_it_was_got(client):
    """All its fields are taken, and so are those that nobody here knows."""
    client.post("/metric/", json=M1)
    client.post("/metric/M1", json={"reading": 1})
    got = client.get("/metric/M1").json()
    assert len(got["meters"]) == 1
    own = {"location": "cellar", "tags": ["a"], "created_by": 7, "form": 1, "maximum": 2}
    back = client.put("/metric/M1", json=got | own)
    assert back.status_code == 200
    assert back.json() == {name: value for name, value in got.items() if name != "meters"}
    assert client.post("/metric/M1", json=got["meters"][0] | own).status_code == 200


def test_put_changes_what_the_original_knew_and_of_the_rest_what_is_named(client):
    """Limits fall back to their defaults; unit and time zone stay until they are named."""
    client.post("/metric/", json=M1 | {"unit": "kWh", "timezone": "Europe/Berlin", "min_reading": 0})
    changed = client.put("/metric/M1", json=M1 | {"name": "other"}).json()
    assert (changed["name"], changed["unit"], changed["timezone"]) == ("other", "kWh", "Europe/Berlin")
    assert changed["min_reading"] == -9999999
    assert client.put("/metric/M1", json=M1 | {"unit": None}).json()["unit"] is None
    differs = client.put("/metric/M1", json=M1 | {"code": "M2"})
    assert differs.status_code == 422
    assert differs.json()["detail"][0]["loc"] == ["body", "code"]
    assert client.put("/metric/M9", json={"code": "M9", "name": "x"}).status_code == 404


EVENTS = {"notify": "every", "hysteresis": 0.5, "for": "5m", "expected_every": "1h"}
RESET = {"notify": "change", "hysteresis": 0, "for": None, "expected_every": None, "mute_until": None}


def test_what_a_metric_says_of_its_events(client):
    """It is kept as it was sent, mutes in UTC; ``PUT`` leaves what isn't named, and null resets each."""
    sent = M1 | EVENTS | {"mute_until": "2026-02-01T01:00:00+01:00"}
    made = client.post("/metric/", json=sent).json()
    kept = EVENTS | {"mute_until": "2026-02-01T00:00:00Z"}
    assert {name: made[name] for name in kept} == kept
    assert client.get("/metric/M1").json() | {"meters": 0} == made | {"meters": 0}
    untouched = client.put("/metric/M1", json=M1).json()
    assert {name: untouched[name] for name in kept} == kept
    for name, value in RESET.items():
        kept[name] = value
        changed = client.put("/metric/M1", json=M1 | {name: None}).json()
        assert {name: changed[name] for name in kept} == kept
    assert client.put("/metric/M1", json=made).json() == made


def test_hysteresis_may_be_a_numeric_string(client):
    """As limits may; the attribute's own name is no field."""
    made = client.post("/metric/", json=M1 | {"hysteresis": "1.5", "outside_for": "5m"}).json()
    assert (made["hysteresis"], made["for"]) == (1.5, None)


def test_the_policy_is_fixed_once_there_was_a_reading(client, metric):
    """409; what stays the same is no change."""
    assert client.put("/metric/M1", json=M1 | {"on_conflict": "max"}).status_code == 200
    client.post("/metric/M1", json={"reading": 1})
    assert client.put("/metric/M1", json=M1 | {"on_conflict": "min"}).status_code == 409
    assert client.put("/metric/M1", json=M1 | {"on_conflict": "max"}).status_code == 200


def test_a_reading_is_taken_and_shown(client, metric):
    """``POST /metric/{code}`` answers a ``Meter``; the metric shows the newest first, with current and last."""
    one = client.post("/metric/M1", json={"reading": 1, "reading_at": "2026-01-01T00:00:00Z"})
    assert one.status_code == 200
    assert (
        one.json().items()
        >= {
            "reading": 1,
            "reading_at": "2026-01-01T00:00:00Z",
            "metric_id": 1,
        }.items()
    )
    client.post("/metric/M1", content=b'{"reading": "2.5", "reading_at": "2026-01-02T01:00:00+01:00"}')
    shown = client.get("/metric/M1").json()
    assert [meter["reading"] for meter in shown["meters"]] == [2.5, 1]
    assert (shown["current_reading"], shown["current_reading_at"]) == (2.5, "2026-01-02T00:00:00Z")
    assert (shown["last_reading"], shown["last_reading_at"]) == (1, "2026-01-01T00:00:00Z")
    assert len(client.get("/metric/M1", params={"limit": 1}).json()["meters"]) == 1
    assert client.get("/metric/M1", params={"limit": 1001}).status_code == 422
    assert "meters" not in client.get("/metric/").json()[0]


def test_an_answer_is_what_was_sent_truncated(client):
    """Not what a policy made of it."""
    client.post("/metric/", json=M1 | {"truncate_reading_to": "hour", "on_conflict": "max"})
    at = "2026-01-01T05:00:00Z"
    client.post("/metric/M1", json={"reading": 9, "reading_at": "2026-01-01T05:10:00Z"})
    answer = client.post("/metric/M1", json={"reading": 3, "reading_at": "2026-01-01T05:59:59Z"}).json()
    assert (answer["reading"], answer["reading_at"]) == (3, at)
    shown = client.get("/metric/M1").json()
    assert [(meter["reading"], meter["reading_at"]) for meter in shown["meters"]] == [(9, at)]


def test_the_life_of_a_metric(client, metric):
    """Active, not active, gone: each step once."""
    assert client.post("/metric/M1/activate").status_code == 409
    assert client.delete("/metric/M1").status_code == 409
    assert client.post("/metric/M1/deactivate").json()["active"] is False
    assert client.post("/metric/M1/deactivate").status_code == 409
    assert client.post("/metric/M1", json={"reading": 1}).status_code == 409
    assert client.post("/metric/M1/activate").json()["active"] is True
    client.post("/metric/M1/deactivate")
    assert client.delete("/metric/M1").json()["code"] == "M1"
    assert client.delete("/metric/M1").status_code == 404
    assert client.post("/metric/M1", json={"reading": 1}).status_code == 404


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("readings", "/metric/readings"),
        ("a/readings", "/metric/a%2Freadings"),
        ("a/b", "/metric/a/b"),
        ("ü %?#", "/metric/%C3%BC%20%25%3F%23"),
        ("activate", "/metric/activate"),
    ],
)
def test_no_code_is_unreachable(client, code, path):
    """Any characters, also the words of actions."""
    client.post("/metric/", json={"code": code, "name": "n"})
    assert client.get(path).json()["code"] == code
    assert client.post(path, json={"reading": 1}).status_code == 200
    assert client.post(path + "/deactivate").json()["code"] == code
    assert len(client.get(path + "/readings").json()) == 1


def test_a_list_goes_on(client):
    """``Link`` leads through all metrics, each once, and never repeats the token of the query."""
    codes = [f"m{n}" for n in range(5)]
    for code in codes:
        client.post("/metric/", json={"code": code, "name": code})
    found, place = [], "/metric/?limit=2&x-auth-token=123456&unknown=1"
    for size in (2, 2, 1):
        answer = client.get(place)
        assert len(answer.json()) == size
        found += [metric["code"] for metric in answer.json()]
        place = answer.links.get("next", {}).get("url")
    assert (found, place) == (codes, None)
    answer = client.get("/metric/?limit=2&x-auth-token=123456&unknown=1")
    assert answer.headers["link"] == '</metric/?after=2&limit=2>; rel="next"'
    assert "link" not in client.get("/metric/?limit=5").headers
    assert client.get("/metric/?after=5").json() == []
    for after in ("-1", "x", str(2**63)):
        assert client.get("/metric/", params={"after": after}).status_code == 422


def test_limits_of_lists(client, metric):
    """1 to 10,000."""
    for limit, status in ((0, 422), (1, 200), (10_000, 200), (10_001, 422)):
        assert client.get("/metric/", params={"limit": limit}).status_code == status


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/metric/", "GET, HEAD, POST"),
        ("/metric/M1", "DELETE, GET, HEAD, POST, PUT"),
        ("/metric/M1/readings", "DELETE, GET, POST"),
        ("/readings", "POST"),
    ],
)
def test_allow_names_all_methods(client, path, allowed):
    """405 says what the place takes, not only what one of its routes does."""
    answer = client("PATCH", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/metric/a/readings/", "If /readings was meant, take the last slash away."),
        ("/metric//readings", "The code before /readings is empty."),
        ("/metric/a/reading", "If /readings was meant, spell it so."),
        ("/metric/a/b/Sumary", "If /summary was meant, spell it so."),
        ("/metric/a/other/", "auto_create)."),
    ],
)
def test_a_slip_in_the_path(client, path, said):
    """Such a code is legal, so the path is taken as it is; where that fails, it is told what may have been meant."""
    for sent, status in ((b"42", 422), (b"42 x", 400), (b'{"reading": 42}', 404)):
        answer = client.post(path, content=sent)
        problem = answer.json()
        assert answer.status_code == status
        assert (said in problem["title"] + str(problem["detail"])) is (status == 404 or "auto" not in said)
    code = path.removeprefix("/metric/")
    client.post("/metric/", json={"code": code, "name": "n"})
    assert client.post(path, content=b'{"reading": 42}').status_code == 200
