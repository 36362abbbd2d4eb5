"""How connections are cut, fed whole, in pieces and byte by byte."""

from __future__ import annotations

import asyncio

import pytest

from listeners.given import setting
from meterite.listeners import tcp
from meterite.listeners.keeper import Tally
from meterite.listeners.tcp import frames, lines


def divided(divide, stream, size):
    """What comes of the stream in pieces of ``size``, and what was counted."""

    async def running():
        reader, tally = asyncio.StreamReader(), Tally(setting(), clock=lambda: 0)
        tally._told_at = 0
        found = []

        async def reading():
            async for part in divide(reader, tally):
                found.append(part)  # noqa: PERF401 - as they come

        task = asyncio.create_task(reading())
        for start in range(0, len(stream), size):
            reader.feed_data(stream[start : start + size])
            await asyncio.sleep(0)
        reader.feed_eof()
        await task
        return found, tally.counts

    return asyncio.run(running())


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_lines(size):
    """Only whole ones; what is behind the last end may have been cut, and is told."""
    found, counts = divided(lines, b"a 1 1\nb 2 2\n\nc 3 3\nd 4 4", size)
    assert b"".join(found) == b"a 1 1\nb 2 2\n\nc 3 3\n"
    assert all(part.endswith(b"\n") for part in found)
    assert counts == {"broken": 1}
    assert divided(lines, b"a 1 1\n", size) == ([b"a 1 1\n"], {})
    assert divided(lines, b"", size) == ([], {})


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_line_without_end(monkeypatch, size):
    """Isn't held beyond the bound: the connection is over."""
    monkeypatch.setattr(tcp, "LINE_BYTES_MAX", 1000)
    found, counts = divided(lines, b"a 1 1\n" + b"x" * 5000 + b"\nb 2 2\n", size)
    assert b"".join(found) in {b"a 1 1\n", b"a 1 1\n" + b"x" * 5000 + b"\nb 2 2\n"}
    if size == 100:
        assert (found, counts) == ([b"a 1 1\n"], {"broken": 1})


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_frames(size):
    """Behind their lengths; a cut one is none."""
    stream = b"\x00\x00\x00\x03abc\x00\x00\x00\x00\x00\x00\x01\x00" + b"x" * 256 + b"\x00\x00\x00\x05cut"
    assert divided(frames, stream, size) == ([b"abc", b"", b"x" * 256], {})


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_frame_that_is_too_long(size):
    """Isn't waited for: the connection is over."""
    found, counts = divided(frames, b"\x00\x00\x00\x01a\x00\x10\x00\x01" + b"x" * 10, size)
    assert (found, counts) == ([b"a"], {"broken": 1})
