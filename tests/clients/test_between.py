"""The proxy itself, with curl as the client: what it guarantees, other clients' tests rely on."""

from __future__ import annotations

import json

import pytest

from clients.between import BUSY, CUT, KILLED, LATE, LOST, PASS, Between
from clients.curl import RETRY, curl
from clients.found import codes, expect, readings, until
from e2e.server import ONE

AT, AT_US = "2026-01-31T00:00:00Z", 1_769_817_600_000_000


def push(url, code, *arguments, body=None, token=ONE):
    body = body or [{"metric": code, "reading": 42, "reading_at": AT, "labels": {"host": "a"}}]
    options = ("--data-binary", "@-", "-H", f"x-auth-token: {token}")
    return curl(f"{url}/readings", *options, *arguments, body=json.dumps(body))


@pytest.fixture
def code(client, request):
    made = request.node.name
    assert client.post("/metric/", json={"code": made, "name": made}).status_code == 200
    return made


def test_matrix(between, client, script, code):
    """Whatever goes wrong, curl with retries gets its reading in once, and each step happened."""
    proxy = between(script, "/readings")
    status, lines = push(proxy.url, code, *RETRY)
    assert (status, lines[-1].split()[0]) == (0, "200")
    proxy.wait()
    expect(client, code, {((("host", "a"),), AT_US): 42})
    assert [seen.step for seen in proxy.seen] == [*script, PASS]
    assert proxy.seen[-1].status == 200


@pytest.mark.parametrize(
    ("step", "status", "seen"),
    [(BUSY, 0, None), (LOST, 52, 200), (CUT, 52, None), (KILLED, 52, None), (LATE, 52, 200)],
)
def test_steps(between, client, code, step, status, seen):
    """Without retries: 503, or an empty answer; what the server answered is known, and it is up again."""
    proxy = between((step,), "/readings")
    assert push(proxy.url, code)[0] == status
    proxy.wait()
    assert [each.status for each in proxy.steps(step)] == [seen]
    assert client.get("/health").status_code == 200
    if step in {BUSY, CUT}:
        assert readings(client, code) == {}
    if step in {LOST, LATE}:
        assert len(readings(client, code)) == 1


def test_only_the_named_writes(between, client, code):
    """Reads, and writes to other paths, go through."""
    proxy = between((BUSY,), "/elsewhere")
    assert push(proxy.url, code)[1] == ["200 1"]
    assert curl(f"{proxy.url}/elsewhere", "-I")[1] == ["401 1"]
    assert proxy.steps(BUSY) == []
    assert curl(f"{proxy.url}/elsewhere", "-d", "1")[1] == ["503 1"]
    proxy.wait()


@pytest.mark.parametrize("script", [(), (BUSY,)], ids=["pass", "busy"])
def test_connection_kept(between, code, script):
    """Requests one after the other use one connection, also behind a 503."""
    proxy = between(script, "/readings")
    again = ("-o", "/dev/null", f"{proxy.url}/readings") * 2
    assert push(proxy.url, code, *again)[1] == ["503 1" if script else "200 1", "200 0", "200 0"]


def test_http_1_0(between, client, code):
    """The answer comes, and the connection ends with it."""
    proxy = between()
    assert push(proxy.url, code, "--http1.0")[1] == ["200 1"]
    assert proxy.seen[0].version == "HTTP/1.0"
    expect(client, code, {((("host", "a"),), AT_US): 42})


def test_chunked(between, client, code):
    """A chunked body goes through as it is; ``seen`` has it without the marks."""
    proxy = between()
    body = [{"metric": code, "reading": n, "reading_at": f"2026-01-31T00:00:00.{n:06}Z"} for n in range(3000)]
    assert push(proxy.url, code, "-H", "transfer-encoding: chunked", body=body)[1] == ["200 1"]
    assert json.loads(proxy.seen[0].body) == body
    expect(client, code, {((), AT_US + n): n for n in range(3000)})


def test_expect(between, client, code):
    """The server itself says 100, or refuses; a 503 comes before the body."""
    proxy = between((BUSY,), "/readings")
    expects = ("-H", "expect: 100-continue", "--expect100-timeout", "20")
    assert push(proxy.url, code, *expects)[1] == ["503 1"]
    assert proxy.seen[0].body == b""
    assert push(proxy.url, code, *expects)[1] == ["200 1"]
    assert push(proxy.url, code, *expects, token="wrong")[1] == ["401 1"]
    expect(client, code, {((("host", "a"),), AT_US): 42})


def test_nothing_to_lose(server, code):
    """An answer that is no success can't be lost: the test says something else than it means."""
    proxy = Between(server, (LOST,), "/readings")
    with pytest.raises(AssertionError, match="no success"), proxy:
        push(proxy.url, code, body=["x"])


def test_what_did_not_happen(between):
    """A script that isn't done is told."""
    with pytest.raises(AssertionError, match="BUSY"):
        between((BUSY,)).wait(0)


def test_read_back(client, code):
    """All metrics, all readings with their labels; of an unknown metric none; and asking ends."""
    assert code in codes(client)
    assert readings(client, "nowhere") == {}
    client.post(f"/metric/{code}", json={"reading": 1.5, "reading_at": "1970-01-01T00:00:00.000001Z"})
    assert readings(client, code) == {((), 1): 1.5}
    with pytest.raises(AssertionError, match="never"):
        until(lambda: False, 0, lambda: "never")
