"""Whose turn it is in an org. Each object here has a descriptor of its own, as another process would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing, contextmanager

import pytest

from meterite.model.errors import UnavailableError
from meterite.storage.locks import OneByte
from meterite.storage.org_turns import OrgTurns
from meterite.storage.steps import run_through

ORGS = (1, 2, 1 << 40)


@contextmanager
def held(turns, org_id, wait_s):
    run_through(turns.take(org_id, wait_s))
    try:
        yield
    finally:
        turns.leave(org_id)


def free(turns, org_id):
    """Whether the org's turn is to be had at once."""
    try:
        with held(turns, org_id, 0):
            return True
    except UnavailableError:
        return False


def test_no_org_waits_for_another(tmp_path):
    """One has a turn by org; threads keep each other out, and so do two objects as two processes would."""
    path = tmp_path / "m.db.series.lock"
    with closing(OrgTurns(path)) as mine, closing(OrgTurns(path)) as other:
        for org_held in ORGS:
            with held(mine, org_held, 0):
                for turns in (mine, other):
                    assert [org for org in ORGS if not free(turns, org)] == [org_held]
            assert all(free(turns, org) for turns in (mine, other) for org in ORGS)
    assert path.stat().st_size == 0


def test_a_thread_that_waits_gets_its_turn(tmp_path):
    with closing(OrgTurns(tmp_path / "m.db.series.lock")) as turns:
        had = []

        def wait():
            with held(turns, 1, 30):
                had.append("turn")

        with held(turns, 1, 0):
            waiting = threading.Thread(target=wait)
            waiting.start()
        waiting.join(30)
        assert had == ["turn"]


def test_who_waits_is_next(tmp_path):
    """Before the process that had the turn and wants it again at once, each time."""
    path = tmp_path / "m.db.series.lock"
    with closing(OrgTurns(path)) as mine, closing(OrgTurns(path)) as other, closing(OrgTurns(path)) as third:
        for _ in range(20):
            turns = []

            def once(turns=turns):
                with held(other, 1, 30):
                    turns.append("other")

            with held(mine, 1, 30):
                waiting = threading.Thread(target=once)
                waiting.start()
                wait_for_one_in_line(third)
            with held(mine, 1, 30):
                turns.append("mine")
            waiting.join(30)
            assert turns == ["other", "mine"]


def wait_for_one_in_line(turns):
    """Until somebody has org 1's second byte. An org of its own is held, so that there is a descriptor."""
    until = time.monotonic() + 30
    with held(turns, 2, 0):
        while time.monotonic() < until:
            line = OneByte(turns._fd, 3)
            if not line.take():
                return
            line.drop()
            time.sleep(0.0001)
    raise AssertionError


def hold_and_die(path):
    with held(OrgTurns(path), 1, 30):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_turn_of_a_process_that_died(tmp_path):
    """It goes by itself."""
    path = tmp_path / "m.db.series.lock"
    process = multiprocessing.get_context("spawn").Process(target=hold_and_die, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with closing(OrgTurns(path)) as turns:
        assert free(turns, 1)


def test_what_fails_holds_nothing(tmp_path):
    """Neither a block that raises, nor who stops waiting, nor a file that can't be opened."""
    path = tmp_path / "missing" / "m.db.series.lock"
    with closing(OrgTurns(path)) as turns:
        with pytest.raises(FileNotFoundError), held(turns, 1, 0):
            pass
        path.parent.mkdir()
        with pytest.raises(ZeroDivisionError), held(turns, 1, 0):
            raise ZeroDivisionError
        with closing(OrgTurns(path)) as other:
            with held(other, 1, 0):
                waiting = turns.take(1, 30)
                assert next(waiting) > 0
                waiting.close()
            assert free(other, 1)
        assert free(turns, 1)
