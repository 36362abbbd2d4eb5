"""A real server process on a database of its own.

Guaranteed: the process and all it starts are one process group that ends with the test; what it writes is kept and
shown by a failing test; a traceback in it fails the test that closes the server.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
TOKENS = '{"123456": "org_01", "111111": "org_01", "567890": "org_02"}'
ONE, TWO = "123456", "567890"
SERVE = (sys.executable, "-c", "from meterite.cli.main import main; main()", "serve")
START_SECONDS = 60
LISTENING = "0A"


PORTS = range(
    10_000, 32_000
)  # below those that connections get: one's own end of one could take a killed server's


def free_port():
    while True:
        port = random.choice(PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Server:
    """``command`` gets ``--port`` and ``--workers``; a function instead makes the whole command of the server."""

    running: set[Server] = set()  # noqa: RUF012 - failing tests show the logs of those that run

    def __init__(self, path, workers=1, tokens=TOKENS, env=None, command=SERVE, cwd=None):
        self.path = Path(path)
        self.workers = workers
        self.port = free_port()
        self.log = self.path / "server.log"
        self.database = self.path / "meterite.db"
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = command
        self._cwd = cwd or self.path
        self._tokens = tokens
        self._env = env or {}
        self._clients = []
        self._log_bytes = 0
        self.process = None

    def start(self, prepare=None):
        """``prepare`` runs in the new process before the server does. Answers when every worker is up."""
        self.launch(prepare)
        self.wait()
        return self

    def launch(self, prepare=None):
        """As :meth:`start`, without waiting."""
        command = self._command(self) if callable(self._command) else self._default()
        self._log_bytes = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self._cwd,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - sets limits only, before threads matter
            )
        Server.running.add(self)

    def environment(self):
        env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        env |= {"API_TOKENS": self._tokens, "DATABASE_URL": f"sqlite:///{self.database}"}
        return env | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"} | self._env

    def _default(self):
        return [*self._command, "--port", str(self.port), "--workers", str(self.workers)]

    def wait(self):
        until = time.monotonic() + START_SECONDS
        while not self._up():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the server didn't start:\n{self.text()}")
            time.sleep(0.02)

    def _up(self):
        with self.log.open("rb") as log:
            log.seek(self._log_bytes)
            if log.read().count(b"Application startup complete") < self.workers:
                return False
        try:
            return httpx.get(f"{self.url}/health", trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def client(self, token=ONE, **options):
        """Closed with the server."""
        headers = {"x-auth-token": token} if token else {}
        client = httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, timeout=30, verify=False, **options
        )
        self._clients.append(client)
        return client

    def kill(self):
        """The whole group, at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, seconds=15):
        """Ask it to end, and answer its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def restart(self, prepare=None):
        if self.process.poll() is None:
            self.kill()
        return self.start(prepare)

    def close(self):
        for client in self._clients:
            client.close()
        self.kill()
        Server.running.discard(self)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def worker_of(self, local_port, port=None):
        """The process that answers the connection from this port of ours, to another of its ports where one is said."""
        theirs, ours = f":{port or self.port:04X}", f":{local_port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(theirs) and fields[2].endswith(ours) and fields[3] != LISTENING:
                return self._owner(f"socket:[{fields[9]}]")
        return None

    def _owner(self, name):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(process.name)) != self.process.pid:
                    continue
                if any(str(fd.readlink()) == name for fd in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:
                continue
        return None
