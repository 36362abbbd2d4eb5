"""A proxy between a real client and a real server, in which things go wrong as the test says.

How to use it (fixtures ``server``, ``client``, ``between`` and ``script`` are in ``conftest.py``)::

    def test_push(between, client, script):      # once for each script of the matrix
        proxy = between(script, "/write")        # the paths, by how they begin, whose requests the script is for
        send(proxy.url, ...)                     # the client's own library or program, which retries by its own rule
        proxy.wait()                             # until the whole script has happened; a fault of the proxy is raised
        expect(client, "M1", {((), 1_769_817_600_000_000): 42.0})   # polls: many clients send on threads of their own

A script is a tuple of steps. Each request that is a write (its path begins with one of the paths, its method is none of
GET, HEAD and OPTIONS) takes the next step; when there are no more, and for all other requests, it is ``PASS``:

    PASS      the request and its answer go through
    BUSY      503 with ``Retry-After: 1``; the server never sees the request
    LOST      the server answers (so the commit is done), and the client's connection is closed instead
    CUT       the server gets half of the request and is killed with -9
    KILLED    the server gets all of the request and is killed with -9, done with it or not
    LATE      as LOST, and the server is killed with -9, too

A killed server is started again on its port and database; requests wait meanwhile. :attr:`Between.seen` has every
request with its step and the status that the server answered, for what else a test wants to know.

Guaranteed: bytes go through as they are (chunked bodies and answers, keep-alive, ``Expect: 100-continue``, HTTP/1.0);
a step that can't be carried out is a fault, which :meth:`Between.wait` and the end of ``with`` raise. A request is held
in memory whole. One request at a time on a connection: pipelined ones wait. No TLS, and no upgrades.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass, field

PASS, BUSY, LOST, CUT, KILLED, LATE = "PASS", "BUSY", "LOST", "CUT", "KILLED", "LATE"
KILLS = {CUT, KILLED, LATE}
MATRIX = {
    "plain": (),
    "busy": (BUSY, BUSY),
    "lost": (LOST,),
    "cut": (CUT,),
    "killed": (KILLED,),
    "late": (LATE,),
}
READS = {"GET", "HEAD", "OPTIONS"}
BODILESS = {204, 304}
TIMEOUT_S = 30
BUSY_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"
)


@dataclass(slots=True, eq=False)
class Seen:
    """A request as it came: ``body`` without the marks of chunks. ``status`` is None where the server gave none."""

    method: str
    path: str
    version: str
    headers: dict[str, str]
    step: str
    body: bytes = b""
    status: int | None = None


@dataclass(slots=True)
class _Head:
    """The first lines of a request or an answer, and what frames the body behind them."""

    raw: bytes
    first: list[str]
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def chunked(self):
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self):
        return int(self.headers.get("content-length", 0))

    def stays(self, version):
        """Whether the connection goes on behind it."""
        said = self.headers.get("connection", "").lower()
        return "close" not in said and (version == "HTTP/1.1" or "keep-alive" in said)


class End:
    """One end of a connection, read with a buffer. EOFError where the other side went."""

    def __init__(self, connection):
        self.connection = connection
        connection.settimeout(TIMEOUT_S)
        self._buffer = b""

    def head(self):
        raw = self._until(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        pairs = (line.split(":", 1) for line in lines)
        return _Head(raw, first.split(" ", 2), {name.lower(): value.strip() for name, value in pairs})

    def body(self, head):
        """The bytes as they stand on the wire, and what they say."""
        if not head.chunked:
            raw = self.exactly(head.length)
            return raw, raw
        raw, said = b"", b""
        while True:
            line = self._until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            raw += line
            if not size:
                break
            said += self.exactly(size)
            raw += said[-size:] + self.exactly(2)
        while not raw.endswith(b"\r\n\r\n"):  # trailers
            raw += self._until(b"\r\n")
        return raw, said

    def rest(self):
        """All until the other side closes."""
        raw, self._buffer = self._buffer, b""
        while part := self.connection.recv(65536):
            raw += part
        return raw

    def exactly(self, size):
        while len(self._buffer) < size:
            self._more()
        raw, self._buffer = self._buffer[:size], self._buffer[size:]
        return raw

    def send(self, raw):
        self.connection.sendall(raw)

    def closed(self):
        """Whether the other side closed while nothing was asked of it."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def _until(self, sign):
        while sign not in self._buffer:
            self._more()
        return self.exactly(self._buffer.index(sign) + len(sign))

    def _more(self):
        part = self.connection.recv(65536)
        if not part:
            raise EOFError
        self._buffer += part


