"""Server processes to measure: Meterite, and what it is compared with, all under one uvicorn."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import cpu_s

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TOKEN: Final = "benchmark-token"
ORG: Final = "org_01"
ROOT: Final = Path(__file__).resolve().parent.parent
START_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A process that answers on a port of the loopback."""

    pid: int
    port: int
    started_s: float

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request, for setting up; RuntimeError where it fails."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body).encode()
            connection.request(
                method, path, data, {"x-auth-token": TOKEN, "content-type": "application/json"}
            )
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
            return json.loads(text)


@contextlib.contextmanager
def meterite(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The service as `meterite serve` starts it, on ``directory/meterite.db``."""
    command = [
        sys.executable,
        "-c",
        "from meterite.cli.main import main; main()",
        "serve",
        "--host",
        "127.0.0.1",
    ]
    with _running(command, directory, "/health", settings or {}) as server:
        yield server


@contextlib.contextmanager
def uvicorn(app: str, directory: Path) -> Iterator[Server]:
    """Another app, with the settings of `meterite serve`."""
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        app,
        "--host",
        "127.0.0.1",
        "--loop",
        "uvloop",
        "--http",
        "httptools",
    ]
    command += ["--no-access-log", "--no-server-header", "--lifespan", "on", "--log-level", "warning"]
    with _running(command, directory, "/health", {}) as server:
        yield server


@contextlib.contextmanager
def _running(command: list[str], directory: Path, path: str, settings: Mapping[str, str]) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if name.lower() != "api_tokens"}
    environ |= {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "database_url": f"sqlite:///{directory / 'meterite.db'}",
        "api_tokens": json.dumps({TOKEN: ORG}),
        **settings,
    }
    with _started([*command, "--port", str(port)], directory, path, environ, port) as server:
        yield server


@contextlib.contextmanager
def peer(command: Sequence[str], directory: Path, path: str) -> Iterator[Server]:
    """Another program, whose arguments name ``{directory}`` and ``{port}``; up when it answers 200 at ``path``."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    arguments = [each.format(directory=directory, port=port) for each in command]
    with _started(arguments, directory, path, dict(os.environ), port) as server:
        yield server


@contextlib.contextmanager
def _started(
    command: Sequence[str], directory: Path, path: str, environ: Mapping[str, str], port: int
) -> Iterator[Server]:
    began = time.monotonic()
    log = directory / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=directory, env=environ, stdout=out, stderr=out)
    try:
        started_s = _wait(process, port, path, began, log)
        yield Server(process.pid, port, started_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, path: str, began: float, log: Path) -> float:
    while time.monotonic() - began < START_S:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return time.monotonic() - began
        time.sleep(0.005)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
