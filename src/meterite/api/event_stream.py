"""Events as they happen, as server-sent events (WHATWG HTML, section 9.2).

What this file guarantees: every block has an ``id`` that a client may send back as ``Last-Event-ID``, from the first
block on, which has no data: so nothing is lost between two connections. Something is sent every 15 seconds; a client
that takes nothing for 30 is cut off. What is wrong before the first byte is an ordinary error.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
import structlog
from starlette.responses import StreamingResponse

from meterite.api.event_schemas import event_document
from meterite.model.errors import MeteriteError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from starlette.types import Message, Send

    from meterite.model.event import Event

EVENT_STREAM: Final = "text/event-stream"
KEEP_ALIVE_S: Final = 15.0
SLOW_S: Final = 30.0
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY: Final = b"retry: 1000\n"
_KEEP_ALIVE: Final = b": keep-alive\n"

log = structlog.get_logger("meterite.stream")


async def stream_events(following: AsyncGenerator[tuple[list[Event], str], None]) -> EventStream:
    """Begun here, so that errors are ordinary ones."""
    return EventStream(await anext(following), following)


class EventStream(StreamingResponse):
    """``first`` and then what follows, until it ends or nobody listens any more."""

    def __init__(
        self,
        first: tuple[list[Event], str],
        following: AsyncGenerator[tuple[list[Event], str], None],
        slow_s: float = SLOW_S,
    ) -> None:
        super().__init__((), media_type=EVENT_STREAM, headers=_HEADERS)
        self._first = first
        self._following = following
        self._slow_s = slow_s

    async def stream_response(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_all(send)
        except MeteriteError as exc:
            log.warning("stream cut", reason=exc.code, detail=exc.message)
        except TimeoutError:
            log.warning(
                "stream cut", reason="slow", detail=f"The client took nothing for {self._slow_s:g} s."
            )
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            with anyio.CancelScope(shield=True):
                await self._following.aclose()

    async def _send_all(self, send: Send) -> None:
        events, cursor = self._first
        await self._in_time(send, _RETRY + block(events, cursor))
        async for events, cursor in self._following:
            await self._in_time(send, block(events, cursor) if events else _KEEP_ALIVE + block((), cursor))

    async def _in_time(self, send: Send, body: bytes) -> None:
        message: Message = {"type": "http.response.body", "body": body, "more_body": True}
        async with asyncio.timeout(self._slow_s):
            await send(message)


def block(events: Sequence[Event], cursor: str) -> bytes:
    """A block an event; where there is none an id alone, which a client remembers and doesn't tell anybody."""
    if not events:
        return b"id: %s\n\n" % cursor.encode("ascii")
    return b"".join(
        b"id: %s\nevent: %s\ndata: %s\n\n"
        % (event.id.encode(), event.type.encode(), msgspec.json.encode(event_document(event)))
        for event in events
    )
