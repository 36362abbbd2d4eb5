"""Which one of several workers does what one is enough for."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import closing

import pytest

from meterite.storage.turn import Turn


def test_one_has_it_until_it_lets_go(tmp_path):
    path = tmp_path / "m.db.remind.lock"
    with closing(Turn(path)) as other:
        with closing(Turn(path)) as mine:
            assert (mine.have(), other.have(), mine.have()) == (True, False, True)
        assert other.have()


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOLCK])
def test_who_does_not_get_it_keeps_no_descriptor(tmp_path, monkeypatch, code):
    """Others having it is an answer; a system without locks is an error."""

    def refuse(fd, how):
        taken.append(fd)
        raise OSError(code, os.strerror(code))

    taken = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    with closing(Turn(tmp_path / "m.db.remind.lock")) as turn:
        if code == errno.EAGAIN:
            assert not turn.have()
        else:
            with pytest.raises(OSError, match="locks"):
                turn.have()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(taken[0])
