"""The database's file, before anything is kept in it: whether it can be used, and where there is none, a new one.

What this file guarantees: what can't be used is one sentence that names ``database_url``, told before anything is made
beside it; a file that is there isn't changed; a new one, and so its log and its shared memory, is readable by its owner
only. The file itself isn't opened here but by SQLite: closing it would drop the locks of this process's connections.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from meterite.model.errors import SchemaTooNewError, SettingsError
from meterite.storage.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_WAIT_S: Final = 1.0
OWNER_ONLY: Final = 0o600
_LOCKS: Final = (
    ".lock",
    ".line.lock",
    ".compact.lock",
    ".streams.lock",
    ".series.lock",
    ".remind.lock",
)
_BESIDE: Final = ("-wal", "-shm", *_LOCKS)
_OURS: Final = frozenset({"clock", "org", "metric"})


def prepare_file(path: Path) -> None:
    """Make what is missing: the file, the files of its locks. SettingsError, SchemaTooNewError.

    No directory: one that isn't there is a slip, or a disk that isn't mounted.
    """
    with _told(path, "can't be made"):
        if not path.parent.is_dir():
            raise _unusable(path, f"can't be made: there is no directory {shown(path.parent)}; make it first")
        _make(path)
    check_file(path)
    for end in _LOCKS:
        with _told(path, "can't be used"):
            _make(Path(f"{path}{end}"))


def _make(path: Path) -> None:
    if os.path.lexists(path):
        return
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY))


def check_file(path: Path) -> None:
    """SettingsError where the file that is there can't be used, SchemaTooNewError where a newer program wrote it."""
    with _told(path, "can't be used"):
        try:
            found = path.stat()
        except FileNotFoundError:
            raise _unusable(path, "leads to no file" if path.is_symlink() else "isn't there") from None
    if stat.S_ISDIR(found.st_mode):
        raise _unusable(path, "is a directory; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "is no file")
    for one in (path, *(Path(f"{path}{end}") for end in _BESIDE)):
        if one.exists() and not _may(one, os.R_OK | os.W_OK):
            raise _unusable(one, "can't be read and written by this user")
    if not _may(path.parent, os.W_OK | os.X_OK):
        raise _unusable(path.parent, "is a directory that can't be written by this user")
    if found.st_size:
        _check_content(path)


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _check_content(path: Path) -> None:
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_WAIT_S)) as conn:
            conn.isolation_level = None
            conn.execute("BEGIN")  # another worker may be making the tables: both or neither are to be seen
            (revision,) = conn.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:
        return  # locked, or made ready by another process: who opens it waits, and tells
    except sqlite3.DatabaseError as exc:
        raise _unusable(path, f"is no SQLite database, or a damaged one ({exc})") from exc
    ours = tables >= _OURS if revision else not tables
    if not ours:
        raise _unusable(path, "is a SQLite database of another program; name another file")
    if revision > SCHEMA_REVISION:
        raise SchemaTooNewError(
            "schema-too-new",
            f"{shown(path)} was written by a newer Meterite (schema {revision}, this one knows {SCHEMA_REVISION}).",
        )


@contextlib.contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """The system's refusal as a sentence."""
    try:
        yield
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise _unusable(path, f"{what}: {why[:1].lower()}{why[1:]}") from exc


def _unusable(path: Path, why: str) -> SettingsError:
    return SettingsError("database-url", f"database_url can't be used: {shown(path)} {why}.")


def shown(path: Path) -> str:
    """As a terminal may show it."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(path))
