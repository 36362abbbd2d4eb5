"""The fast door: a connection that answers plain pushes itself, without task, future or ASGI messages.

What this file guarantees: a complete push that :mod:`meterite.api.fast_push` takes is handed to the group commit as it
is read, and answered once it is on disk, in the order of the connection's requests. Anything else, and a push that
couldn't be committed, goes byte for byte to uvicorn's own protocol, and so to the app, which alone knows errors. One of
the two ways is at work on a connection at any time: none is begun here while the parser is within a message or the app
owes an answer, and none there while pushes are on their way. A push that ends its connection is the last that is read.

What came in one piece is committed together; what comes meanwhile waits, and reading stops. That bounds what a
connection holds (a piece and ``TURN_MAX`` pushes), and keeps two pushes of one connection in order where the first one
fails. Only a body is waited for here, and not for ever: to a head that isn't whole the parser may have an answer
already, and a body that doesn't come on is given up by the app.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meterite.api.fast_push import HEAD_BYTES_MAX

if TYPE_CHECKING:
    import asyncio

    from uvicorn._types import ASGISendEvent
    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from meterite.api.fast_push import OnItsWay, Pushes

STATE: Final = "meterite.pushes"
"""Where the app's lifespan puts its :class:`Pushes`; other apps, and ours under a root path, have none."""
TURN_MAX: Final = 128
_STARTS: Final = (b"POST /", b"PUT /metrics/")
_HEAD_END: Final = b"\r\n\r\n"


class _Turn:
    """A push of this connection, what it was sent as, and what became of it."""

    __slots__ = ("_door", "failed", "push", "sent", "settled")

    def __init__(self, door: FastDoor, sent: bytes) -> None:
        self._door = door
        self.sent = sent
        self.push: OnItsWay | None = None
        self.settled = False
        self.failed = False

    def done(self, error: Exception | None) -> None:
        """It is on disk, or it isn't."""
        self.settled = True
        self.failed = error is not None
        self._door.go_on()


class FastDoor(HttpToolsProtocol):
    """For ``uvicorn.run(…, http=…)``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        plain = not config.root_path and config.limit_concurrency is None
        self._pushes: Pushes | None = app_state.get(STATE) if plain else None
        self._turns: deque[_Turn] = deque()
        self._held = b""
        self._waiting: asyncio.TimerHandle | None = None
        self._within = False
        self._stopping = False
        self._ending = False
        self._answered_s = 0.0
        self._defaults_of: list[tuple[bytes, bytes]] | None = None
        self._defaults = b""

    # --- What comes in

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return  # the client said that nothing follows
        if self._turns:
            self._held += data
            self.flow.pause_reading()
        elif self._held:
            data, self._held = self._held + data, b""
            self._take(data)
            if self._waiting is not None and not self._held:
                self._waiting.cancel()
                self._waiting = None
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """As many pushes as it holds from its start on; what follows waits for them, or goes the ordinary way."""
        start, size = 0, len(data)
        pushes = self._pushes
        if pushes is not None and self._is_idle() and not self.flow.write_paused:
            while len(self._turns) < TURN_MAX and data.startswith(_STARTS, start):
                end = data.find(_HEAD_END, start, start + HEAD_BYTES_MAX)
                asked = None if end < 0 else pushes.asked(data[start:end])
                if asked is None:
                    break
                begin = end + len(_HEAD_END)
                stop = begin + asked.length
                if stop > size:  # nothing but its body can follow
                    self._unset_keepalive_if_required()
                    self._held = data[start:]
                    if self._waiting is None:
                        self._waiting = self.loop.call_later(pushes.body_wait_s, self._waited)
                    return
                turn = _Turn(self, data[start:stop])
                turn.push = pushes.begin(asked, data[begin:stop], turn.done)
                if turn.push is None:
                    break
                self._turns.append(turn)
                start = stop
                if asked.ends:
                    self._ending = self._stopping = True
                if start == size or asked.ends:
                    return
        if not self._turns:
            super().data_received(data)
        else:
            self._held = data[start:]
            self.flow.pause_reading()

    def _is_idle(self) -> bool:
        """The parser stands before a message, and the app owes no answer."""
        return (
            not self._within
            and (self.cycle is None or self.cycle.response_complete)
            and not self.transport.is_closing()
        )

    def on_message_begin(self) -> None:
        self._within = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._pushes = None  # what follows is another protocol's, or nobody's
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            _send_unchunked(self.cycle)

    def on_message_complete(self) -> None:
        self._within = False
        super().on_message_complete()

    # --- What goes out

    def go_on(self) -> None:
        """Answer what is settled, in order, then look at what waited."""
        while self._turns:
            turn, gone = self._turns[0], self.transport.is_closing()
            if not turn.settled or not (gone or self._is_idle()):
                return
            self._turns.popleft()
            if not turn.failed:
                self._answer(turn)
            elif not gone:
                super().data_received(turn.sent)
        if self._stopping:
            self.shutdown()
        elif self._held:
            data, self._held = self._held, b""
            self.flow.resume_reading()
            self._take(data)

    def _answer(self, turn: _Turn) -> None:
        assert turn.push is not None
        headers = self.server_state.default_headers
        if headers is not self._defaults_of:  # a new list each second
            self._defaults_of = headers
            self._defaults = b"".join([b"%b: %b\r\n" % (name.lower(), value) for name, value in headers])
        last = b"connection: close\r\n" if self._stopping and not self._turns and not self._held else b""
        answer = turn.push.answer(self._defaults, last, self.client)
        if not self.transport.is_closing():
            self.transport.write(answer)
        self.server_state.total_requests += 1
        self._answered_s = self.loop.time()
        if self.timeout_keep_alive_task is None and not last:
            self._keep_alive_for(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._turns or self._held:
            self.go_on()

    # --- How it ends

    def _keep_alive_for(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Starting a timer for each push costs more than looking, when one ends, how long nothing came."""
        self.timeout_keep_alive_task = None
        left_s = self._answered_s + self.timeout_keep_alive - self.loop.time()
        if self._turns:
            return  # the answer starts it anew
        if left_s > 0:
            self._keep_alive_for(left_s)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._turns:
            self._stopping = True
            return
        self._hand_over()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._turns:
            self._held = b""  # nobody waits for what wasn't begun
        self._hand_over()
        super().connection_lost(exc)

    def _waited(self) -> None:
        """A body didn't come."""
        self._waiting = None
        if not self._turns:
            self._hand_over()

    def _hand_over(self) -> None:
        data, self._held = self._held, b""
        if data:
            super().data_received(data)


def _send_unchunked(cycle: RequestResponseCycle) -> None:
    """HTTP/1.0 knows no chunks (RFC 9112 section 7.1): an answer of unknown length ends with its connection.

    uvicorn would send chunks. It is led to count each piece as all that is expected.
    """
    send = cycle.send
    ends_by_closing = False

    async def sending(message: ASGISendEvent) -> None:
        nonlocal ends_by_closing
        if message["type"] == "http.response.start":
            ends_by_closing = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
            if ends_by_closing:
                cycle.chunked_encoding = False
        elif ends_by_closing and message["type"] == "http.response.body":
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = sending  # type: ignore[method-assign]  # a request of this protocol is rare: no class of its own
