"""The listeners as a whole: what they tell while they are open."""

from __future__ import annotations

import asyncio
import socket

from listeners.given import Recorded, setting
from meterite.listeners import keeper, service
from meterite.listeners.service import Listeners


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_the_last_refusal_is_told(tmp_path, monkeypatch):
    """By time alone: nothing need be refused after it, and nobody closes the listener."""
    told = []
    monkeypatch.setattr(keeper.log, "warning", lambda _, **fields: told.append(fields["reasons"]))
    monkeypatch.setattr(keeper, "TOLD_EVERY_S", 3600)
    monkeypatch.setattr(service, "TELLING_S", 0.01)
    port = free_port()
    listeners = Listeners([setting(port=port)], Recorded(), tmp_path / "lock")

    async def send(line):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(line)
        writer.close()
        await writer.wait_closed()

    async def until(condition):
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise TimeoutError

    async def scenario():
        await listeners.open()
        await send(b"first one two three\n")
        await until(lambda: len(told) == 1)
        await send(b"second x 1\n")
        await until(lambda: listeners._tallies[0].counts == {"rejected": 1})
        assert len(told) == 1
        monkeypatch.setattr(keeper, "TOLD_EVERY_S", 0)
        await until(lambda: len(told) == 2)
        await listeners.close()

    asyncio.run(scenario())
    assert len(told) == 2
