"""A receiver of webhooks on the loopback that notes every call, and answers as the test likes.

Guaranteed: a call is noted with its body before it is answered, and with its answer before the sender can have it; a
call whose signature isn't good is a fault, which :meth:`Receiver.check` raises.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@dataclass(slots=True, eq=False)
class Call:
    """``status`` is None until it is answered; ``peer`` is the sender's port."""

    path: str
    id: str
    body: bytes
    peer: int
    at_s: float = field(default_factory=time.monotonic)
    status: int | None = None

    @property
    def event(self):
        return json.loads(self.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_):
        """A sender that was killed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)


def good(_call):
    """Takes everything at once."""
    return 200


class Receiver:
    """``with`` runs it. ``answer(call)``, asked in a thread a connection, is the status; None cuts the connection."""

    def __init__(self, answer=good):
        self.answer = answer
        self.calls = []
        self._faults = []
        self._signs = {"called": deque(), "answered": deque()}
        self._changed = threading.Condition()
        self._webhook = Webhook(SECRET)
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.answer = good  # who is held is let go
        self._server.shutdown()
        self._server.server_close()

    def setting(self, name, **options):
        """One of ``handlers``."""
        url = f"http://127.0.0.1:{self.port}/{name}"
        made = {"name": name, "kind": "webhook", "url": url, "secret": SECRET, "allow_private": True}
        return made | options

    def at_next(self, what, do):
        """``do`` runs when the next call came, before it is answered ("called"), or when it was ("answered")."""
        self._signs[what].append(do)

    def taken(self, name):
        """The calls of a handler that were answered with 200."""
        return [call for call in list(self.calls) if call.path == f"/{name}" and call.status == 200]

    def wait(self, condition, seconds=30):
        """Until ``condition()``, asked after each call and each answer."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def check(self):
        assert not self._faults, self._faults[0]

    # --- In the connections' threads

    def _handler(receiver):  # noqa: N805 - the handler's own self is the connection
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                receiver._receive(self)

            def log_message(self, *_):
                pass

        return Handler

    def _receive(self, request):
        with contextlib.suppress(OSError):  # a sender that was killed
            size = int(request.headers["content-length"])
            body = request.rfile.read(size)
            if len(body) < size:
                return
            call = Call(request.path, request.headers["webhook-id"], body, request.client_address[1])
            self._verify(call, request.headers)
            self.calls.append(call)
            self._told("called")
            status = self.answer(call)
            if status is None:
                request.close_connection = True
                return
            call.status = status
            request.send_response(status)
            request.send_header("content-length", "0")
            request.end_headers()
            self._told("answered")

    def _verify(self, call, headers):
        try:
            event = self._webhook.verify(call.body, dict(headers.items()))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the test is to fail of it
            self._faults.append(f"{exc!r} for {call}")
            return
        if event["id"] != call.id:
            self._faults.append(f"another id than its event's: {call}")

    def _told(self, what):
        with contextlib.suppress(IndexError):
            self._signs[what].popleft()()
        with self._changed:
            self._changed.notify_all()


def environment(*settings):
    """For :class:`e2e.server.Server`."""
    return {"HANDLERS": json.dumps(settings)}
