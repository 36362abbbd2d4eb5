"""collectd's own write_http, told by its unixsock what to send and when."""

from __future__ import annotations

import contextlib
import socket
import subprocess

import pytest

from clients.between import BUSY, CUT, KILLED, PASS
from clients.found import expect, readings, until
from e2e.server import ONE
from programs import program

AT, AT_US = 1769817600, 1_769_817_600_000_000
CODE = "load_load_shortterm"
LABELS = (("dsname", "shortterm"), ("host", "h1"), ("plugin", "load"))
CONF = """
Hostname "h1"
FQDNLookup false
Interval 3600
BaseDir "{path}"
PIDFile "{path}/pid"
TypesDB "/usr/share/collectd/types.db"
LoadPlugin logfile
LoadPlugin unixsock
LoadPlugin write_http
<Plugin logfile>
  File "{path}/log"
</Plugin>
<Plugin unixsock>
  SocketFile "{path}/socket"
</Plugin>
<Plugin write_http>
  <Node "meterite">
    URL "{url}/collectd"
    User "collectd"
    Password "{token}"
    Format "JSON"
    LogHttpError true
  </Node>
</Plugin>
"""


class Collectd:
    """A daemon that reads nothing by itself."""

    def __init__(self, path, url, token, conf=CONF):
        self.path = path
        (path / "conf").write_text(conf.format(path=path, url=url, token=token))

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            output = stack.enter_context((self.path / "output").open("wb"))
            command = [program("collectd", "collectd-core"), "-f", "-C", str(self.path / "conf")]
            process = subprocess.Popen(command, stdout=output, stderr=output)
            stack.callback(self._end, process)
            self.socket = stack.enter_context(socket.socket(socket.AF_UNIX))
            self.socket.settimeout(30)
            until(self._connected, told=(self.path / "output").read_text)
            self.lines = stack.enter_context(self.socket.makefile("rw"))
            self.opened = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.opened.close()

    def _connected(self):
        return self.socket.connect_ex(str(self.path / "socket")) == 0

    @staticmethod
    def _end(process):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def ask(self, command):
        print(command, file=self.lines, flush=True)
        return self.lines.readline()

    def push(self, proxy, *values):
        """Each at its time. Until they were sent: what writes them is a thread of collectd's."""
        for at, value in values:
            assert self.ask(f'PUTVAL "h1/load/load" {at}:{value}:U:U').startswith("0 ")
        times = [f'"time":{at:.3f},'.encode() for at, _ in values]
        until(
            lambda: self.flush() and all(any(time in seen.body for seen in proxy.seen) for time in times),
            told=lambda: (proxy.seen, self.log()),
        )

    def flush(self):
        assert self.ask("FLUSH").startswith("0 ")
        return True

    def log(self):
        return (self.path / "log").read_text()


@pytest.fixture
def code(client):
    """The metric that collectd's plug-in load has readings of, empty."""
    client.post("/metric/", json={"code": CODE, "name": CODE})
    client.delete(f"/metric/{CODE}/readings", params={"all": "true"})
    return CODE


@pytest.fixture
def daemon(tmp_path):
    """Starts one that pushes to this address."""
    with contextlib.ExitStack() as stack:
        yield lambda url, token=ONE: stack.enter_context(Collectd(tmp_path, url, token))


LOSES = {BUSY, CUT, KILLED}


def test_matrix(between, client, script, code, daemon):
    """The first push is challenged; what collectd loses by never sending twice is all that is missing.

    Behind a lost answer libcurl sends again by itself, since the connection was kept from before: each reading is there
    once all the same.
    """
    proxy = between((PASS, PASS, *script), "/collectd")
    collectd = daemon(proxy.url)
    collectd.push(proxy, (AT, 1), (AT + 10.25, 2))
    assert [seen.status for seen in proxy.seen][:2] == [401, 200]
    for n in range(4):
        collectd.push(proxy, (AT + 20 + n, n))
    proxy.wait()
    wanted = {(LABELS, AT_US): 1, (LABELS, AT_US + 10_250_000): 2}
    wanted |= {(LABELS, AT_US + (20 + n) * 1_000_000): n for n in range(4)}
    found = readings(client, code)
    assert found.items() <= wanted.items()
    assert len(wanted) - len(found) <= sum(step in LOSES for step in script)
    if BUSY in script:
        assert "HTTP Error code: 503" in collectd.log()


def test_success_is_not_logged(between, client, code, daemon):
    """With ``LogHttpError`` collectd calls whatever isn't 200 an error."""
    proxy = between()
    collectd = daemon(proxy.url)
    collectd.push(proxy, (AT, 42))
    collectd.push(proxy, (AT + 1, 42))
    expect(client, code, {(LABELS, AT_US): 42, (LABELS, AT_US + 1_000_000): 42})
    assert "HTTP Error" not in collectd.log()


def test_wrong_token(between, client, code, daemon):
    """401 again: nothing is written, and collectd logs it."""
    proxy = between()
    collectd = daemon(proxy.url, "wrong")
    collectd.push(proxy, (AT, 42))
    until(lambda: "HTTP Error code: 401" in collectd.log())
    assert readings(client, code) == {}