class Between:
    """``with`` runs it; ``server`` is an :class:`e2e.server.Server` that is up."""

    def __init__(self, server, script=(), *paths):
        self.seen = []
        self._server = server
        self._script = list(script)
        self._paths = paths or ("/",)
        self._faults = []
        self._at_work = 0
        self._ends = set()
        self._up = threading.Lock()  # held while the server is killed and started again
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._up:  # a server that is being started again is up
            for end in list(self._ends):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        if kind is None:
            self.check()

    def steps(self, step):
        """The requests that met with it."""
        return [seen for seen in list(self.seen) if seen.step == step]

    def wait(self, seconds=30):
        """Until every step of the script has happened, restarts included, and no request is under way."""
        with self._changed:
            happened = self._changed.wait_for(
                lambda: self._faults or not (self._script or self._at_work), seconds
            )
            assert happened, f"what is left of the script: {self._script}; under way: {self._at_work}"
        self.check()

    def check(self):
        """No fault so far."""
        assert not self._faults, self._faults[0]

    # --- In the connections' threads

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        self._ends.add(connection)
        pair = _Pair(End(connection), self._server.port)
        try:
            while self._exchange(pair):
                pass
        except (EOFError, OSError):
            pass  # the client went, or the server did, which the client is to learn
        except Exception as exc:  # noqa: BLE001 - whatever it is, the test is to fail of it
            self._fault(repr(exc))
        finally:
            self._ends.discard(connection)
            pair.close()

    def _exchange(self, pair):
        """A request and its answer. Whether the connection goes on."""
        head = pair.client.head()
        with self._up:
            seen = self._next(head)
            if seen.step in KILLS:
                return self._carry_out(self._kill, pair, head, seen)
        return self._carry_out(self._refuse if seen.step == BUSY else self._pass, pair, head, seen)

    def _carry_out(self, step, pair, head, seen):
        try:
            return step(pair, head, seen)
        finally:
            if seen.step in {LOST, LATE} and (seen.status is None or seen.status >= 300):
                self._fault(f"there was no success to lose: {seen}")
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def _next(self, head):
        method, path, version = head.first
        step = PASS
        with self._changed:
            if method not in READS and path.startswith(self._paths):
                step = self._script.pop(0) if self._script else PASS
            self._at_work += 1
        seen = Seen(method, path, version, head.headers, step)
        self.seen.append(seen)
        return seen

    def _refuse(self, pair, head, seen):
        expects = "expect" in head.headers  # such a client doesn't send its body now
        if not expects:
            seen.body = pair.client.body(head)[1]
        stays = head.stays(seen.version) and not expects
        pair.client.send(BUSY_ANSWER + (b"" if stays else b"connection: close\r\n") + b"\r\nbusy\n")
        return stays

    def _pass(self, pair, head, seen):
        raw, stays = self._ask(pair, head, seen)
        if seen.step == LOST:
            return False
        pair.client.send(raw)
        return stays and head.stays(seen.version)

    def _ask(self, pair, head, seen):
        """The server's whole answer, and whether its connection goes on."""
        answer = self._forward(pair, head, seen)
        early = answer is not None
        while answer is None or answer.first[1] == "100":
            answer = pair.server.head()
        version, status = answer.first[:2]
        seen.status = int(status)
        if seen.method == "HEAD" or seen.status in BODILESS:
            return answer.raw, answer.stays(version)
        if not answer.chunked and "content-length" not in answer.headers:
            return answer.raw + pair.server.rest(), False
        return answer.raw + pair.server.body(answer)[0], answer.stays(version) and not early

    def _forward(self, pair, head, seen, half=False):
        """The request to the server. Its answer's head where it refused to have the body."""
        pair.connect()
        pair.server.send(head.raw)
        if "expect" in head.headers:
            first = pair.server.head()
            if first.first[1] != "100":
                return first
            pair.client.send(first.raw)
        raw, seen.body = pair.client.body(head)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answered without reading all
            pair.server.send(raw[: len(raw) // 2] if half else raw)
        return None

    def _kill(self, pair, head, seen):
        """Nothing for the client, and a new process for the next."""
        if seen.step == LATE:
            self._ask(pair, head, seen)
        else:
            self._forward(pair, head, seen, half=seen.step == CUT)
        self._server.kill()
        pair.close()
        try:
            self._server.restart()
        except AssertionError as exc:
            self._fault(str(exc))
        return False

    def _fault(self, text):
        with self._changed:
            self._faults.append(text)
            self._changed.notify_all()


class _Pair:
    """The ends of a connection; the server's is made when it is needed, and again where it closed."""

    def __init__(self, client, port):
        self.client = client
        self.server = None
        self._port = port

    def connect(self):
        if self.server is not None and self.server.closed():
            self.server.connection.close()
            self.server = None
        if self.server is None:
            self.server = End(socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S))

    def close(self):
        for end in (self.client, self.server):
            if end is not None:
                end.connection.close()
