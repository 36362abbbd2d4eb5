"""Streams that can't go on, and those nobody listens to."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from meterite.api.accept import choose
from meterite.api.stream import PIECE_ROWS, stream_readings
from meterite.model.errors import DamagedError
from meterite.query.select import Rows
from meterite.wire.rows import CsvRows, NdjsonRows


class FakeSelection:
    """Slices of so many rows; damaged after the last where ``damaged``."""

    def __init__(self, *counts, damaged=False, warnings=()):
        self.counts = counts
        self.damaged = damaged
        self.warnings = list(warnings)
        self.closed = False

    def labels(self, series):
        return (("host", str(series)),) if series else ()

    async def slices(self):
        try:
            for count in self.counts:
                times = np.arange(count)
                yield Rows(np.ones(count), times, times, times % 2)
            if self.damaged:
                raise DamagedError("damaged", "A row is damaged.")
        finally:
            await asyncio.sleep(0)
            self.closed = True


def sent_for(selection, encoder=None, *, leaves_after=None):
    """The ASGI messages of an answer; the client may leave after so many of them."""

    async def run():
        messages = []
        left = asyncio.Event()

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message)
            if len(messages) == leaves_after:
                left.set()
                await asyncio.sleep(3600)

        response = await stream_readings(selection, encoder or NdjsonRows())
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
        return messages

    return asyncio.run(run())


def test_a_whole_stream_ends():
    """Large slices leave in pieces, the last message says that it is the last, the selection is closed."""
    selection = FakeSelection(PIECE_ROWS + 1, 2)
    messages = sent_for(selection)
    bodies = [message["body"] for message in messages[1:]]
    assert b"".join(bodies).count(b"\n") == PIECE_ROWS + 3
    assert b'"labels":{"host":"1"}' in bodies[0]
    assert [message["more_body"] for message in messages[1:]] == [True] * (len(messages) - 2) + [False]
    assert selection.closed


def test_a_damaged_stream_is_cut():
    """No last chunk: the server then closes the connection, and no client takes it for the whole."""
    selection = FakeSelection(2, damaged=True)
    messages = sent_for(selection)
    assert messages[-1]["more_body"] is True
    assert selection.closed


def test_damage_before_the_first_row_is_an_ordinary_error():
    """Nothing was sent yet."""
    with pytest.raises(DamagedError):
        sent_for(FakeSelection(damaged=True))


def test_a_client_that_leaves_closes_the_selection():
    """The snapshot must not outlive the client."""
    selection = FakeSelection(2, 2, 2)
    sent_for(selection, leaves_after=2)
    assert selection.closed


def test_nothing_selected_is_a_whole_document():
    """A header, no rows."""
    messages = sent_for(FakeSelection(), CsvRows())
    assert (
        b"".join(message["body"] for message in messages[1:]) == b"reading,reading_at,recorded_at,labels\r\n"
    )


def test_warnings_are_headers():
    """One each, bounded in number, and none can break out of its header."""
    messages = sent_for(FakeSelection(warnings=["gap\r\nEvil: 1 ä"] * 20))
    found = [value for name, value in messages[0]["headers"] if name == b"meterite-warning"]
    assert found == [rb"gap\r\nEvil: 1 \xe4"] * 8 + [b"And 12 more gaps."]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "a/1"),
        ("", "a/1"),
        ("*/*", "a/1"),
        ("b/*", "b/2"),
        ("a/1;q=0.1, */*;q=0.5", "b/2"),
        ("B/2 ; Q=1.0", "b/2"),
        ("c/3", "a/1"),
        ("a/1;q=x, b/2;q=0.2", "b/2"),
    ],
)
def test_media_types(accept, chosen):
    """Quality first, then the order of the offer."""
    assert choose(accept, ("a/1", "b/2")) == chosen
