"""``uvicorn app.main:app`` and ``gunicorn app.main:app``, which we don't start: what they write, how they end."""

from __future__ import annotations

import sys

import httpx
import pytest

from e2e.server import ONE, ROOT

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
