"""kill -9 at any moment: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from e2e.frozen import Moments, copy, gone, turn
from e2e.load import Load
from e2e.server import Server
from meterite.storage.schema import SCHEMA_REVISION, metadata

KILLS = {1: 5, 3: 3}  # by workers; test_killed_while_compacting has two more
SOAK_KILLS = {1: 350, 3: 150}
KILLS_A_FILE = 10  # a look reads the whole file: a new one from time to time
EACH_COMMIT = {"JOURNAL_ROWS_MAX": "1"}  # so that the service is compacting at every moment
LARGE_PAGES = 24
INDEX_HEADER_BYTES = 48  # sqlite.org/walformat.html, 2.1: each commit changes it
COMMITS_MIN = 5
ACKNOWLEDGED = 100  # before the first look after a start
LOOK_ON_S = 60
LOOKS = ("acknowledged", "turn", "random", "committed", "acknowledged")
SOAK_LOOKS = ("acknowledged", "committed")
LAST = ("acknowledged", "random", "committed", "turn", "large")


class Killer:
    """Waits for a moment of a server under load, and then looks what a kill would leave, or kills."""

    def __init__(self, server, load, choice):
        self._server = server
        self._load = load
        self._choice = choice
        self._moments = Moments(server, load)
        self.seen = self._moments.seen

    def look(self, moment, *others):
        with getattr(self, moment)(signal.SIGSTOP):
            self._moments.look(*others)

    def look_at(self, *others):
        """At this moment, of what stands still or is stopped now."""
        self._moments.look(*others)

    def kill(self, moment):
        with getattr(self, moment)(signal.SIGKILL):
            self.killed()

    def killed(self, *others):
        """What is left is looked at before the next start mends anything."""
        self._load.stop()
        self._server.kill()
        gone(self._server.process.pid, *others)
        self._moments.judge()

    def _send(self, number):
        with suppress(ProcessLookupError):
            os.killpg(self._server.process.pid, number)

    @contextmanager
    def random(self, number):
        time.sleep(self._choice.uniform(0, 0.1))
        self._send(number)
        yield

    @contextmanager
    def soon(self, number):
        time.sleep(self._choice.uniform(0, 0.03))
        self._send(number)
        yield

    @contextmanager
    def acknowledged(self, number):
        """At once when an answer is read: it is the client that got it who sends the signal."""
        done = threading.Event()

        def send():
            self._send(number)
            done.set()

        time.sleep(self._choice.uniform(0, 0.05))
        self._load.at_next_acknowledgement(send)
        assert done.wait(20)
        yield

    @contextmanager
    def turn(self, number):
        """While nothing can be committed, since somebody else has the writer's turn."""
        with turn(self._server):
            time.sleep(0.1)
            self._send(number)
            yield

    @contextmanager
    def committed(self, number):
        """At once when a commit of a large request is in the log: nothing of it may be missing."""
        before = committed_pages(self._server)
        self._load.send_large()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pages = committed_pages(self._server)
            if not 0 <= pages - before < LARGE_PAGES:
                break
            before = pages
        self._send(number)
        yield

    @contextmanager
    def large(self, number):
        """Somewhere between the first byte of a large request and the end of its compaction."""
        self._load.send_large()
        time.sleep(self._choice.uniform(0, 0.3))
        self._send(number)
        yield


def committed_pages(server):
    """In the log, as its index says (sqlite.org/walformat.html, 2.1); read as bytes, for a lock would be in the way."""
    with Path(f"{server.database}-shm").open("rb") as index:
        index.seek(16)
        return int.from_bytes(index.read(4), sys.byteorder)


def rounds(start, workers, kills, seed, looks):
    choice = random.Random(seed)
    server = start(workers, env=EACH_COMMIT)
    load = Load(server, seed=seed)
    load.prepare()
    killer = Killer(server, load, choice)
    for n in range(kills):
        with load:
            load.wait(ACKNOWLEDGED)
            for moment in looks:
                killer.look(moment)
            killer.kill(LAST[(n + seed) % len(LAST)])
        server.start()
        acknowledged = load.check()
    look_on(load, killer, kills)
    print(f"{acknowledged} acknowledged, {killer.seen}")
    assert acknowledged > kills
    assert compacted(killer.seen, kills), killer.seen
    server.close()


def look_on(load, killer, kills):
    """Until the looks have met all: on a busy machine so few kills come before the first merge."""
    until = time.monotonic() + LOOK_ON_S
    while not compacted(killer.seen, kills) and time.monotonic() < until:
        with load:
            load.wait(ACKNOWLEDGED)
            killer.look("random")
        load.check()


