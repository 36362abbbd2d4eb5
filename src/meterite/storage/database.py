"""One SQLite file: its connections, its one writer at a time, its migrations, its checkpoints.

Guarantees:
- a write transaction is held by one thread of one process; the others wait in line on lock files (``flock``), which
  is fair where SQLite's busy handler isn't. Nobody waits for the turn longer than ``LOCK_WAIT_S``, and who has it waits
  for a program that doesn't know the lock file (``sqlite3``, a backup) no longer than ``BUSY_WAIT_S``, since all others
  wait behind;
- a committed transaction is on disk (WAL, ``synchronous=FULL``);
- no commit begins the log anew while a checkpoint runs, which SQLite up to 3.51.2 doesn't survive
  (sqlite.org/wal.html#walresetbug): a short one runs under the same lock, one with much to do beside the writers, while
  a reader of our own keeps the log from its beginning;
- the driver's errors leave here as :class:`UnavailableError`, or :class:`MalformedFileError` where SQLite finds its own
  pages damaged.

Everything here blocks; call it from a worker thread. Connections belong to the thread that opened them and are opened
after a fork, never before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from meterite.model.errors import MalformedFileError, SchemaTooNewError, SettingsError, UnavailableError
from meterite.storage.locks import FileLock
from meterite.storage.schema import SCHEMA_REVISION
from meterite.storage.wal import LogSize

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_WAIT_S: Final = 1.0
PAGE_BYTES: Final = 8192
"""Of a file that is made; one keeps for ever what it was made with."""
CHECKPOINT_BYTES: Final = 4 << 20
LOCKED_CHECKPOINT_BYTES: Final = 8 << 20
"""As much is moved while writers wait; more than that, beside them."""
WAL_REPORTED_BYTES: Final = 256 << 20
WAL_BYTES_MAX: Final = 1 << 30
_EXAMPLE: Final = "must be sqlite:///file or sqlite:////absolute/file, such as sqlite:////tmp/x.db"
_FULL: Final = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO}
_MALFORMED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOOK: Final = "SELECT seq FROM clock"


def sqlite_path(database_url: str) -> Path:
    """The file that ``sqlite:///relative`` or ``sqlite:////absolute`` names. SettingsError for anything else."""
    try:
        url = make_url(database_url)
    except Exception as exc:
        raise SettingsError(
            "database-url", f"database_url is not an address of a database: it {_EXAMPLE}"
        ) from exc
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise SettingsError("database-url", f"database_url {_EXAMPLE}")
    return Path(url.database).absolute()


def translate(exc: Exception) -> UnavailableError | MalformedFileError | None:
    """What a driver's error means to the user; None where it is our bug."""
    cause = exc.orig if isinstance(exc, DBAPIError) else exc
    if isinstance(cause, OSError):
        return _disk_full() if cause.errno in _FULL else None
    if not isinstance(cause, sqlite3.Error):
        return None
    if getattr(cause, "sqlite_errorcode", 0) & 0xFF in _MALFORMED:
        return MalformedFileError(
            "damaged", f"The database's file is damaged ({cause}); meterite verify tells where."
        )
    text = str(cause).lower()
    if "locked" in text or "busy" in text:
        return UnavailableError("database-locked", "Another program holds the database; try again.")
    if "full" in text or "disk i/o" in text or "unable to open" in text or "readonly" in text:
        return _disk_full()
    return None


def _disk_full() -> UnavailableError:
    return UnavailableError("disk-full", "The disk takes no more; nothing was written.", retry_after_s=10)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, DBAPIError, OSError) as exc:
        known = translate(exc)
        if known is None:
            raise
        raise known from exc


