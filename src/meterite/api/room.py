"""How much the bodies of all requests may hold together.

What this file guarantees: what requests hold, as sent or unpacked, from the first byte until they are answered, is
never beyond ``bytes_max`` by more than a chunk, but for one that is alone, which the limits of bodies bound. Who finds
no room is told so at once, by what makes his client try again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from meterite.model.errors import UnavailableError

if TYPE_CHECKING:
    from types import TracebackType


class Room:
    """One for each worker; used from the event loop's thread."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0


class Share:
    """What one request holds; given back when the ``with`` ends."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.held -= self._held

    def check(self, size: int) -> None:
        """UnavailableError where there is no room for so many bytes now."""
        others = self._room.held - self._held
        if others and others + size > self._room.bytes_max:
            raise UnavailableError("queue-full", "Too many bodies are being read; try again.")

    def grow(self, size: int) -> None:
        """Hold so many bytes from now on. UnavailableError."""
        self.check(size)
        self._room.held += size - self._held
        self._held = size
