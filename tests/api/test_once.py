"""``Idempotency-Key``: sent again, a request counts once and is answered as the first was."""

from __future__ import annotations

import asyncio
import json
import random
from string import ascii_letters, digits

import pytest

SUMMED = {"code": "S", "name": "S", "on_conflict": "sum"}
ROWS = [{"metric": "S", "reading": 2, "reading_at": "2026-01-01T00:00:00Z"}]
ACT = {"metric": "S", "reading": "x"}


@pytest.fixture
def summed(client):
    """A metric in which a reading that is sent twice shows."""
    assert client.post("/metric/", json=SUMMED).status_code == 200


def push(client, key="k", rows=ROWS, path="/readings", **options):
    headers = {"idempotency-key": key} if key else {}
    return client.post(path, json=rows, headers=headers, **options)


def total(client):
    return [row["reading"] for row in client.get("/metric/S/readings").json()]


def exported(bad):
    """An OTLP export of a good data point and so many that lie in the future."""
    at_ns = [1_767_225_600, *range(10**10 - bad, 10**10)]
    points = [{"timeUnixNano": str(at * 10**9), "asInt": "2"} for at in at_ns]
    metric = {"name": "S", "gauge": {"dataPoints": points}}
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()


def test_the_first_receipt_again(client, summed):
    """The same bytes, and nothing is written; without a key it is another push."""
    first, second = push(client), push(client)
    assert first.json()["accepted"] == 1
    assert (second.status_code, second.content) == (200, first.content)
    assert total(client) == [2]
    push(client, key=None)
    assert total(client) == [4]


def test_a_receipt_with_all_it_says(client, summed):
    """Counts and what was rejected come back, too."""
    params = {"receipt": "full", "partial": "accept"}
    push(client, None)
    first, second = (push(client, rows=[*ROWS, ACT], params=params) for _ in range(2))
    assert len(first.json()["rejected"]) == 1
    assert first.json()["replaced"] == 1
    assert second.content == first.content
    assert total(client) == [4]


@pytest.mark.parametrize(
    ("path", "line"),
    [("/readings", b'{"metric": "S", "reading": "x"}'), ("/write", b"S value=x"), ("/v1/metrics", None)],
)
def test_how_many_were_rejected(client, summed, path, line):
    """Counts come back whole, of more than the receipt lists, too."""
    body = b'{"metric": "S", "reading": 2}' if path == "/readings" else b"S value=2"
    body = b"\n".join([body, *[line] * 1500]) if line else exported(1500)
    types = {"/readings": "application/x-ndjson", "/v1/metrics": "application/json"}
    headers = {"idempotency-key": "k", "content-type": types.get(path, "text/plain")}
    params = {"partial": "accept"} if path == "/readings" else {}
    first, second = (client.post(path, content=body, headers=headers, params=params) for _ in range(2))
    assert b"500" in first.content
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert total(client) == [2]


@pytest.mark.parametrize("full", [{}, {"receipt": "full"}])
def test_more_than_is_kept(client, summed, full):
    """The first answer lists no more of the rejected than the second can, and both count the rest."""
    noise = random.Random(1)
    acts = [ACT | {"reading": "".join(noise.choices(ascii_letters + digits, k=60))} for _ in range(1100)]
    params = {"partial": "accept"} | full
    first, second = (push(client, rows=[*ROWS, *acts], params=params) for _ in range(2))
    assert second.content == first.content
    told = first.json()
    assert len(told["rejected"]) < 1000
    assert len(told["rejected"]) + told["rejected_more"] == 1100
    assert len(push(client, None, [*ROWS, *acts], params=params).json()["rejected"]) == 1000
    assert total(client) == [4]


def test_a_single_push(client, summed):
    """With the time that the server gave."""
    body = {"reading": 5}
    first, second = (push(client, rows=body, path="/metric/S") for _ in range(2))
    assert first.status_code == 200
    assert second.content == first.content
    labelled = {"reading": 5, "reading_at": "2026-01-01T00:00:00Z", "labels": {"a": "b"}}
    answers = {push(client, "l", labelled, "/metric/S").content for _ in range(3)}
    assert len(answers) == 1
    assert sorted(total(client)) == [5, 5]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/write", b"S value=2 1767225600000000000"), ("/metric/S/readings", b"2 2026-01-01T00:00:00Z")],
)
def test_other_doors(client, summed, path, body):
    """A key holds at each."""
    headers = {"idempotency-key": "k"}
    for _ in range(2):
        assert client.post(path, content=body, headers=headers).status_code in {200, 204}
    assert total(client) == [2]


def test_another_body(client, summed):
    """422, and nothing is written; a protocol's clients are told by 400."""
    push(client)
    other = push(client, rows=[ROWS[0] | {"reading": 3}])
    assert (other.status_code, other.json()["detail"][0]["type"]) == (422, "idempotency-key-reused")
    headers = {"idempotency-key": "w"}
    assert client.post("/write", content=b"S value=2", headers=headers).status_code == 204
    assert client.post("/write", content=b"S value=3", headers=headers).status_code == 400
    assert total(client)[0] == 2


def test_whose_key_it_is(client, summed):
    """That of an org, a path and a query: elsewhere the same key is another."""
    push(client)
    assert push(client, params={"receipt": "full"}).json()["replaced"] == 1
    assert push(client, rows={"reading": 1}, path="/metric/S").status_code == 200
    client.post("/metric/", json=SUMMED, token="token-two")
    assert push(client, token="token-two").json()["accepted"] == 1
    assert client.get("/metric/S", token="token-two").json()["current_reading"] == 2


def test_a_refused_one_leaves_no_key(client, summed):
    """What was mended may come under the same key; so may what is rejected whole."""
    assert push(client, rows=[ACT]).status_code == 422
    assert push(client, rows=b"no json".decode()).status_code == 422
    assert push(client).json()["accepted"] == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "k\x7f"])
def test_keys_that_are_none(client, summed, key):
    """1 to 255 printable characters."""
    answer = client.post("/readings", json=ROWS, headers={"idempotency-key": key})
    assert answer.json()["detail"][0]["type"] == "idempotency-key-invalid"
    assert total(client) == []


def test_at_the_same_time(client, summed):
    """One is committed, and all have its receipt."""

    async def many():
        headers = {"x-auth-token": "token-one", "idempotency-key": "k"}
        asks = [client.http.post("/readings", json=ROWS, headers=headers) for _ in range(20)]
        return await asyncio.gather(*asks)

    answers = client._portal.call(many)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert total(client) == [2]
