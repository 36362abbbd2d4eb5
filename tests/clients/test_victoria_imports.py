"""VictoriaMetrics' imports by curl, with times of their own: each reading once, whatever happens."""

from __future__ import annotations

import json

import pytest

from clients.curl import RETRY, curl
from clients.found import expect, readings
from e2e.server import ONE

AT_MS = 1_769_860_800_000
LABELS = (("host", "a"),)
WAYS = ("import", "prometheus", "job", "csv")


def push(way, url, code, *arguments, token=ONE):
    """The reading 42 with a label, and how curl fared: 0, or why it gave up."""
    line = {"metric": {"__name__": code, "host": "a"}, "values": [42, None], "timestamps": [AT_MS, AT_MS + 1]}
    path, body = {
        "import": ("", json.dumps(line)),
        "prometheus": ("/prometheus?extra_label=host=a", f'{code}{{host="b"}} 42 {AT_MS}\n'),
        "job": ("/prometheus/metrics/job/j/host/a?extra_label=job=", f"{code} 42 {AT_MS}\n"),
        "csv": (f"/csv?format=2:metric:{code},1:label:host,3:time:unix_ms", f"a,42,{AT_MS}\n"),
    }[way]
    sent = ("--fail", "-H", f"x-auth-token: {token}", "--data-binary", "@-")
    return curl(f"{url}/api/v1/import{path}", *sent, *arguments, body=body)[0]


@pytest.fixture
def code(client, request):
    made = request.node.name.translate(str.maketrans("[]-", "___"))
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made


@pytest.mark.parametrize("way", ["import", "prometheus"])
def test_matrix(between, client, script, code, way):
    """Once, whatever goes wrong."""
    proxy = between(script, "/api/v1/import")
    assert push(way, proxy.url, code, *RETRY) == 0
    proxy.wait()
    expect(client, code, {(LABELS, AT_MS * 1000): 42})
    assert len(proxy.seen) == len(script) + 1
    assert proxy.seen[-1].status == 204


@pytest.mark.parametrize("way", ["job", "csv"])
def test_other_imports(between, client, code, way):
    """What differs from those in the matrix is how a body is read."""
    proxy = between()
    assert push(way, proxy.url, code) == 0
    expect(client, code, {(LABELS, AT_MS * 1000): 42})
    assert [seen.status for seen in proxy.seen] == [204]


@pytest.mark.parametrize("way", WAYS)
def test_wrong_token(between, client, code, way):
    """``--fail`` says so (22), and nothing is written."""
    proxy = between()
    assert push(way, proxy.url, code, "--retry", "3", token="wrong") == 22
    assert [seen.status for seen in proxy.seen] == [401]
    assert readings(client, code) == {}
