"""Which one of several workers does what one is enough for.

Who has the exclusive ``flock`` on a file of its own has the turn, until it lets go or dies: the system then gives it to
whoever asks next.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from meterite.storage.locks import WholeFile, open_lock

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
            fd = open_lock(self._path)
            try:
                if WholeFile(fd).take():
                    self._fd = fd
            finally:
                if self._fd != fd:
                    os.close(fd)
            return self._fd >= 0

    def close(self) -> None:
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
