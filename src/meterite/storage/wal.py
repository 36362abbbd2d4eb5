"""How much of the write-ahead log isn't in the database's file yet, told without asking SQLite.

What this file guarantees: nothing is locked, and only the log and our own lock file are opened, never the database's
file. The log keeps its size after a checkpoint and is written from its beginning again, so its size says little: its
frames of today are those that bear its header's salts. How many of them a checkpoint moved stands in the lock file, in
a note that holds for these salts only. Where a note is missing or old, the answer is too high, never too low.

The format of the log: https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_HEADER: Final = struct.Struct(">8xI4x8s8x")
"""Page size and salts; what else is in the 32 bytes isn't needed here."""
_FRAME_HEADER_BYTES: Final = 24
_FRAME_SALTS_AT: Final = 8
_SALTS_BYTES: Final = 8
_NOTE: Final = struct.Struct("<8sq")


class LogSize:
    """Of one log. The note lies at the beginning of the lock file; whoever checkpoints writes it."""

    def __init__(self, wal: str, note: Path) -> None:
        self._wal = wal
        self._note = note

    def file_bytes(self) -> int:
        try:
            return os.stat(self._wal).st_size  # noqa: PTH116 -- before each commit, and pathlib takes five times as long
        except FileNotFoundError:
            return 0

    def left_bytes(self) -> int:
        """What the next checkpoint has to move, at most."""
        try:
            fd = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            salts, frame_bytes, frames = _frames_of(fd)
        finally:
            os.close(fd)
        return max(0, frames - self._moved(salts)) * frame_bytes

    def note_moved(self, frames: int) -> None:
        """So many frames of the log are in the database's file. Called while nobody can begin the log anew."""
        with open(self._wal, "rb") as file:  # noqa: PTH123 -- the log's name is a string, see above
            header = file.read(_HEADER.size)
        if len(header) == _HEADER.size:
            _, salts = _HEADER.unpack(header)
            fd = os.open(self._note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, _NOTE.pack(salts, frames), 0)
            finally:
                os.close(fd)

    def _moved(self, salts: bytes) -> int:
        try:
            note = self._note.read_bytes()[: _NOTE.size]
        except FileNotFoundError:
            return 0
        if len(note) < _NOTE.size:
            return 0
        noted, frames = _NOTE.unpack(note)
        return int(frames) if noted == salts else 0


def _frames_of(fd: int) -> tuple[bytes, int, int]:
    """Salts, bytes a frame, and how many frames bear the salts: these come first, so that halving finds their end."""
    header = os.pread(fd, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return b"", 0, 0
    page_bytes, salts = _HEADER.unpack(header)
    frame_bytes = page_bytes + _FRAME_HEADER_BYTES
    low, high = 0, (os.fstat(fd).st_size - _HEADER.size) // frame_bytes
    while low < high:
        middle = (low + high) // 2
        at = _HEADER.size + middle * frame_bytes + _FRAME_SALTS_AT
        if os.pread(fd, _SALTS_BYTES, at) == salts:
            low = middle + 1
        else:
            high = middle
    return salts, frame_bytes, low
