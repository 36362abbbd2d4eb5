"""The thread that compacts: how it ends."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from meterite import upkeep
from meterite.upkeep import Upkeep


class SlowCompaction:
    """One step that ends when it may."""

    def __init__(self):
        self.begun, self.go_on, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.closed = False

    def run_once(self):
        self.begun.set()
        assert self.go_on.wait(60)
        self.ended.set()
        return False

    def stop(self):
        pass

    def close(self):
        self.closed = True


def test_a_step_that_doesnt_end_keeps_its_lock(monkeypatch):
    """Closing gives the lock to another process, while this one may still write."""
    monkeypatch.setattr(upkeep, "STOP_S", 0.01)
    compaction = SlowCompaction()
    thread = Upkeep(SimpleNamespace(compaction=lambda: compaction))
    thread.start()
    assert compaction.begun.wait(60)
    thread.stop()
    assert not compaction.closed
    compaction.go_on.set()
    assert compaction.ended.wait(60)


def test_a_step_that_ends_is_waited_for():
    """Then the lock is given up."""
    compaction = SlowCompaction()
    compaction.go_on.set()
    thread = Upkeep(SimpleNamespace(compaction=lambda: compaction))
    thread.start()
    thread.stop()
    assert compaction.closed
