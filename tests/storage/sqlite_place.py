"""One SQLite file for the tests of a store."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from meterite.storage.compaction import Compactor
from meterite.storage.maintenance import verify
from meterite.storage.store import SqliteStore
from meterite.storage.work import EVERYTHING, Limits
from storage.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERIOR = {2, 5}
"""What a page that names others begins with."""
MEMORY = Path("/dev/shm")  # so many commits take their time on a disk
SMALL = {"journal_readings": 1, "fan_in": 2, "inputs_max": 3}
SMALL |= dict.fromkeys(("tombstone_delay_s", "quiet_s", "look_s", "idle_s"), 0)
LIMITS = {
    "small": Limits(**SMALL),
    "prefixes": Limits(**SMALL, prefix_readings=3, prefix_rows=2),
    "late": Limits(**SMALL | {"tombstone_delay_s": 1e9, "fan_in": 100}, late_s=1e9),
    "everything": EVERYTHING,
}


class SqlitePlace(Place):
    ways = sorted(LIMITS)

    def __init__(self, path: Path):
        self.path = path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def store(self, clock):
        return SqliteStore(self.path, clock=clock)

    def compaction(self, store, way="everything"):
        return Compactor(store, LIMITS[way])

    def damage(self, org_id):
        """A row group where there is one, else a row of the journal."""
        with closing(sqlite3.connect(self.path)) as conn:
            found = [
                (table, *row)
                for table in ("segment", "journal")
                for row in conn.execute(
                    f"SELECT id FROM {table} WHERE org = ? ORDER BY id LIMIT 1", (org_id,)
                )
            ]
        self.flip_byte(*found[0])

    def flip_byte(self, table, row_id, byte=-3):
        with closing(sqlite3.connect(self.path)) as conn:
            (data,) = conn.execute(f"SELECT data FROM {table} WHERE id = ?", (row_id,)).fetchone()
            changed = bytearray(data)
            changed[byte] ^= 0x10
            conn.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (bytes(changed), row_id))
            conn.commit()

    def faults(self):
        report = verify(self.url)
        return [] if report.ok else report.lines


def overwrite_page(path: Path, name: str, *, last: bool = False) -> None:
    """The first page of a table or an index, by somebody who doesn't know SQLite; or the ``last`` one below it."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page_bytes,) = conn.execute("PRAGMA page_size").fetchone()
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    with path.open("r+b") as file:
        if last:
            file.seek((page - 1) * page_bytes)
            head = file.read(12)
            assert head[0] in INTERIOR, "it has one page"
            page = int.from_bytes(head[8:], "big")
        file.seek((page - 1) * page_bytes)
        file.write(b"\xaa" * page_bytes)


@functools.cache
def _empty_database() -> bytes:
    """Making the tables takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "m.db")
        store.open()
        store.close()
        return (Path(folder) / "m.db").read_bytes()


@contextmanager
def sqlite_place() -> Iterator[SqlitePlace]:
    """A new one, in memory where there is room for files."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None) as folder:
        place = SqlitePlace(Path(folder) / "m.db")
        place.path.write_bytes(_empty_database())
        yield place
