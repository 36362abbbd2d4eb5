"""Whose turn it is in an org: one thread's of all processes at a time, and no org waits for another.

The turns of all orgs are bytes of one file, two an org: the turn, and the line before it. Threads that share the open
file stand before the org's turn first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from meterite.model.errors import UnavailableError
from meterite.storage.locks import OneByte, open_lock, take_in_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
        fd = self._enter(org_id, wait_s)
        try:
            turn, line = OneByte(fd, 2 * org_id), OneByte(fd, 2 * org_id + 1)
            take_in_line(turn, line, until, "Another process is making series; try again.")
            try:
                yield
            finally:
                turn.drop()
        finally:
            self._leave(org_id)

    def _enter(self, org_id: int, wait_s: float) -> int:
        """Go before the other threads; answers the descriptor."""
        with self._left:
            if not self._left.wait_for(lambda: org_id not in self._held, wait_s):
                raise UnavailableError("database-locked", "Another request is making series; try again.")
            if self._fd < 0:
                self._fd = open_lock(self._path)
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