class Database:
    """Connections by thread, the writer's turn, checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(Path(f"{path}.lock"))
        self._log = LogSize(f"{path}-wal", Path(f"{path}.lock"))
        self._local = threading.local()
        self._connections: list[Connection] = []
        self._guard = threading.Lock()
        self._hot_waiting = 0
        self._engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        event.listen(self._engine, "connect", _on_connect)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY_WAIT_S, check_same_thread=False)

    def open(self) -> bool:
        """Make or migrate the file, and whether it was made; SchemaTooNewError where a newer program wrote it."""
        with translated():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(60.0)
            try:
                made = self._migrate(self.connection())
                # Of a file that VACUUM INTO made: it keeps everything but this, without which readers block writers.
                self.connection().exec_driver_sql("PRAGMA journal_mode=WAL")
                return made
            finally:
                self._lock.release()

    def _migrate(self, conn: Connection) -> bool:
        revision = conn.exec_driver_sql("PRAGMA user_version").scalar_one()
        if revision == SCHEMA_REVISION:
            return False
        if revision > SCHEMA_REVISION:
            raise SchemaTooNewError(
                "schema-too-new",
                f"{self.path} was written by a newer Meterite (schema {revision}, this one knows {SCHEMA_REVISION}).",
            )
        from meterite.storage.migrate import upgrade

        if revision == 0:
            conn.exec_driver_sql(f"PRAGMA page_size={PAGE_BYTES}")
            conn.exec_driver_sql("PRAGMA auto_vacuum=INCREMENTAL")
            conn.exec_driver_sql("PRAGMA journal_mode=WAL")
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            upgrade(conn)
            conn.exec_driver_sql(f"PRAGMA user_version={SCHEMA_REVISION}")
            conn.exec_driver_sql("COMMIT")
        except BaseException:
            conn.exec_driver_sql("ROLLBACK")
            raise
        made: bool = revision == 0
        return made

    def connection(self) -> Connection:
        """This thread's connection."""
        conn: Connection | None = getattr(self._local, "connection", None)
        if conn is None:
            conn = self._engine.connect()
            self._local.connection = conn
            with self._guard:
                self._connections.append(conn)
        return conn

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read transaction: a snapshot that ends with the block, well under 5 s.

        Within this thread's transaction, that one.
        """
        with translated():
            conn = self.connection()
            if driver_in_transaction(conn):
                yield conn
                return
            conn.exec_driver_sql("BEGIN")
            try:
                yield conn
            except (
                BaseException
            ):  # where the file is damaged, COMMIT fails too, and would hide what was wrong
                _roll_back(conn)
                raise
            conn.exec_driver_sql("COMMIT")

    @contextlib.contextmanager
    def writing(self, *, maintenance: bool = False) -> Iterator[Connection]:
        """The one write transaction; committed, and on disk, when the block ends without an error.

        Maintenance lets requests go first, for 100 ms at most.
        """
        with translated():
            conn = self.connection()
            self._take_turn(maintenance=maintenance)
            try:
                raw = driver_of(conn)
                raw.execute("BEGIN IMMEDIATE")
                try:
                    yield conn
                    raw.execute("COMMIT")
                except BaseException:
                    _roll_back(conn)
                    raise
            finally:
                self._lock.release()

    def _take_turn(self, *, maintenance: bool) -> None:
        if maintenance:
            until = time.monotonic() + 0.1
            while self._hot_waiting and time.monotonic() < until:
                time.sleep(0.001)
            self._lock.acquire()
            return
        with self._guard:
            self._hot_waiting += 1
        try:
            self._lock.acquire()
        finally:
            with self._guard:
                self._hot_waiting -= 1

    def wal_bytes(self) -> int:
        """Of the log's file, which keeps its size when its content has been moved."""
        return self._log.file_bytes()

    def wal_bytes_left(self) -> int:
        """Of the log's content that isn't in the database's file yet."""
        with translated():
            return self._log.left_bytes()

    def checkpoint(self, *, truncate: bool = False) -> float:
        """Move the WAL's pages into the file; TRUNCATE gives up at once where a reader holds it.

        Answers for how many seconds writers were kept out.
        """
        with translated():
            held = 0.0
            if self._log.left_bytes() > LOCKED_CHECKPOINT_BYTES:
                try:
                    held = self._checkpoint_beside()
                except sqlite3.OperationalError:  # a disk that takes no more page: then while others wait
                    return self._checkpoint_locked(truncate=truncate)
                if self._log.left_bytes() > LOCKED_CHECKPOINT_BYTES:
                    return held  # a reader holds the rest, and might leave in the midst of a locked one
            return max(held, self._checkpoint_locked(truncate=truncate))

    def _checkpoint_locked(self, *, truncate: bool) -> float:
        conn = self.connection()
        self._take_turn(maintenance=True)
        begun = time.monotonic()
        try:
            if truncate:
                conn.exec_driver_sql("PRAGMA busy_timeout=0")
            self._move("TRUNCATE" if truncate else "PASSIVE")
        finally:
            if truncate:
                conn.exec_driver_sql(f"PRAGMA busy_timeout={int(BUSY_WAIT_S * 1000)}")
            self._lock.release()
        return time.monotonic() - begun

    def _checkpoint_beside(self) -> float:
        """Move what is in the log by now, while others commit behind it."""
        with contextlib.closing(self._connect()) as pin:
            pin.isolation_level = None
            pin.execute(_LOOK).fetchone()  # the schema is read before the lock is taken
            self._take_turn(maintenance=True)
            begun = time.monotonic()
            try:
                # Who reads a log that is in the file altogether holds nothing: one page that isn't makes sure.
                _write_a_page(self.connection())
                pin.execute("BEGIN")
                pin.execute(_LOOK).fetchone()
            finally:
                self._lock.release()
            held = time.monotonic() - begun
            self._move("PASSIVE")
        self._sync()
        return held

    def _sync(self) -> None:
        """Bring to the disk what a checkpoint wrote that didn't reach the log's end: SQLite leaves that to the next.

        By a descriptor of SQLite's own: one that we open would drop SQLite's locks when we close it.
        """
        file = self.path.stat()
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 -- numbers, no paths
            with contextlib.suppress(OSError):  # closed since
                if os.path.samestat(os.fstat(int(name)), file):
                    os.fsync(int(name))
                    return

    def _move(self, mode: str) -> None:
        _, logged, moved = self.connection().exec_driver_sql(f"PRAGMA wal_checkpoint({mode})").one()
        if logged > 0:  # also where a reader was in the way; not where another checkpoint was
            with contextlib.suppress(
                OSError
            ):  # a disk that is full: without the note we know less, and no more
                self._log.note_moved(moved)

    def close(self) -> None:
        with self._guard:
            connections, self._connections = self._connections, []
        for conn in connections:
            conn.close()
        self._engine.dispose()
        self._lock.close()