def compacted(seen, kills):
    """Whether the service's own compaction was at work, merged and swept, and was met between its steps."""
    return seen.flips > kills and seen.runs_made > seen.runs_left and seen.unswept > 0


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_under_load(start, workers):
    """8 clients push, one by one and many at once, while the service compacts each commit. The process group is
    killed at random moments, at the moment of an answer, and while nothing can be committed; between the kills
    it is stopped at such moments, for a look at what a kill would leave.
    """
    rounds(start, workers, KILLS[workers], workers, LOOKS)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_under_load_for_long(start, workers):
    """The same, 500 times in all, at other moments each time it runs."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for n in range(SOAK_KILLS[workers] // KILLS_A_FILE):
        rounds(start, workers, KILLS_A_FILE, seed + n, SOAK_LOOKS)


@contextmanager
def command(server, name):
    """``meterite compact`` or ``meterite verify`` on the server's file; what it says goes to the server's log."""
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from meterite.cli.main import main; main()", name],
            cwd=server.path,
            env=server.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def done(server, name):
    with command(server, name) as process:
        return process.wait(60) == 0


def test_killed_while_compacting(start):
    """``meterite compact`` leaves the file whole after each of its commits; then it dies together with the server."""
    server = start(env=EACH_COMMIT)
    load = Load(server)
    load.prepare()
    killer = Killer(server, load, random.Random(0))
    with load:
        load.send_large()
        load.wait(ACKNOWLEDGED)
        killer.kill("acknowledged")
    before = killer.seen.copies
    with command(server, "compact") as compaction:
        for _ in commits(server, compaction):
            killer.look_at(compaction.pid)
        assert compaction.wait(60) == 0
    print(killer.seen)
    assert killer.seen.copies > before + COMMITS_MIN
    assert killer.seen.unswept
    server.start()
    with load:
        load.send_large()
        with command(server, "compact") as compaction:
            wait_for(compaction, lambda: has_open(compaction, "meterite.db.compact.lock"))
            time.sleep(0.02)
            compaction.kill()
            killer.killed(compaction.pid)
    server.start()
    load.check()
    assert done(server, "compact")
    load.check()
    assert done(server, "verify")
    server.close()


def commits(server, process):
    """Stops the process in the moment of each of its commits."""
    index = Path(f"{server.database}-shm")
    before = None
    while process.poll() is None:
        with suppress(FileNotFoundError), index.open("rb") as file:
            header = file.read(INDEX_HEADER_BYTES)
            if before not in {None, header}:
                os.killpg(process.pid, signal.SIGSTOP)
                yield
            before = header


SPILLED = 8 << 20  # what hasn't been committed is in the log, too
NEWER = (sys.executable, str(Path(__file__).parent / "newer" / "serve.py"), "serve")


def test_killed_while_it_starts(start):
    """Making the file and its tables is interrupted: there are all tables or none, and the next start finds its way."""
    server = start()
    server.kill()
    for moment in (0, 0.03):
        remove(server)
        server.launch()
        wait_for(server.process, lambda: server.database.exists() and server.database.stat().st_size)
        time.sleep(moment)
        server.kill()
        gone(server.process.pid)
        assert revision_of(server) in {0, SCHEMA_REVISION}
    remove(server)
    halted(server, "end")
    assert revision_of(server) == 0
    server.start()
    load = Load(server, clients=2)
    load.prepare()
    with load:
        load.acknowledged.acquire()
    load.check()
    server.close()


def test_killed_while_it_migrates(start):
    """A newer program dies within its migration: all is as it was, for the old one and for a second try."""
    server = start(env=EACH_COMMIT)
    load = Load(server)
    load.prepare()
    killer = Killer(server, load, random.Random(0))
    with load:
        load.acknowledged.acquire()
        killer.kill("random")
    log = server.database.with_name("meterite.db-wal")
    for place in ("middle", "end"):
        halted(server, place)
        assert log.stat().st_size > SPILLED
        assert revision_of(server) == SCHEMA_REVISION
        killer.killed()
    server.start()
    load.check()
    with load:
        load.acknowledged.acquire()
        killer.kill("acknowledged")
    newer = Server(server.path, command=NEWER).start()
    load.check(newer)
    newer.close()
    assert revision_of(server) == SCHEMA_REVISION + 1
    server.launch()
    assert server.process.wait(20) == 2
    assert "written by a newer" in server.text()


def remove(server):
    for file in server.path.glob("meterite.db*"):
        file.unlink()


def halted(server, place):
    """A newer program that comes to this place of its migration, and is killed there."""
    mark = server.path / "halted"
    mark.unlink(missing_ok=True)
    newer = Server(server.path, command=NEWER, env={"HALT_AT": place})
    newer.launch()
    wait_for(newer.process, mark.exists)
    newer.close()
    gone(newer.process.pid)


def wait_for(process, condition):
    until = time.monotonic() + 20
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.0005)


def has_open(process, name):
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if fd.readlink().name == name:
                return True
    return False


def revision_of(server):
    """What a kill left: all tables of a revision, or none."""
    with closing(sqlite3.connect(copy(server, server.path / "copy"))) as conn:
        (revision,) = conn.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    expected = {*metadata.tables, "alembic_version", "sqlite_sequence"} if revision else set()
    if revision > SCHEMA_REVISION:
        expected.add("bulk")
    assert tables == expected
    return revision
