"""The command line as it is called: what can't be used is one line, and the exit status says so."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from meterite.settings import Settings
from meterite.storage.schema import SCHEMA_REVISION
from meterite.storage.store import SqliteStore

ROOT = Path(__file__).resolve().parent.parent.parent
SRC = ROOT / "src"
GUIDE = ROOT / "docs" / "guide.md"
SERVE = ("serve", "--port", "0")
SECRET = "hush-hush-123456"


def meterite(directory, *args, **environ):
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    environ = {"API_TOKENS": f'{{"{SECRET}": "org"}}'} | environ
    return subprocess.run(
        [sys.executable, "-m", "meterite", *args],
        cwd=directory,
        env=kept | {"PYTHONPATH": str(SRC)} | {name: value for name, value in environ.items() if value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_one_line(done, *said):
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("meterite: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in said), done.stderr
    assert SECRET not in done.stderr


@pytest.fixture
def newer(tmp_path):
    """A file that the next version wrote."""
    path = tmp_path / "meterite.db"
    with closing(sqlite3.connect(path)) as conn:
        for table in ("clock", "org", "metric"):
            conn.execute(f"CREATE TABLE {table} (id INTEGER)")
        conn.execute(f"PRAGMA user_version={SCHEMA_REVISION + 1}")
    return tmp_path


@pytest.mark.parametrize(
    "args", [SERVE, (*SERVE, "--workers", "2"), (*SERVE, "--reload"), ("verify",), ("compact",)]
)
def test_a_newer_file(newer, args):
    """Whatever was to be done with it, and however many processes were to do it."""
    is_one_line(meterite(newer, *args), "was written by a newer Meterite")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////proc/nowhere/m.db", "/proc/nowhere/m.db can't be made"),
        ("sqlite:///.", "is a directory; name a file in it"),
        ("sqlite:///no/such/m.db", "no/such; make it first"),
        ("sqlite:///text", "is no SQLite database"),
        ("postgresql://x/y", "database_url must be sqlite:///file"),
        ("nothing", "database_url is not an address of a database"),
        ("/tmp/x.db", "absolute/file, such as sqlite:////tmp/x.db"),
    ],
)
def test_a_file_that_can_not_be_used(tmp_path, url, said):
    """The setting is named, and nothing is left behind."""
    (tmp_path / "text").write_text("not a database")
    is_one_line(meterite(tmp_path, *SERVE, "--workers", "2", DATABASE_URL=url), said)
    assert [one.name for one in tmp_path.iterdir()] == ["text"]


def test_tokens_over_several_lines(tmp_path):
    """No warnings of a library before the line."""
    (tmp_path / ".env").write_text(f'api_tokens={{\n  "{SECRET}": "one",\n  "b": "two"\n}}\n')
    is_one_line(meterite(tmp_path, *SERVE, API_TOKENS=""), "api_tokens in .env can't go on in line 2")


def test_a_port_that_is_taken(tmp_path):
    """Told before ``.env`` is written and an address is printed."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = meterite(tmp_path, "serve", "--port", str(port), API_TOKENS="")
    is_one_line(done, f"port {port}, is taken", f"--port {port + 1}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args", [("verify",), ("compact",), ("events", "tail", "--no-follow"), ("events", "retry", "--dead")]
)
def test_a_file_that_is_not_there(tmp_path, args):
    """A setting that can't be used, as for any other command; none is made."""
    is_one_line(
        meterite(tmp_path, *args), f"database_url can't be used: {tmp_path / 'meterite.db'} isn't there."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_verify_leaves_beside_a_copy(tmp_path):
    """The lock files that the guide names, and nothing else; without them the copy is as good."""
    (tmp_path / "made").mkdir()
    store = SqliteStore(tmp_path / "made" / "meterite.db")
    with closing(store):
        store.open()
        store.catalog.org_id("one")
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(store.database.path)) as conn:
        conn.execute("VACUUM INTO ?", [str(copy)])
    for _ in range(2):
        assert meterite(tmp_path, "verify", DATABASE_URL="sqlite:///copy.db").returncode == 0
        left = {one.name for one in tmp_path.iterdir()} - {copy.name, "made"}
        assert left == {"copy.db.lock", "copy.db.line.lock", "copy.db.streams.lock"}
        assert all(f"`{name}`" in GUIDE.read_text() for name in left)
        for name in left:
            (tmp_path / name).unlink()


def test_lines_are_whole_where_nobody_looks(tmp_path):
    """In a pipe no line is folded, however long the path."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    empty = deep / "meterite.db"
    empty.touch()
    verified, compacted = meterite(deep, "verify"), meterite(deep, "compact")
    for done in (verified, compacted):
        assert (done.returncode, done.stderr) == (0, "")
    assert verified.stdout.count("\n") == 1
    assert verified.stdout.endswith(" all holds.\n")
    runs, file = compacted.stdout.splitlines()
    assert runs.startswith("0 readings in 0 runs; ")
    assert file.startswith("The file has 0.")


def test_as_a_module(tmp_path):
    """``python -m meterite`` is ``meterite``."""
    done = meterite(tmp_path, "--help")
    assert done.returncode == 0
    assert "Usage: python -m meterite" in done.stdout


def test_the_version_says_which_decoders_run(tmp_path):
    """Where no compiler was at hand, that is how one learns of it."""
    done = meterite(tmp_path, "version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(
        "decoders of line protocol and remote write: compiled\njudge of limits: compiled\n"
    )
