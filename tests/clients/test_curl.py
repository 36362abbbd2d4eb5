"""curl as people put it into scripts: ``-d``, ``--retry 8 --retry-all-errors``, ``--fail``."""

from __future__ import annotations

import json

import pytest

from clients.between import BUSY
from clients.curl import RETRY, curl
from clients.found import expect, readings
from e2e.server import ONE

AT, AT_US = "2026-01-31T12:00:00Z", 1_769_860_800_000_000
LABELS = (("host", "a"),)
WAYS = ("readings", "csv", "plain")


def push(way, url, code, *arguments, token=ONE):
    """The reading 42 with a label, and how curl fared: 0, or why it gave up."""
    rows = [{"metric": code, "reading": 42, "reading_at": AT, "labels": dict(LABELS)}]
    ways = {
        "readings": ("/readings", json.dumps(rows)),
        "csv": ("/readings", f"metric,reading,reading_at,labels.host\n{code},42,{AT},a\n"),
        "plain": (f"/metric/{code}/readings?labels=host=a", f"42 {AT}"),
    }
    path, body = ways[way]
    typed = ("-H", "content-type: text/csv") if way == "csv" else ()
    sent = ("--fail", "-H", f"x-auth-token: {token}", "--data-binary", "@-", *typed)
    return curl(url + path, *sent, *arguments, body=body)[0]


@pytest.fixture
def code(client, request):
    made = request.node.name.translate(str.maketrans("[]", "__"))
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made


@pytest.mark.parametrize("way", WAYS)
def test_matrix(between, client, script, code, way):
    """Once, whatever goes wrong."""
    proxy = between(script, "/readings", "/metric/")
    assert push(way, proxy.url, code, *RETRY) == 0
    proxy.wait()
    expect(client, code, {(LABELS, AT_US): 42})
    assert len(proxy.seen) == len(script) + 1


@pytest.mark.parametrize("way", WAYS)
def test_wrong_token(between, client, code, way):
    """``--fail`` says so (22), and retries that aren't for every error don't begin."""
    proxy = between()
    assert push(way, proxy.url, code, "--retry", "3", token="wrong") == 22
    assert [seen.status for seen in proxy.seen] == [401]
    assert readings(client, code) == {}


@pytest.mark.parametrize("way", WAYS)
def test_retry_alone(between, client, code, way):
    """``--retry`` waits as long as ``Retry-After`` says, and takes a 503 for what it is."""
    proxy = between((BUSY,), "/readings", "/metric/")
    assert push(way, proxy.url, code, "--retry", "3") == 0
    expect(client, code, {(LABELS, AT_US): 42})


def test_as_short_as_it_gets(client, server):
    """``curl -d 42 'URL/metric/M1/readings?x-auth-token=T'``: a reading of now, of a metric that is made for it."""
    assert curl(f"{server.url}/metric/new/readings?x-auth-token={ONE}", "-d", "42") == (0, ["200 1"])
    assert list(readings(client, "new").values()) == [42]


def test_a_key_makes_a_sum_safe(between, client, script):
    """Under ``sum`` a reading that is sent again counts again, unless it comes with an Idempotency-Key."""
    code = "summed"
    client.post("/metric/", json={"code": code, "name": code, "on_conflict": "sum"})
    proxy = between(script, "/readings")
    before = sum(readings(client, code).values())
    assert push("readings", proxy.url, code, *RETRY, "-H", f"Idempotency-Key: sum at {before}") == 0
    proxy.wait()
    assert sum(readings(client, code).values()) == before + 42
    assert len(proxy.seen) == len(script) + 1
