"""VictoriaMetrics' vmagent, which passes on by remote write what it is pushed."""

from __future__ import annotations

import contextlib

import httpx
import pytest

from clients.daemon import running
from clients.found import expect, readings, until
from e2e.server import ONE, free_port
from programs import program

CODE = "agent_load"
AT_MS = 1_769_817_600_000
LABELS = (("host", "h1"), ("zone", "Ä"))


class Agent:
    """It sends every fifth of a second what it has."""

    def __init__(self, path, url, token=ONE):
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = path / "vmagent.log"
        self.command = [
            program("vmagent", "victoria-metrics"),
            f"-remoteWrite.url={url}/api/v1/write",
            f"-remoteWrite.bearerToken={token}",
            f"-remoteWrite.tmpDataPath={path / 'queue'}",
            "-remoteWrite.flushInterval=200ms",
            "-remoteWrite.queues=1",
            f"-httpListenAddr=127.0.0.1:{port}",
        ]

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(running(self.command, self.log, self.url + "/health"))
            self.closing = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.closing.close()

    def push(self, *lines):
        answer = httpx.post(f"{self.url}/api/v1/import/prometheus", content="\n".join(lines), trust_env=False)
        assert answer.status_code == 204, answer.text

    def push_values(self, first, *values):
        self.push(
            *(f'{CODE}{{zone="Ä",host="h1"}} {value} {AT_MS + first + n}' for n, value in enumerate(values))
        )


@pytest.fixture
def agent(client, tmp_path):
    """Starts one that writes to this address; its metric is empty."""
    client.post("/metric/", json={"code": CODE, "name": CODE})
    client.delete(f"/metric/{CODE}/readings", params={"all": "true"})
    with contextlib.ExitStack() as stack:
        yield lambda url, token=ONE: stack.enter_context(Agent(tmp_path, url, token))


def wanted(*values):
    return {(LABELS, (AT_MS + n) * 1000): value for n, value in enumerate(values)}


def test_matrix(between, client, script, agent):
    """Each sample is there once, whatever went wrong."""
    proxy = between(script, "/api/v1/write")
    one = agent(proxy.url)
    for n in range(max(len(script), 1)):
        one.push_values(2 * n, 2 * n, 2 * n + 0.5)
        until(lambda n=n: len(proxy.seen) > n, told=one.log.read_text)
    proxy.wait()
    expect(client, CODE, wanted(*(n if n % 2 == 0 else n - 0.5 for n in range(2 * max(len(script), 1)))))
    assert {seen.headers["content-encoding"] for seen in proxy.seen} == {"snappy"}


def test_good_samples_beside_a_bad_one(between, client, agent):
    """The block is answered 400, which vmagent doesn't repeat, and the good samples of it are there."""
    proxy = between()
    one = agent(proxy.url)
    one.push(
        f'{CODE}{{zone="Ä",host="h1"}} 1 {AT_MS}',
        f'{CODE}{{zone="{"x" * 1001}"}} 5 {AT_MS}',
        f'{CODE}{{zone="Ä",host="h1"}} 2 {AT_MS + 1}',
    )
    expect(client, CODE, wanted(1, 2))
    one.push_values(2, 3)
    expect(client, CODE, wanted(1, 2, 3))
    assert [seen.status for seen in proxy.seen] == [400, 204]
    assert "label-invalid" in one.log.read_text()


def test_a_wrong_token(between, client, agent):
    """Nothing is written; vmagent keeps what it has, and tries again."""
    proxy = between()
    one = agent(proxy.url, "wrong")
    one.push_values(0, 1)
    until(lambda: len(proxy.seen) > 1)
    assert {seen.status for seen in proxy.seen} <= {401, None}
    assert readings(client, CODE) == {}
