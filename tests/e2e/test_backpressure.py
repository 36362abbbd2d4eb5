"""A thousand connections that push at once."""

from __future__ import annotations

import asyncio
import json
import re
import resource
from pathlib import Path

import pytest

from e2e.server import ONE

CONNECTIONS = 1000
BODY_BYTES = 256 * 1024
QUEUE_BYTES = 4 << 20
GROWTH_BYTES_MAX = 64 << 20
"""4 MiB of bodies, and what 1,000 connections take by themselves (32 MiB at most, when it was measured)."""
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def _files():
    """Each connection is one, here and in the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CONNECTIONS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def peak_bytes(process):
    """The most that it ever had in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024


async def push(port, number, all_sent):
    """Status and headers of one push, whose last byte isn't sent before all others are where they get."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    row = {"metric": "M", "reading": number, "labels": {"n": str(number)}}
    body = json.dumps([row]).encode().ljust(BODY_BYTES)
    head = f"POST /readings HTTP/1.1\r\nHost: m\r\nx-auth-token: {ONE}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:-1])
    await writer.drain()
    await all_sent.wait()
    writer.write(body[-1:])
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return int(answer.split()[1]), answer.decode("latin-1").lower()


async def push_all(port):
    async with asyncio.timeout(PATIENCE_S):
        all_sent = asyncio.Barrier(CONNECTIONS)
        return await asyncio.gather(*(push(port, number, all_sent) for number in range(CONNECTIONS)))


def test_a_thousand_connections(start):
    """256 MiB of bodies at once, with room for 4: what fits is taken, all else is told to come again, and no other
    answer is given; the worker never has them in memory, and what was acknowledged is there.
    """
    server = start(env={"QUEUE_BYTES_MAX": str(QUEUE_BYTES)})
    client = server.client()
    client.post("/metric/", json={"code": "M", "name": "M"})
    before = peak_bytes(server.process)
    answers = asyncio.run(push_all(server.port))
    growth = peak_bytes(server.process) - before
    taken = sum(status == 200 for status, _ in answers)
    refused = [answer for status, answer in answers if status == 503]
    assert taken + len(refused) == CONNECTIONS
    assert 1 <= taken < CONNECTIONS
    assert all("retry-after: " in answer for answer in refused)
    assert growth < GROWTH_BYTES_MAX, f"{growth >> 20} MiB"
    assert len(client.get("/metric/M/readings").json()) == taken
    assert client.post("/readings", json=[{"metric": "M", "reading": 1}]).status_code == 200
