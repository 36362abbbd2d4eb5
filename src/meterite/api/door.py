"""The door of ``POST /metric/{code}`` under any server: takes what it understands entirely, else the handler does.

It stands in front of the framework because the framework's routing, dependencies and models cost four times the write
itself. It takes: the token in its header, a code without escapes, no query, a plain body that came whole, a metric that
this worker has in memory and that is active. Whatever it doesn't take reaches the ordinary handler with the body as it
came; so errors, other credentials and everything rare have one home. Under uvicorn ``fast_door`` stands before it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from meterite.api.request_id import HEADER, request_id_of
from meterite.model.errors import MeteriteError, UnavailableError
from meterite.wire.push import decode_push, encode_meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from meterite.recording.recorder import Recorder

_PREFIX: Final = b"/metric/"
_ODD: Final = re.compile(rb"[^!-$&-.0-~]")
_JSON: Final = (b"content-type", b"application/json")
_OTHERWISE: Final = frozenset({b"content-encoding", b"idempotency-key"})


class PushDoor:
    """``recorder`` answers None until the service is open; ``org_of`` finds a token's org."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        org_of: Callable[[str], str | None],
        recorder: Callable[[], Recorder | None],
        header: bytes,
    ) -> None:
        self._app = app
        self._org_of = org_of
        self._recorder = recorder
        self._header = header.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        raw_path: bytes = scope["raw_path"]
        code = raw_path[8:]
        recorder = self._recorder()
        token = self._token(scope)
        if recorder is None or token is None or raw_path[:8] != _PREFIX or not _plain(code):
            await self._app(scope, receive, send)
            return
        org = self._org_of(token)
        known = None if org is None else recorder.kept(org, code.decode("ascii"))
        if known is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        answer = None
        if message["type"] == "http.request" and not message.get("more_body", False):
            try:
                push = decode_push(message.get("body", b""))
                if not push.labels:
                    done = await recorder.push(known, known.metric.series_first, push.reading, push.at_us)
                    answer = encode_meter(
                        push.reading, done.reading_at_us, done.metric_id, done.recorded_at_us
                    )
            except UnavailableError:
                raise  # trying once more would take as long again
            except MeteriteError:
                answer = None  # nothing was written; the handler tries again and says what is wrong
        if answer is None:
            await self._app(scope, _replay(message, receive), send)
            return
        length = (b"content-length", b"%d" % len(answer))
        id_ = (HEADER, request_id_of(scope).encode("ascii"))
        await send({"type": "http.response.start", "status": 200, "headers": [length, _JSON, id_]})
        await send({"type": "http.response.body", "body": answer})

    def _token(self, scope: Scope) -> str | None:
        """The header's token; None where it isn't there, or a header makes this more than a plain push."""
        token = None
        for name, value in scope["headers"]:
            if name == self._header:
                token = token or value
            elif name in _OTHERWISE:
                return None
        return token.decode("latin-1") if token else None


def _plain(code: bytes) -> bool:
    """One segment of visible ASCII without escapes: decoded it is what it is."""
    return _ODD.search(code) is None


def _replay(message: Message, receive: Receive) -> Receive:
    """A receive that gives the message once more, then goes on."""
    first: list[Message] = [message]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again
