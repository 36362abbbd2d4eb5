"""``uvicorn app.main:app`` and ``gunicorn app.main:app``, which we don't start: what they write, how they end."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import httpx
import pytest

from e2e.server import ONE, ROOT, TOKENS, free_port
from meterite.settings import Settings
from meterite.storage.schema import SCHEMA_REVISION

WAYS = ("x-auth-token", "x-auth%2Dtoken", "X-Auth-Token")


def gunicorn(server):
    return [
        *(sys.executable, "-m", "gunicorn", "app.main:app", "-c", str(ROOT / "gunicorn.conf.py")),
        *("--bind", f"127.0.0.1:{server.port}", "--workers", str(server.workers), "--access-logfile", "-"),
    ]


def uvicorn(server):
    return [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(server.port)]


# --- What is written


@pytest.mark.parametrize("command", [gunicorn, uvicorn])
@pytest.mark.parametrize("logged", [False, True])
def test_the_access_log_is_the_settings_and_shows_no_token(start, command, logged):
    """Off there is no line a request, whatever the server's own switch says; on it is ours, without tokens."""
    server = start(1, command=command, cwd=ROOT, env={"ACCESS_LOG": str(logged).lower()})
    for way in WAYS:
        address = f"{server.url}/metric/?{way}={ONE}&limit=7"
        assert httpx.get(address, trust_env=False, verify=False).status_code == 200
    assert server.stop() in {0, -15}
    assert ONE not in server.text()
    assert server.text().count("/metric/?limit=7") == (len(WAYS) if logged else 0)
    assert "GET /" not in server.text()


# --- What can't be used

SERVERS = {
    "uvicorn": ("uvicorn", "--app-dir", str(ROOT)),
    "uvicorn with workers": ("uvicorn", "--app-dir", str(ROOT), "--workers", "2"),
    "gunicorn": ("gunicorn", "--pythonpath", str(ROOT), "-c", str(ROOT / "gunicorn.conf.py")),
    "gunicorn, its own settings": (
        "gunicorn",
        "--pythonpath",
        str(ROOT),
        "-k",
        "uvicorn_worker.UvicornWorker",
    ),
}


def environment(**environ):
    """Without settings of ours; processes that are watched write at once."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return kept | {"PYTHONUNBUFFERED": "1"} | environ


def run(directory, server, **environ):
    """Until it ends by itself, which it must."""
    program, *options = SERVERS[server]
    port = ["--port", str(free_port())] if program == "uvicorn" else ["--bind", f"127.0.0.1:{free_port()}"]
    return subprocess.run(
        [sys.executable, "-m", program, "app.main:app", *options, *port],
        cwd=directory,
        env=environment(**environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def newer(directory):
    with closing(sqlite3.connect(directory / "meterite.db")) as conn:
        for table in ("clock", "org", "metric"):
            conn.execute(f"CREATE TABLE {table} (id INTEGER)")
        conn.execute(f"PRAGMA user_version={SCHEMA_REVISION + 1}")


@pytest.mark.parametrize(
    ("server", "status", "lines"),
    [
        ("uvicorn", 2, 1),
        ("uvicorn with workers", 0, 2),  # its parent ends with 0, whatever became of the workers
        ("gunicorn", 2, 1),
        ("gunicorn, its own settings", 3, 1),
    ],
)
@pytest.mark.parametrize("broken", ["settings", "file"])
def test_what_can_not_be_used_ends_it(tmp_path, server, status, lines, broken):
    """The sentence, once a process, without a traceback; and no worker is started again for ever."""
    if broken == "file":
        newer(tmp_path)
        done, said = run(tmp_path, server, API_TOKENS=TOKENS), "was written by a newer Meterite"
    else:
        (tmp_path / ".env").write_text(f'api_tokens={{"{ONE}": ""}}\n')
        done, said = run(tmp_path, server), "api_tokens names an empty org"
    assert done.returncode == status, done.stdout
    assert done.stdout.count("meterite: ") == done.stdout.count(said) <= lines, done.stdout
    assert said in done.stdout
    assert "Traceback" not in done.stdout
    assert ONE not in done.stdout


# --- The first start


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_a_first_start_tells_this_servers_address(tmp_path, server):
    """``.env`` is written, the address is the one that was asked for, and the token opens it."""
    program, *options = SERVERS[server]
    port = free_port()
    told = ["--port", str(port)] if server == "uvicorn" else []
    listens = "Uvicorn running on" if server == "uvicorn" else "Application startup complete"
    with subprocess.Popen(
        [sys.executable, "-m", program, "app.main:app", *options, *told],
        cwd=tmp_path,
        env=environment(BIND=f"127.0.0.1:{port}", HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            log = ""
            while listens not in log:
                line = process.stdout.readline()
                assert line, log
                log += line
            address = re.search(r"open   (http://localhost:(\d+)/docs\?\S+)", log)
            assert address is not None, log
            assert address[2] == str(port)
            assert httpx.get(address[1], trust_env=False, verify=False).status_code == 200
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=20)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert {one.name for one in tmp_path.iterdir()} <= {".env", *(f"meterite.db{end}" for end in BESIDE)}


LOCKS = (
    ".lock",
    ".line.lock",
    ".compact.lock",
    ".streams.lock",
    ".series.lock",
    ".remind.lock",
)
BESIDE = ("", "-wal", "-shm", *LOCKS)


def test_a_first_start_on_a_port_that_is_taken(tmp_path, server):
    """It is told to listen where another server does: no file, and no address of the other's."""
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "app.main:app", "--app-dir", str(ROOT), "--port", str(server.port)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is taken by another program" in done.stderr
    assert list(tmp_path.iterdir()) == []
