"""Whose turn it is in an org: one request's of all processes at a time, and no org waits for another.

The turns of all orgs are bytes of one file, two an org: the turn, and the line before it. Those who share the open
file stand before the org's turn first. A turn belongs to no thread: who took it may leave it on another, and who waits
for it keeps none.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from meterite.model.errors import UnavailableError
from meterite.storage.locks import OneByte, open_lock, take_in_line

if TYPE_CHECKING:
    from pathlib import Path

    from meterite.storage.steps import Steps

POLL_S: Final = 0.005


class OrgTurns:
    """One for each store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._held: set[int] = set()
        self._guard = threading.Lock()

    def take(self, org_id: int, wait_s: float) -> Steps[None]:
        """To be left again from its end on. UnavailableError when the org's turn doesn't come within ``wait_s``."""
        until = time.monotonic() + wait_s
        while not self._enter(org_id):
            if time.monotonic() > until:
                raise UnavailableError("database-locked", "Another request is making series; try again.")
            yield POLL_S
        try:
            turn, line = self._byte(2 * org_id), self._byte(2 * org_id + 1)
            busy = "Another process is making series; try again."
            with closing(take_in_line(turn, line, until, busy)) as waiting:
                for _ in waiting:
                    yield POLL_S
        except BaseException:
            self._held.remove(org_id)
            raise

    def leave(self, org_id: int) -> None:
        if self._fd >= 0:  # else it went with the file
            self._byte(2 * org_id).drop()
        self._held.remove(org_id)

    def _enter(self, org_id: int) -> bool:
        """Whether it goes before the others who share the file from now on."""
        with self._guard:
            free = org_id not in self._held
            self._held.add(org_id)
            return free

    def _byte(self, number: int) -> OneByte:
        with self._guard:
            if self._fd < 0:
                self._fd = open_lock(self._path)
            return OneByte(self._fd, number)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
