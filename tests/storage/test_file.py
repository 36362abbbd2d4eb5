"""The database's file before it is opened: what can't be used is one sentence, and nothing is left beside it."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from meterite.model.columns import Single
from meterite.model.errors import SchemaTooNewError, SettingsError
from meterite.model.metric import MetricSpec
from meterite.storage.file import check_file, prepare_file
from meterite.storage.interface import Append
from meterite.storage.schema import SCHEMA_REVISION
from meterite.storage.store import SqliteStore

NOBODY = 65534


@pytest.fixture
def place():
    """A directory of somebody who isn't root, as whom the test runs: root may read and write everything."""
    with tempfile.TemporaryDirectory() as directory:
        was_root = os.geteuid() == 0
        if was_root:
            os.chown(directory, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(directory)
        finally:
            if was_root:
                os.seteuid(0)


def modes(directory):
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()}


def refused(path, make=prepare_file):
    with pytest.raises(SettingsError) as caught:
        make(path)
    message = caught.value.message
    assert message.startswith("database_url can't be used: ")
    assert "\n" not in message
    return message


def made(path):
    """A store with a metric and a reading, left as a killed process leaves it: all of it still in the log."""
    store = SqliteStore(path)
    prepare_file(path)
    store.open()
    org_id, metric = store.catalog.org_id("org"), store.catalog.create("org", MetricSpec(code="m", name="m"))
    store.commit([Append(org_id, store.catalog.changed(0)[0], Single(metric.series_first, 1, 1.0))])
    return store


def test_all_files_are_the_owners_only(tmp_path, monkeypatch):
    """The file, its log, its shared memory and its locks: mode 0600, whatever the umask."""
    (tmp_path / "a").mkdir()
    before = os.umask(0)
    try:
        store = made(tmp_path / "a" / "m.db")
        store.view(1).close()
        compaction = store.compaction()
        compaction.run_once()
        found = modes(tmp_path / "a")
        compaction.close()
        store.close()
    finally:
        os.umask(before)
    assert {"m.db", "m.db-wal", "m.db-shm", "m.db.lock"} <= set(found)
    assert set(found.values()) == {0o600}


def test_a_file_that_is_there_stays_as_it_is(tmp_path):
    """Neither its mode nor its bytes change, nor those of a log that a killed process left; it is found usable."""
    path = tmp_path / "m.db"
    store = made(path)
    path.chmod(0o640)
    copies = tmp_path / "copy"
    copies.mkdir()
    for end in ("", "-wal"):  # as it was at this moment: nobody closed it
        Path(f"{copies / 'm.db'}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    before = {one.name: one.read_bytes() for one in copies.iterdir()}
    assert len(before["m.db-wal"])
    for _ in range(2):
        check_file(copies / "m.db")
        check_file(path)  # while it is open
    assert {name: (copies / name).read_bytes() for name in before} == before
    assert modes(tmp_path)["m.db"] == 0o640
    store.close()


def test_a_newer_file(tmp_path):
    """Told as such, also where only the log knows."""
    path = tmp_path / "m.db"
    store = made(path)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(f"PRAGMA user_version={SCHEMA_REVISION + 1}")
        with pytest.raises(SchemaTooNewError, match="written by a newer Meterite"):
            check_file(path)
    store.close()
    with pytest.raises(SchemaTooNewError, match="written by a newer Meterite"):
        prepare_file(path)


@pytest.mark.parametrize("revision", [0, 1, 99])
def test_another_programs_database(tmp_path, revision):
    """The original's, say: neither migrated nor called a newer one of ours; nothing is made beside it."""
    path = tmp_path / "m.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE metric (id INTEGER)")
        conn.execute(f"PRAGMA user_version={revision}")
    assert "another program" in refused(path)
    assert list(modes(tmp_path)) == ["m.db"]


@pytest.mark.parametrize("content", [b"no database", b"x" * 10_000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_what_is_no_database(tmp_path, content):
    """A sentence, not SQLite's error; the file stays."""
    path = tmp_path / "m.db"
    path.write_bytes(content)
    assert "is no SQLite database" in refused(path)
    assert path.read_bytes() == content
    assert list(modes(tmp_path)) == ["m.db"]


def test_what_is_no_file(tmp_path):
    """A directory, a pipe, a socket: told, and never waited for; nothing is left beside them."""
    assert "is a directory" in refused(tmp_path)
    assert not Path(f"{tmp_path}.lock").exists()
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in refused(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "socket"))
        assert "is no file" in refused(tmp_path / "socket")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert "gone leads to no file." in refused(tmp_path / "gone")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["gone", "pipe", "socket"]


def test_what_can_not_be_made(tmp_path):
    """Below a file, below what the system makes by itself, with a name that is too long or none at all."""
    (tmp_path / "file").write_text("x")
    assert "can't be made" in refused(tmp_path / "file" / "m.db")
    assert "can't be made" in refused(tmp_path / "file" / "deeper" / "m.db")
    assert "can't be made" in refused(Path("/proc/nowhere/m.db"))
    assert "can't be made" in refused(Path("/proc/m.db"))
    assert "name too long" in refused(tmp_path / ("x" * 300))
    assert "can't be made" in refused(tmp_path / "a\0b")
    assert "not-there.db isn't there." in refused(tmp_path / "not-there.db", check_file)
    assert f"there is no directory {tmp_path}/a/b; make it first." in refused(tmp_path / "a" / "b" / "m.db")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def test_what_may_not_be_written(place):
    """The file, its directory, a lock that somebody else made."""
    path = place / "m.db"
    made(path).close()
    path.chmod(0o400)
    assert "can't be read and written" in refused(path)
    path.chmod(0o600)
    lock = Path(f"{path}.lock")
    lock.chmod(0)
    assert "m.db.lock can't be read and written" in refused(path)
    lock.chmod(0o600)
    place.chmod(0o500)
    assert "directory that can't be written" in refused(path)
    place.chmod(0o700)
    check_file(path)


def test_several_at_once_make_one(tmp_path):
    """Whoever comes second finds the first one's file."""
    path = tmp_path / "m.db"
    prepare_file(path)
    prepare_file(path)
    assert path.stat().st_size == 0
