"""Tells compaction whether any process still reads rows that were replaced.

While a process has a snapshot open it holds a shared ``flock`` on a file of its own. Who gets the exclusive one, if
only for a moment, knows that no snapshot is older than now; a killed process holds nothing.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path


class StreamsLock:
    """Counts this process's open snapshots and shows them to the others."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}.streams.lock")
        self._guard = threading.Lock()
        self._open = 0
        self._fd = -1

    def enter(self) -> None:
        with self._guard:
            if self._open == 0:
                fcntl.flock(self._file(), fcntl.LOCK_SH)
            self._open += 1

    def leave(self) -> None:
        with self._guard:
            self._open -= 1
            if self._open == 0 and self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def none_open(self) -> bool:
        """Whether no process has a snapshot open at this moment."""
        with self._guard:
            if self._open:
                return False
            try:
                fcntl.flock(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            return True

    def _file(self) -> int:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._fd

    def shut(self) -> None:
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
