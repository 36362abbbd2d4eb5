"""Which one of several workers does what one is enough for.

Who has the exclusive ``flock`` on a file of its own has the turn, until it lets go or dies: the system then gives it to
whoever asks next.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Turn:
    """One for each worker."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._fd = -1

    def have(self) -> bool:
        """Whether it is ours from now on, until :meth:`close`."""
        with self._guard:
            if self._fd >= 0:
                return True
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException as exc:
                os.close(fd)
                if isinstance(exc, BlockingIOError):
                    return False
                raise
            self._fd = fd
            return True

    def close(self) -> None:
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
