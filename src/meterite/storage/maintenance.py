"""``meterite verify`` and ``meterite compact``: the whole file checked, the whole file tidied.

What this file guarantees: verify changes nothing and is ok only if SQLite finds every page whole, and every row
passes its checksum and is what the rows around it say; compact works beside running workers, and takes what was there
when it began.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

from meterite.model.errors import MalformedFileError, MeteriteError
from meterite.storage.audit import Audit
from meterite.storage.compaction import Compactor
from meterite.storage.database import sqlite_path
from meterite.storage.journal import driver
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING, AsideError

if TYPE_CHECKING:
    from collections.abc import Callable

_LINES_MAX: Final = 1000
_PROGRESS_S: Final = 2.0
_TURN_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Report:
    """``ok`` only if all holds; ``lines`` say what is wrong, and at the end what was looked at."""

    ok: bool
    lines: list[str]


def verify(database_url: str) -> Report:
    """Read every row of the file and compare it with what the others say of it."""
    path = sqlite_path(database_url)
    if not path.exists():
        return Report(ok=False, lines=[f"There is no file {path}."])
    store = SqliteStore(path)
    wrong: list[str] = []
    audit = Audit(store)
    try:
        store.open()
        for line in audit.faults():
            wrong.append(line)
            if len(wrong) == _LINES_MAX:
                wrong.append("More may be wrong; the search ended here.")
                break
    except (sqlite3.Error, DBAPIError, MeteriteError) as exc:
        cause = exc.__cause__ if isinstance(exc, MalformedFileError) else getattr(exc, "orig", None)
        wrong.append(f"The file can't be read on: {cause or exc}")
    finally:
        store.close()
    seen = (
        f"Looked at {audit.journal_rows} journal rows, {audit.runs} runs with {audit.readings} readings,"
        f" {audit.events.rows} event rows, and the states of {audit.states} metrics: "
    )
    return Report(not wrong, [*wrong, seen + ("faults were found." if wrong else "all holds.")])


def compact(database_url: str, progress: Callable[[str], None]) -> None:
    """Everything to the last tier, then the space back to the file system."""
    store = SqliteStore(sqlite_path(database_url))
    store.open()
    compactor = Compactor(store, EVERYTHING)
    try:
        compactor.only_until_now()
        _to_the_end(compactor, progress)
        free = compactor.shrink()
        progress(_summary(store, free))
    finally:
        compactor.close()
        store.close()


def _to_the_end(compactor: Compactor, progress: Callable[[str], None]) -> None:
    told = time.monotonic()
    while (worked := _attempt(compactor, progress)) is not False:
        if worked is None:  # a worker's turn
            time.sleep(_TURN_S)
        if time.monotonic() - told > _PROGRESS_S:
            told = time.monotonic()
            done = compactor.done
            progress(f"{done.encoded_readings} readings written, {done.swept_rows} old rows removed.")


def _attempt(compactor: Compactor, progress: Callable[[str], None]) -> bool | None:
    try:
        return compactor.attempt()
    except AsideError as exc:
        progress(str(exc))
        return True


def _summary(store: SqliteStore, free: int) -> str:
    with store.database.reading() as conn:
        raw = driver(conn)
        query = "SELECT count(*), coalesce(sum(count), 0), coalesce(sum(bytes), 0), count(dead_at) FROM run"
        runs, readings, size, dead = raw.execute(query).fetchone()
        (page_bytes,) = raw.execute("PRAGMA page_size").fetchone()
    each = f", {size / readings:.2f} bytes a reading" if readings else ""
    waiting = f" {dead} old runs wait until nobody reads them." if dead else ""
    back = free * page_bytes / (1 << 20)
    return f"{readings} readings in {runs} runs{each}; {back:.1f} MiB were free.{waiting}"
