"""Whose turn it is in an org: one thread's of all processes at a time, and no org waits for another.

The turns of all orgs are bytes of one file, two an org, locked one by one by an open file description (``fcntl(2)``,
F_OFD_SETLK): a lock goes with the process that held it, and two stores of one process keep each other out as two
processes do, which locks that belong to a process wouldn't. Such a lock is nothing between threads that share the
description, so they stand before the org's turn first. Who waits for another process polls, the first in line with the
org's second byte in hand, as in :class:`meterite.storage.database.FileLock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from meterite.model.errors import UnavailableError
from meterite.storage.database import LOCK_POLL_S
from meterite.storage.file import OWNER_ONLY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLOCK: Final = struct.Struct("hhqqi0q")
"""``struct flock`` of Linux: type, whence, start, length, pid, which has to be 0."""


class OrgTurns:
    """One for each store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._held: set[int] = set()
        self._left = threading.Condition()

    @contextlib.contextmanager
    def hold(self, org_id: int, wait_s: float) -> Iterator[None]:
        """UnavailableError when the org's turn doesn't come within ``wait_s``."""
        until = time.monotonic() + wait_s
        turn, line = 2 * org_id, 2 * org_id + 1
        fd = self._enter(org_id, wait_s)
        try:
            _lock(fd, line, until)
            try:
                _lock(fd, turn, until)
            finally:
                _unlock(fd, line)
            try:
                yield
            finally:
                _unlock(fd, turn)
        finally:
            self._leave(org_id)

    def _enter(self, org_id: int, wait_s: float) -> int:
        """Go before the other threads; answers the descriptor."""
        with self._left:
            if not self._left.wait_for(lambda: org_id not in self._held, wait_s):
                raise UnavailableError("database-locked", "Another request is making series; try again.")
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
            self._held.add(org_id)
            return self._fd

    def _leave(self, org_id: int) -> None:
        with self._left:
            self._held.remove(org_id)
            self._left.notify_all()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock(fd: int, byte: int, until: float) -> None:
    while True:
        try:
            _set(fd, byte, fcntl.F_WRLCK)
        except BlockingIOError:
            if time.monotonic() > until:
                raise UnavailableError(
                    "database-locked", "Another process is making series; try again."
                ) from None
            time.sleep(LOCK_POLL_S)
        else:
            return


def _unlock(fd: int, byte: int) -> None:
    _set(fd, byte, fcntl.F_UNLCK)


def _set(fd: int, byte: int, kind: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
