"""Rows out of a file that may be damaged.

What this file guarantees: where the bytes of a row are at fault, whether SQLite says so, or a blob came as a text, or a
number isn't one, the answer is :class:`DamagedError`, and only that row is lost; a full disk or a locked file is an
error of its own, as everywhere.
"""

from __future__ import annotations

import sqlite3
import struct
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from meterite.model.errors import DamagedError
from meterite.storage.journalrow import journal_checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

JOURNAL_NAMES: Final = (
    "id, org, series_first, series_last, at_first, at_last, count, recorded_at, data, checksum"
)
"""The order in which :func:`checked_data` takes a journal row."""
_CODES: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}
_ANYTHING: Final = (-(1 << 63), (1 << 63) - 1)


def means_damage(exc: Exception) -> bool:
    """Whether an error of the driver's says that the file's bytes are wrong."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    if not isinstance(cause, sqlite3.Error):
        return False
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:  # the driver's own: a text that isn't UTF-8 where a blob was written
        return "could not decode" in str(cause).lower()
    return code & 0xFF in _CODES


def fetch_row(raw: sqlite3.Connection, query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
    """The first row, if there is any. DamagedError."""
    row: tuple[Any, ...] | None
    try:
        row = raw.execute(query, parameters).fetchone()
    except sqlite3.Error as exc:
        if not means_damage(exc):
            raise
    else:
        return row
    return _fetch_bytes(raw, query, parameters)


def _fetch_bytes(raw: sqlite3.Connection, query: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
    """The same, texts as their bytes: one flipped bit calls a blob a text, and its bytes are right all the same."""
    raw.text_factory = bytes
    try:
        row: tuple[Any, ...] | None = raw.execute(query, parameters).fetchone()
    except sqlite3.Error as exc:
        if not means_damage(exc):
            raise
        raise DamagedError("damaged", f"A stored row can't be read: {exc}.") from exc
    finally:
        raw.text_factory = str
    return row


def fetch_blob(raw: sqlite3.Connection, query: str, parameters: Sequence[Any]) -> bytes | None:
    """The first column of the first row; None where there is no row. DamagedError."""
    row = fetch_row(raw, query, parameters)
    return None if row is None else as_blob(row[0])


def as_blob(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise DamagedError("damaged", "A stored row holds no bytes.")


def checked_data(row: Sequence[Any]) -> bytes:
    """The blob of a journal row, with the columns of ``JOURNAL_NAMES``. DamagedError."""
    if not _is_whole(row):
        row = (*row[:8], as_blob(row[8]), row[9])
        if not _is_whole(row):
            raise DamagedError("damaged", "A stored row fails its checksum.")
    data: bytes = row[8]
    return data


def _is_whole(row: Sequence[Any]) -> bool:
    try:
        return bool(journal_checksum(*row[:9]) == row[9])
    except (TypeError, struct.error):  # no number, or a text, where SQLite was given something else
        return False


def fetch_journal(
    raw: sqlite3.Connection,
    query: str,
    ids: Sequence[int],
    parameters: Sequence[Any],
    damaged: Callable[[int, Sequence[int], str], None],
) -> list[tuple[Any, ...]]:
    """Journal rows of these ids, in their order. DamagedError where one can't be read, and ``damaged`` learns which.

    ``query`` has ``{ids}`` where its question marks belong, before those of the parameters.
    """
    try:
        return raw.execute(query.format(ids=",".join("?" * len(ids))), (*ids, *parameters)).fetchall()
    except sqlite3.Error as exc:
        if not means_damage(exc):
            raise
    found = []
    for row_id in ids:
        try:
            row = fetch_row(raw, query.format(ids="?"), (row_id, *parameters))
        except DamagedError as exc:
            damaged(row_id, _bounds_of(raw, row_id), exc.message)
            raise
        if row is not None:
            found.append(row)
    return found


def _bounds_of(raw: sqlite3.Connection, row_id: int) -> Sequence[int]:
    """Of a row whose blob can't be read; what can't be known may be anything."""
    query = "SELECT series_first, series_last, at_first, at_last FROM journal WHERE id = ?"
    try:
        row = fetch_row(raw, query, (row_id,))
    except DamagedError:
        row = None
    return sane_bounds(row or ())


def sane_bounds(bounds: Sequence[Any]) -> Sequence[int]:
    """What a damaged row may have held, as its own columns have it where they can be believed."""
    if len(bounds) == 4 and all(isinstance(bound, int) for bound in bounds):
        first, last, at_first, at_last = bounds
        if first <= last and at_first <= at_last:
            return tuple(bounds)
    return _ANYTHING * 2
