"""Programs that run while a test does."""

from __future__ import annotations

import contextlib
import os
import subprocess

import httpx

from clients.found import until


@contextlib.contextmanager
def running(command, log, ready):
    """Until it answers 200 at the address ``ready``. What it writes is in ``log``, and in the failure if it doesn't."""
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=log.parent, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        until(lambda: process.poll() is not None or _answers(ready), told=log.read_text)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(url):
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
