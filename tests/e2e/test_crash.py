"""kill -9 at any moment: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from e2e.load import Load

KILLS = 5  # with 1 and with 3 workers: 10
SOAK_KILLS = 250
KILLS_A_FILE = 25  # a check reads the whole file: a new one from time to time


def rounds(start, workers, kills, seed):
    choice = random.Random(seed)
    server = start(workers)
    load = Load(server, seed=seed)
    load.prepare()
    for _ in range(kills):
        with load:
            load.acknowledged.acquire()  # it works
            time.sleep(choice.uniform(0, 0.8))
            server.kill()
        server.start()
        acknowledged = load.check()
    assert acknowledged > kills
    assert command(server, "verify").wait(60) == 0
    server.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_under_load(start, workers):
    """8 clients push, one by one and many at once; the whole process group is killed at random moments."""
    rounds(start, workers, KILLS, seed=workers)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_under_load_for_long(start, workers):
    """The same, 500 times in all, at other moments each time it runs."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for n in range(SOAK_KILLS // KILLS_A_FILE):
        rounds(start, workers, KILLS_A_FILE, seed=seed + n)


def command(server, name):
    """``meterite compact`` or ``meterite verify`` on the server's file; what it says goes to the server's log."""
    with server.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", "from meterite.cli.main import main; main()", name],
            cwd=server.path,
            env=server.environment(),
            stdout=log,
            stderr=log,
        )


def test_killed_while_compacting(start):
    """Server and ``meterite compact`` die together, in whatever step they were."""
    choice = random.Random(0)
    server = start()
    load = Load(server)
    load.prepare()
    for _ in range(3):
        with load:
            load.acknowledged.acquire()
            compaction = command(server, "compact")
            time.sleep(choice.uniform(0.4, 1.2))
            compaction.kill()
            server.kill()
            compaction.wait()
        server.start()
        load.check()
    assert command(server, "compact").wait(60) == 0
    load.check()
    assert command(server, "verify").wait(60) == 0


def test_killed_while_it_starts(start):
    """Making the file and its tables is interrupted; the next start finds nothing half made."""
    server = start()
    server.kill()
    for moment in range(4):
        for file in server.path.glob("meterite.db*"):
            file.unlink()
        server.launch()
        until = time.monotonic() + 20
        while not server.database.exists() and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(moment * 0.01)
        server.kill()
        server.start()
        load = Load(server, clients=2)
        load.prepare()
        with load:
            load.acknowledged.acquire()
        load.check()
        server.kill()
