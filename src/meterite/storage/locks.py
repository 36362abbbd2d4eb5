"""Locks between processes, and the line before them.

What this file guarantees: a lock goes with the process that held it; it belongs to the open file, so that two of one
process keep each other out as two processes do; of those who stand in line the first is next, and nobody waits longer
than he said. Between threads that share one open file it is no lock: they stand before it in a way of their own.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from meterite.model.errors import UnavailableError
from meterite.storage.file import OWNER_ONLY
from meterite.storage.steps import run_through

if TYPE_CHECKING:
    from pathlib import Path

    from meterite.storage.steps import Steps

LOCK_WAIT_S: Final = 5.0
LOCK_POLL_S: Final = 0.0005
_BYTE: Final = struct.Struct("hhqqi0q")
"""``struct flock`` of Linux: type, whence, start, length, pid, which has to be 0."""


def open_lock(path: Path) -> int:
    """The file's descriptor; made where it isn't there."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)


class Lock(Protocol):
    def take(self) -> bool:
        """Whether it is ours now; doesn't wait."""
        ...

    def drop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WholeFile:
    """``flock(2)`` on an open file."""

    fd: int

    def take(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def drop(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)


@dataclass(frozen=True, slots=True)
class OneByte:
    """One byte of an open file, which need not be there (``fcntl(2)``, F_OFD_SETLK, since F_SETLK is the process's)."""

    fd: int
    byte: int

    def take(self) -> bool:
        try:
            self._set(fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        return True

    def drop(self) -> None:
        self._set(fcntl.F_UNLCK)

    def _set(self, kind: int) -> None:
        fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, _BYTE.pack(kind, os.SEEK_SET, self.byte, 1, 0))


def take_in_line(turn: Lock, line: Lock, until: float, busy: str) -> Steps[None]:
    """Have ``turn`` from its end on. UnavailableError, with ``busy``, where it doesn't come until then (monotonic).

    Who waits polls, so that whoever lets go could have it again at once, and again. So all but the first in line wait
    for ``line``: the first holds that until its turn comes, and nobody passes it.
    """
    yield from _wait_for(line, until, busy)
    try:
        yield from _wait_for(turn, until, busy)
    finally:
        line.drop()


def _wait_for(lock: Lock, until: float, busy: str) -> Steps[None]:
    while not lock.take():
        if time.monotonic() > until:
            raise UnavailableError("database-locked", busy)
        yield LOCK_POLL_S


class FileLock:
    """One thread's of all processes: a file with a line before it, and before both a lock among this one's threads."""

    def __init__(self, path: Path) -> None:
        self._paths = path, path.with_name(f"{path.name[: -len(path.suffix)]}.line{path.suffix}")
        self._threads = threading.Lock()
        self._files: tuple[WholeFile, WholeFile] | None = None

    def acquire(self, wait_s: float = LOCK_WAIT_S) -> None:
        """UnavailableError when the turn doesn't come within ``wait_s``."""
        until = time.monotonic() + wait_s
        if not self._threads.acquire(timeout=wait_s):
            raise UnavailableError("database-locked", "Too many writers are waiting; try again.")
        try:
            if self._files is None:
                turn, line = self._paths
                self._files = WholeFile(open_lock(turn)), WholeFile(open_lock(line))
            run_through(take_in_line(*self._files, until, "Another process is writing; try again."))
        except BaseException:
            self._threads.release()
            raise

    def release(self) -> None:
        assert self._files is not None
        self._files[0].drop()
        self._threads.release()

    def close(self) -> None:
        files, self._files = self._files, None
        for file in files or ():
            os.close(file.fd)
