"""Events on their way to a client, block by block."""

from __future__ import annotations

import asyncio
import json

import pytest

from meterite.api import event_stream
from meterite.api.event_stream import EventStream, stream_events
from meterite.model.errors import UnavailableError
from meterite.model.event import Event

CURSOR = "01a20d65-7a08-7000-8000-00080003fffc"


def event(number, **changes):
    fields = {"type": "meterite.reading.above_max", "source": "/orgs/a", "subject": 'M1{a="\n"}', "org": "a"}
    data = {"metric": {"name": "line\nline\r\u2028"}}
    return Event(id=f"id-{number}", time="2026-01-31T12:00:00Z", data=data, **(fields | changes))


class Following:
    """What is followed: the answers, then an error or the end, or nothing any more."""

    def __init__(self, *answers, error=None, hangs=False):
        self.answers = answers
        self.error = error
        self.hangs = hangs
        self.closed = False

    async def __call__(self):
        try:
            for answer in self.answers:
                yield answer
            if self.hangs:
                await asyncio.Event().wait()
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


def send_all(following, *, receive=None, send=None, slow_s=30.0):
    """The messages of a whole stream."""
    messages = []

    async def sending(message):
        messages.append(message)
        if send is not None:
            await send(message)

    async def nothing():
        await asyncio.Event().wait()

    async def main():
        followed = following()
        stream = EventStream(await anext(followed), followed, slow_s)
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await asyncio.wait_for(stream(scope, receive or nothing, sending), 10)
        assert following.closed, "by the stream itself, not with the loop"

    asyncio.run(main())
    return messages


def body(messages):
    return b"".join(message["body"] for message in messages[1:]).decode()


def parsed(text):
    """As WHATWG HTML 9.2.6 says: (id, event, data) of each block that a client dispatches, and the last id."""
    told, last_id, kind, data = [], "", "", []
    assert text.endswith("\n")
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                told.append((last_id, kind, "\n".join(data)))
            kind, data = "", []
        elif name == "id":
            last_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        else:
            assert name in {"", "retry"}
    return told, last_id


def test_a_block_an_event():
    """Id, type, and the event in one line, whatever is in it; first an id alone, last an orderly end."""
    following = Following(([], "c0"), ([event(1), event(2)], "c2"), ([event(3)], "c3"))
    messages = send_all(following)
    told, last_id = parsed(body(messages))
    assert [(id_, kind) for id_, kind, _ in told] == [
        (f"id-{n}", "meterite.reading.above_max") for n in (1, 2, 3)
    ]
    assert [json.loads(data) for _, _, data in told] == [event(n).to_dict() for n in (1, 2, 3)]
    assert last_id == "id-3"
    assert body(messages).startswith("retry: 1000\nid: c0\n\n")
    assert [message["more_body"] for message in messages[1:]] == [True, True, True, False]


def test_headers():
    """Nobody on the way keeps it or gathers it."""
    headers = dict(send_all(Following(([], "c")))[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers


def test_a_sign_of_life_moves_the_id_on_and_tells_nothing():
    """So that a client that comes back isn't read again all that it didn't want."""
    messages = send_all(Following(([], "c0"), ([], CURSOR)))
    assert messages[2]["body"] == b": keep-alive\nid: " + CURSOR.encode() + b"\n\n"
    assert parsed(body(messages)) == ([], CURSOR)


def test_a_store_that_fails_cuts_the_stream():
    """Without its last chunk: a client takes it for a broken connection, and comes back."""
    following = Following(([], "c0"), error=UnavailableError("queue-full", "Not now."))
    assert [message["more_body"] for message in send_all(following)[1:]] == [True]


def test_a_client_that_takes_nothing_is_cut():
    """Nothing is kept for it."""

    async def stuck(message):
        if message.get("body", b"").startswith(b"id: id-"):
            await asyncio.Event().wait()

    following = Following(([], "c0"), ([event(1)], "c1"), ([event(2)], "c2"))
    messages = send_all(following, send=stuck, slow_s=0.01)
    assert [message["more_body"] for message in messages[1:]] == [True, True]


def test_a_client_that_leaves_ends_it():
    """While nothing is to be told, too."""

    async def leaves():
        return {"type": "http.disconnect"}

    following = Following(([], "c0"), hangs=True)
    send_all(following, receive=leaves)


def test_what_is_wrong_before_the_first_byte_is_an_ordinary_error():
    """Too many streams, for example."""

    async def refused():
        raise UnavailableError("streams-full", "Too many.")
        yield

    with pytest.raises(UnavailableError):
        asyncio.run(stream_events(refused()))


def test_bounds():
    """A slow client has half a minute at least, a sign of life comes twice as often."""
    assert 2 * event_stream.KEEP_ALIVE_S <= event_stream.SLOW_S <= 60