def driver_of(conn: Connection) -> sqlite3.Connection:
    """The driver's own connection: a hot commit makes five statements, and each costs a tenth there."""
    raw = conn.connection.dbapi_connection
    assert raw is not None
    return raw  # type: ignore[return-value]  # SQLAlchemy types it as any driver's


def driver_in_transaction(conn: Connection) -> bool:
    return driver_of(conn).in_transaction


def _write_a_page(conn: Connection) -> None:
    """A commit that changes nothing. An UPDATE to the same values writes no page, this does."""
    raw = driver_of(conn)
    raw.execute("BEGIN IMMEDIATE")
    try:
        (revision,) = raw.execute("PRAGMA user_version").fetchone()
        raw.execute(f"PRAGMA user_version={int(revision)}")
        raw.execute("COMMIT")
    except BaseException:
        _roll_back(conn)
        raise


def _roll_back(conn: Connection) -> None:
    with contextlib.suppress(DBAPIError):  # SQLite rolls back by itself on some errors (disk full)
        conn.exec_driver_sql("ROLLBACK")


def _on_connect(dbapi: sqlite3.Connection, _record: object) -> None:
    dbapi.isolation_level = None
    for pragma in (
        f"busy_timeout={int(BUSY_WAIT_S * 1000)}",
        "synchronous=FULL",
        "wal_autocheckpoint=0",
        "mmap_size=0",
        "cache_size=-8192",
        "foreign_keys=OFF",
        "secure_delete=OFF",  # some builds have it on, and write every freed page as zeros
    ):
        dbapi.execute(f"PRAGMA {pragma}")
