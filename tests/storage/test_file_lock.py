"""Who writes next: processes stand in line. Each lock here has descriptors of its own, as another process would."""

from __future__ import annotations

import fcntl
import threading
import time
from contextlib import closing

import pytest

from meterite.model.errors import UnavailableError
from meterite.storage.locks import FileLock


def wait_for_one_in_line(line):
    """Until somebody waits there."""
    until = time.monotonic() + 30
    with line.open("wb") as file:
        while time.monotonic() < until:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(0.0001)
    raise AssertionError


def test_who_waits_is_next(tmp_path):
    """Before the one that had the turn and wants it again at once, each time."""
    path = tmp_path / "m.db.lock"
    with closing(FileLock(path)) as mine, closing(FileLock(path)) as other:
        for _ in range(20):
            turns = []
            mine.acquire()

            def once(turns=turns):
                other.acquire(30)
                turns.append("other")
                other.release()

            waiting = threading.Thread(target=once)
            waiting.start()
            wait_for_one_in_line(tmp_path / "m.db.line.lock")
            mine.release()
            mine.acquire(30)
            turns.append("mine")
            mine.release()
            waiting.join()
            assert turns == ["other", "mine"]


def test_nobody_waits_for_ever(tmp_path):
    """Neither the first in line nor those behind; who gave up is in nobody's way."""
    path = tmp_path / "m.db.lock"
    with closing(FileLock(path)) as mine, closing(FileLock(path)) as first, closing(FileLock(path)) as second:
        mine.acquire()
        for _ in range(2):
            with pytest.raises(UnavailableError):
                first.acquire(0.01)
        first_waits = threading.Thread(target=lambda: (first.acquire(30), first.release()))
        first_waits.start()
        wait_for_one_in_line(tmp_path / "m.db.line.lock")
        with pytest.raises(UnavailableError):
            second.acquire(0.01)
        mine.release()
        first_waits.join()
        second.acquire()
        second.release()
