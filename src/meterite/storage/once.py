"""Requests that may be sent again: each is kept under its key for a day, in its readings' own transaction.

What this file guarantees: of requests with one key one is committed, whichever workers they came to, and the others are
told so by an error before anything of them is written; after a crash there is a key with its readings, or neither. A
key whose row, or the page it lies on, is damaged is an error of the requests with that key, and of no other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meterite.model.errors import DamagedError, RepeatedError
from meterite.model.time import DAY_US
from meterite.storage.database import driver_of, translated

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from meterite.storage.interface import Append
    from meterite.storage.work import Work

KEPT_US: Final = DAY_US
_SWEPT: Final = 500
"""So many at most go in one transaction."""
_LOOK_S: Final = 60.0

_FIND: Final = (
    "SELECT body, recorded_at, given_at, replaced, unchanged, data FROM receipt"
    " WHERE org = ? AND key = ? AND recorded_at > ?"
)
_KEEP: Final = "INSERT OR REPLACE INTO receipt VALUES (?,?,?,?,?,?,?,?)"
_TYPES: Final = (bytes, int, int, int, int, bytes)
_SWEEP: Final = (
    "DELETE FROM receipt WHERE (org, key) IN (SELECT org, key FROM receipt WHERE recorded_at <= ? LIMIT ?)"
)


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is committed once: digests of its key (32 bytes, with all that the key belongs to) and its body.

    ``data`` is what its answer will be made of, besides what the commit itself says; where more of that counts than
    is kept of each, it is made of the append as the commit leaves it.
    """

    key: bytes
    body: bytes
    data: bytes | Callable[[Append], bytes] = b""


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """What became of such a request. ``given_us`` is 0 where the commit gave no time."""

    body: bytes
    recorded_at_us: int
    given_us: int
    replaced: int
    unchanged: int
    data: bytes


def find_receipt(raw: sqlite3.Connection, org_id: int, key: bytes, now_us: int) -> KeptReceipt | None:
    """As of this connection's transaction; None where there is none, or it is older than a day. DamagedError."""
    with translated():
        row = raw.execute(_FIND, (org_id, key, now_us - KEPT_US)).fetchone()
    if row is None:
        return None
    if tuple(map(type, row)) != _TYPES:
        raise DamagedError("damaged", "What is kept of the request with this key is damaged.")
    return KeptReceipt(*row)


def first_of_each(raw: sqlite3.Connection, appends: list[Append], now_us: int) -> list[Append]:
    """Those whose key nobody used; the others have an error, a RepeatedError or a DamagedError."""
    taken, seen = [], set()
    for append in appends:
        if append.once is not None:
            key = append.org_id, append.once.key
            try:
                used = key in seen or find_receipt(raw, *key, now_us) is not None
            except DamagedError as exc:
                append.error = exc
                continue
            if used:
                append.error = RepeatedError("repeated", "A request with this key was taken already.")
                continue
            seen.add(key)
        taken.append(append)
    return taken


def keep_receipts(raw: sqlite3.Connection, appends: Sequence[Append], recorded_at_us: int) -> None:
    """Of those that are committed now.

    Where some can't be kept, the transaction is to be rolled back and begun anew without them: each has its error, and
    the last of these is raised. DamagedError.
    """
    failed: DamagedError | None = None
    for one in appends:
        if one.once is not None:
            numbers = recorded_at_us, one.given_us, one.replaced, one.unchanged
            data = one.once.data if isinstance(one.once.data, bytes) else one.once.data(one)
            try:
                with translated():
                    raw.execute(_KEEP, (one.org_id, one.once.key, one.once.body, *numbers, data))
            except DamagedError as exc:
                failed = one.error = exc
    if failed is not None:
        raise failed


class ReceiptSweep:
    """Takes old ones away, some at a time, beside the commits."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._next = 0.0

    def step(self, now_s: float) -> bool:
        """Whether there was anything to do; looks once a minute. ``now_s`` is monotonic."""
        if now_s < self._next:
            return False
        until = self._work.now() - KEPT_US
        query = "SELECT 1 FROM receipt WHERE recorded_at <= ? LIMIT 1"
        with self._work.database.reading() as conn:
            if driver_of(conn).execute(query, (until,)).fetchone() is None:
                self._next = now_s + _LOOK_S
                return False
        with self._work.write() as conn:
            driver_of(conn).execute(_SWEEP, (until, _SWEPT))
        return True
