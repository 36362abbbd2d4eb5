"""What the steps of compaction share: the store, the limits, short transactions, and what was done so far."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from meterite.model.errors import DamagedError, MalformedFileError, UnavailableError
from meterite.storage.backlog import COMMIT_WAL_BYTES, Backlog
from meterite.storage.database import CHECKPOINT_BYTES
from meterite.storage.snapshot import Parts, RowGroups, Snapshot
from meterite.storage.windows import window_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from meterite.storage.database import Database
    from meterite.storage.store import SqliteStore

STEP_S: Final = 0.01
"""A transaction that removes rows takes no new one after this long, so that it ends well within 50 ms."""
_PAUSE_S: Final = 0.5
CHECKPOINT_AGAIN_S: Final = 1.0
ASIDE_S: Final = 300.0
_DAMAGED_S: Final = 5.0
_DROPPED_MAX: Final = 5


What = tuple[str | int, ...]
"""Names what an error is about."""


class DroppedError(Exception):
    """Another compaction was faster; what was written stays invisible and is swept."""


class StoppedError(Exception):
    """The service ends; likewise."""


class AsideError(Exception):
    """Something went wrong that nobody expected; what it was about was put aside, and the rest has its turn."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When there is something to do. The journal's: any one of the four suffices."""

    journal_readings: int = 262_144
    journal_bytes: int = 8 << 20
    journal_rows: int = 1024
    journal_age_s: float = 3600.0
    prefix_readings: int = 4_000_000
    prefix_rows: int = 1 << 15
    prefix_bytes: int = 96 << 20
    fan_in: int = 8
    fan_in_large: int = 16
    """Of runs with ``large`` readings or more: each level more writes a month once more."""
    large: int = 262_144
    inputs_max: int = 32
    quiet_s: float = 300.0
    late_s: float = 30 * 86_400.0
    tombstone_delay_s: float = 3600.0
    snapshot_grace_s: float = 600.0
    look_s: float = 300.0
    idle_s: float = 5.0
    free_pages_max: int = 2048
    events_keep_s: float | None = None
    """None: for ever."""
    last_tier: bool = False
    """Everything into one run a window, however new."""


EVERYTHING: Final = Limits(
    journal_readings=1,
    journal_bytes=1,
    journal_rows=1,
    journal_age_s=0,
    quiet_s=0,
    tombstone_delay_s=0,
    last_tier=True,
)


@dataclass(slots=True)
class Done:
    """Counters. Write amplification = (journal + encoded readings) / readings kept."""

    journal_readings: int = 0
    encoded_readings: int = 0
    encoded_bytes: int = 0
    flips: int = 0
    merges: int = 0
    dropped: int = 0
    swept_rows: int = 0
    longest_hold_s: float = 0.0
    longest_checkpoint_s: float = 0.0


@dataclass(slots=True)
class Work:
    """One compactor's; used by one thread at a time."""

    store: SqliteStore
    limits: Limits
    done: Done = field(default_factory=Done)
    backlog: Backlog = field(default_factory=Backlog)
    dirty: set[tuple[int, int]] = field(default_factory=set)
    """(org, window) where a merge may have become due."""
    dead: dict[int, int] = field(default_factory=dict)
    """Runs to be removed, and since when they are dead."""
    look: bool = True
    """Whether runs that are dead or were never finished may lie about that nobody remembers."""
    stopping: threading.Event = field(default_factory=threading.Event)
    pause: Callable[[], None] = lambda: None
    _aside: dict[What, float] = field(default_factory=dict)
    _dropped: dict[What, int] = field(default_factory=dict)
    _logged: int = 0
    _wal_bytes: int = 0
    _wal_left: int = 0
    _checkpointed: float = 0.0
    _paused: float = 0.0
    _parts: Parts | None = None

    @property
    def database(self) -> Database:
        return self.store.database

    def snapshot(self, conn: Connection, org_id: int, upto: int | None = None) -> Snapshot:
        """Not counted among the streams: only compaction removes rows."""
        if self._parts is None:
            shared = self.store.parts
            self._parts = Parts(
                self.database, RowGroups(0), shared.index, shared.damaged, shared.policies, shared.tombstones
            )
        return Snapshot(self._parts, conn, org_id, upto=upto, close=_nothing)

    @contextmanager
    def turn_of(self, what: What) -> Iterator[None]:
        """An error that nobody expected keeps ``what`` from its turn for a while: AsideError; and all else goes on."""
        try:
            yield
        except (StoppedError, UnavailableError, AsideError):
            raise
        except DamagedError as exc:
            if isinstance(exc, MalformedFileError):
                raise self._set_aside(what, exc) from exc
            if not self.store.flush_damage():  # nothing new was found: it would be the same again at once
                self._aside[what] = time.monotonic() + _DAMAGED_S
            raise
        except DroppedError:
            self._dropped[what] = self._dropped.get(what, 0) + 1
            if self._dropped[what] >= _DROPPED_MAX:
                self._put_aside(what)
            raise
        except Exception as exc:
            raise self._set_aside(what, exc) from exc
        else:
            self._dropped.pop(what, None)

    def _set_aside(self, what: What, exc: Exception) -> AsideError:
        self._put_aside(what)
        name = " ".join(map(str, what))
        return AsideError(f"The {name} is put aside for {ASIDE_S:.0f} s: {exc!r}")

    def _put_aside(self, what: What) -> None:
        self._aside[what] = time.monotonic() + ASIDE_S
        self._dropped.pop(what, None)

    def is_aside(self, what: What) -> bool:
        until = self._aside.get(what)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._aside[what]
        return False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A short transaction that gives way to requests. StoppedError where the service ends."""
        self.check()
        begun = time.monotonic()
        with self.database.writing(maintenance=True) as conn:
            begun = time.monotonic()
            yield conn
        self.done.longest_hold_s = max(self.done.longest_hold_s, time.monotonic() - begun)

    def check(self) -> None:
        if self.stopping.is_set():
            raise StoppedError

    def breathe(self) -> None:
        """Called often by long work: the journal goes first."""
        self.check()
        if time.monotonic() - self._paused > _PAUSE_S:
            self.pause()
            self._paused = time.monotonic()

    def learn(self, conn: Connection) -> bool:
        """Bring the backlog up to date; whether there was anything new."""
        logged = self.backlog.refresh(conn)
        self._logged += logged
        return logged > 0

    def logged(self, size: int) -> None:
        """So many bytes of ours went into the write-ahead log."""
        self._logged += size + COMMIT_WAL_BYTES

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Where enough came into the log since the last time, or a reader held much of it then."""
        size = self.database.wal_bytes()
        held_up = (
            self._wal_left > CHECKPOINT_BYTES and time.monotonic() - self._checkpointed > CHECKPOINT_AGAIN_S
        )
        if (
            truncate
            or held_up
            or self._logged > CHECKPOINT_BYTES
            or size > self._wal_bytes + CHECKPOINT_BYTES
        ):
            held = self.database.checkpoint(truncate=truncate)
            self.done.longest_checkpoint_s = max(self.done.longest_checkpoint_s, held)
            self._logged = 0
            self._wal_bytes = self.database.wal_bytes()
            self._wal_left = self.database.wal_bytes_left()
            self._checkpointed = time.monotonic()

    def now(self) -> int:
        return self.store.clock()


def blocked(snapshot: Snapshot, window: int) -> bool:
    """Whether a damaged row may have held readings of the window; then nothing in it is merged."""
    return any(window_of(row.at_first) <= window <= window_of(row.at_last) for row in snapshot.quarantined)


def _nothing() -> None:
    pass
