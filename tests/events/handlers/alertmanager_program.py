"""Debian's own Alertmanager on loopback, with nobody to tell, and with a prefix as behind a proxy."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from programs import program

PROGRAM = "prometheus-alertmanager"


class Program:
    """``with`` runs it."""

    def __init__(self, directory):
        self._directory = directory
        (directory / "alertmanager.yml").write_text(
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/behind"
        self._running = None

    def __enter__(self):
        with (self._directory / "log").open("ab") as log:
            self._running = subprocess.Popen(
                [
                    *(program(PROGRAM), f"--config.file={self._directory / 'alertmanager.yml'}"),
                    *(f"--storage.path={self._directory / 'data'}", "--cluster.listen-address="),
                    *(f"--web.listen-address=127.0.0.1:{self._port}", "--web.route-prefix=/behind/"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_ready()
        return self

    def __exit__(self, *_):
        self._running.terminate()
        self._running.wait(10)

    def restart(self):
        self.__exit__()
        self.__enter__()

    def _wait_until_ready(self):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                if self._running.poll() is not None:
                    break
                time.sleep(0.05)
        pytest.fail(f"{PROGRAM} did not start: {(self._directory / 'log').read_text()[-2000:]}")


def alerts(url, **labels):
    """Those that fire, of these labels."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answered:
        found = json.load(answered)
    return [alert for alert in found if labels.items() <= alert["labels"].items()]
