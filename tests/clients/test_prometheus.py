"""Debian's Prometheus, which scrapes itself five times a second and writes what it has to us."""

from __future__ import annotations

import contextlib
import math
import uuid

import httpx
import pytest

from clients.between import MATRIX, PASS
from clients.daemon import running
from clients.found import readings, until
from e2e.server import ONE, free_port
from programs import program

COMPARED = (
    "up",
    "go_goroutines",
    "process_cpu_seconds_total",
    "prometheus_http_requests_total",
    "prometheus_engine_query_duration_seconds",  # quantiles of nothing are NaN
    "prometheus_http_request_duration_seconds_bucket",
)
SCRAPE_S = 0.2
CONF = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, external_labels: {{run: "{run}"}}}}
scrape_configs:
  - job_name: itself
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
remote_write:
  - url: {url}/api/v1/write
    authorization: {{credentials: "{token}"}}
    remote_timeout: 20s
    queue_config: {{max_shards: 1, batch_send_deadline: 100ms, max_backoff: 200ms}}
    metadata_config: {{send_interval: 1s}}
"""


class Prometheus:
    """``run`` is a label of all that it writes."""

    def __init__(self, path, url, token=ONE):
        self.run = uuid.uuid4().hex
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.log = path / "prometheus.log"
        conf = path / "prometheus.yml"
        conf.write_text(CONF.format(run=self.run, port=port, url=url, token=token))
        self.command = [
            program("prometheus"),
            f"--config.file={conf}",
            f"--storage.tsdb.path={path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(running(self.command, self.log, self.url + "/-/ready"))
            self.closing = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.closing.close()

    def ask(self, query):
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, trust_env=False)
        return answer.json()["data"]["result"]

    def has(self, code):
        """As :func:`clients.found.readings` gives it."""
        return {
            (tuple(sorted(self._labels(series).items())), round(at * 1_000_000)): _number(value)
            for series in self.ask(f"{code}[1h]")
            for at, value in series["values"]
        }

    def _labels(self, series):
        labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
        return labels | {"run": self.run}

    def scraped(self, count):
        """Waits for so many further scrapes. The time of the last but one, µs: all that is older is there."""
        before = len(self.has("up"))
        until(lambda: len(self.has("up")) >= before + count)
        return sorted(at for _, at in self.has("up"))[-2]


def _number(text):
    number = float(text)
    if math.isfinite(number):
        return number
    return None if math.isnan(number) else text


def expect_all(client, prometheus, last_us):
    """We have what Prometheus says it has, up to this time: none is missing, and nothing else is there."""

    def ours(code):
        found = readings(client, code, labels=f"run={prometheus.run}")
        return {key: value for key, value in found.items() if key[1] <= last_us}

    def theirs(code):
        return {key: value for key, value in prometheus.has(code).items() if key[1] <= last_us}

    until(
        lambda: ours("up") == theirs("up"),
        told=lambda: (ours("up"), theirs("up"), prometheus.log.read_text()),
    )
    for code in COMPARED:
        assert theirs(code)
        until(lambda code=code: ours(code) == theirs(code), told=lambda code=code: (ours(code), theirs(code)))


@pytest.fixture
def prometheus(tmp_path):
    """Starts one that writes all that it scrapes, some 700 series, to this address."""
    with contextlib.ExitStack() as stack:
        yield lambda url, token=ONE: stack.enter_context(Prometheus(tmp_path, url, token))


def test_whatever_goes_wrong(server, between, client, prometheus):
    """Each sample is there once, with all its labels and its value. What Prometheus scraped while there was no server
    comes from its write-ahead log.

    One Prometheus for the whole matrix: it waits five seconds before it scrapes for the first time.
    """
    proxy = between([step for script in MATRIX.values() for step in (*script, PASS)], "/api/v1/write")
    one = prometheus(proxy.url)
    proxy.wait()
    expect_all(client, one, one.scraped(2))
    server.kill()
    one.scraped(10)
    server.restart()
    expect_all(client, one, one.scraped(2))
    assert {seen.status for seen in proxy.seen} <= {204, None}
    assert {seen.headers["content-encoding"] for seen in proxy.seen} == {"snappy"}


def test_a_wrong_token(between, client, prometheus):
    """Nothing is written. Prometheus drops what it sent, and says so."""
    proxy = between()
    one = prometheus(proxy.url, "wrong")
    until(lambda: len(proxy.seen) >= 3)
    until(lambda: one.ask("prometheus_remote_storage_samples_failed_total > 0"))
    assert {seen.status for seen in proxy.seen} <= {401, None}
    assert readings(client, "up", labels=f"run={one.run}") == {}
    assert "401 Unauthorized" in one.log.read_text()
