"""Files of older revisions, and that the migrations make what schema.py says."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import astuple

import numpy as np
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from meterite.model.columns import Batch, Columns
from meterite.model.event import EventType
from meterite.model.event_row import Document
from meterite.model.metric import MetricSpec, Notify
from meterite.model.standing import NOTHING
from meterite.storage import migrate
from meterite.storage.event_rows import Names, encode_events
from meterite.storage.journalrow import encode_journal, journal_checksum
from meterite.storage.live_runs import RUN_COLUMNS, read_live_runs
from meterite.storage.maintenance import verify
from meterite.storage.rowgroup import directory_entry, encode_directory, encode_row_group
from meterite.storage.schema import EVENT_VIEWS, SCHEMA_REVISION, metadata
from meterite.storage.store import SqliteStore
from storage.place import EVERYTHING as WHOLE


def make(path):
    store = SqliteStore(path)
    store.open()
    return store


def make_first(path, revision=1):
    """A file as revision 1 made it, or another."""
    store = SqliteStore(path)
    conn = store.database.connection()
    conn.exec_driver_sql("PRAGMA journal_mode=WAL")
    conn.exec_driver_sql("BEGIN")
    config = Config()
    config.set_main_option("script_location", str(migrate.Path(migrate.__file__).parent / "migrations"))
    config.attributes["connection"] = conn
    command.upgrade(config, f"{revision:04}")
    conn.exec_driver_sql(f"PRAGMA user_version={revision}")
    conn.exec_driver_sql("COMMIT")
    store.close()


def test_the_migrations_make_what_the_schema_says(tmp_path):
    """No table, column or index differs."""
    store = make(tmp_path / "m.db")
    conn = store.database.connection()
    assert not compare_metadata(MigrationContext.configure(conn), metadata)
    made = dict(conn.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all())
    store.close()
    assert {name: made[name] for name in EVENT_VIEWS} == EVENT_VIEWS
    with closing(sqlite3.connect(":memory:")) as raw:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import StaticPool

        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        metadata.create_all(engine)
        wanted = dict(raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    for name, text in wanted.items():
        if name.startswith("sqlite_"):
            continue
        columns = [re.sub(r"[\s,\"]+", " ", c).strip() for c in (text, made[name])]
        assert ("WITHOUT ROWID" in columns[0]) == ("WITHOUT ROWID" in columns[1]), name
        assert columns[0].partition("WHERE")[2] == columns[1].partition("WHERE")[2], name


def test_a_file_of_revision_1_keeps_its_data(tmp_path):
    """Metrics get what is the default; all else stays."""
    path = tmp_path / "m.db"
    make_first(path)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("INSERT INTO org (id, name) VALUES (1, 'here')")
        conn.execute(
            "INSERT INTO metric (org, code, name, min_reading, max_reading, on_conflict, active, series_next, version)"
            " VALUES (1, 'A', 'a', 0, 5, 'last', 1, 1, 0)"
        )
        conn.execute('INSERT INTO series VALUES (1 << 32 | 1, 1, 1, \'{"host":"a"}\')')
        batch = Batch(np.array([1 << 32 | 1]), np.zeros(2, np.uint32), np.array([5, 6]), np.array([7.5, 8.5]))
        data = encode_journal(batch)
        row = (1 << 16, 1, 1 << 32 | 1, 1 << 32 | 1, 5, 6, 2, 77)
        conn.execute(
            "INSERT INTO journal VALUES (?,?,?,?,?,?,?,?,?,?)",
            (*row, journal_checksum(*row, data) & 0xFFFFFFFF, data),  # the lower half is what there was
        )
        conn.commit()
    store = make(path)
    metric = store.catalog.metric("here", "A")
    with closing(store.view(1)) as view:
        (columns,) = view.scan(store.span(metric, None, None, (("host", "a"),)))
        assert (columns.at_us.tolist(), columns.values.tolist()) == ([5, 6], [7.5, 8.5])
        assert view.recorded_at(columns.seq).tolist() == [77, 77]
    assert store.events.select("here").events == []
    assert metric.spec == MetricSpec(code="A", name="a", min_reading=0.0, max_reading=5.0)
    assert metric.spec.notify is Notify.CHANGE
    store.close()
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA user_version").fetchone() == (SCHEMA_REVISION,)
        assert conn.execute("SELECT version_num FROM alembic_version").fetchall() == [("0006",)]
    assert verify(f"sqlite:///{path}").ok


def test_events_of_a_file_of_revision_4(tmp_path):
    """Lie in a table of another name, and are found."""
    path = tmp_path / "m.db"
    make_first(path, 4)
    document = Document(EventType.DEAD, 0, {"a": 1}, "x")
    (row,) = encode_events(NOTHING, [document], Names())
    *bounds, checksum, data = row.columns(7 << 16, 1, 99)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("INSERT INTO org (id, name) VALUES (1, 'here')")
        conn.execute("UPDATE clock SET seq = 7, recorded_at = 99")
        conn.execute(
            "INSERT INTO event VALUES (?,?,?,?,?,?,?,?,?)", (7 << 16, 1, *bounds, 99, checksum, data)
        )
        conn.commit()
    store = make(path)
    assert [event.subject for event in store.events.select("here").events] == ["x"]
    store.close()
    assert verify(f"sqlite:///{path}").ok


def test_events_of_a_file_of_revision_5(tmp_path):
    """Beside readings, where an index had them, and apart: in the order of their rows."""
    path = tmp_path / "m.db"
    make_first(path, 5)
    batch = Batch(np.array([1 << 32]), np.zeros(1, np.uint32), np.array([5]), np.array([7.5]))
    data = encode_journal(batch)
    bounds = (6 << 16, 1, 1 << 32, 1 << 32, 5, 5, 1, 99)
    (beside,) = encode_events(NOTHING, [Document(EventType.DEAD, 0, {}, "beside")], Names())
    (apart,) = encode_events(NOTHING, [Document(EventType.DEAD, 0, {}, "apart")], Names())
    *own, checksum, events = apart.columns(7 << 16, 1, 99)
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("INSERT INTO org (id, name) VALUES (1, 'here')")
        conn.execute("UPDATE clock SET seq = 7, recorded_at = 99")
        conn.execute(
            "INSERT INTO event_row VALUES (?,?,?,?,?,?,?,?,?)", (7 << 16, 1, *own, 99, checksum, events)
        )
        row = (*bounds, journal_checksum(*bounds, data), data, *beside.columns(6 << 16, 1, 99))
        conn.execute(f"INSERT INTO journal VALUES ({','.join('?' * len(row))})", row)
        conn.commit()
    store = make(path)
    assert [event.subject for event in store.events.select("here").events] == ["beside", "apart"]
    store.close()


def test_runs_of_a_file_of_revision_1(tmp_path):
    """Those that were live are in the list of live runs; one that can't be made of damaged rows is told of."""
    path = tmp_path / "m.db"
    make_first(path)
    names = "id, org, window, seq_first, seq_last, applied_seq, series_first, series_last, at_first, at_last, count"
    with closing(sqlite3.connect(path)) as conn:
        for org_id in (1, 2):
            conn.execute("INSERT INTO org (name, compacted_seq) VALUES (?, 3)", (f"org {org_id}",))
            for n, live_at, dead_at in ((1, 5, None), (2, 5, 6), (3, None, None), (4, 7, None)):
                run, series, at = 10 * org_id + n, 2 << 32, 30 + n
                columns = Columns(*(np.array([number]) for number in (series, at, 1.5, 2)))
                blob = encode_row_group(columns)
                values = (run, org_id, 0, 2, 2, 0, series, series, at, at, 1, 1, len(blob), live_at, dead_at)
                directory = encode_directory(directory_entry(blob, columns))
                conn.execute(
                    f"INSERT INTO run ({names}, groups, bytes, live_at, dead_at, directory)"
                    f" VALUES ({', '.join('?' * 16)})",
                    (*values, directory),
                )
                conn.execute("INSERT INTO segment VALUES (?, ?, ?)", (run << 20, org_id, blob))
        conn.execute("UPDATE run SET count = 'text' WHERE id = 21")
        conn.commit()
    store = make(path)
    for org_id, times, gaps in ((1, [31, 34], 0), (2, [34], 1)):
        with closing(store.view(org_id)) as view:
            assert [at for columns in view.scan(WHOLE) for at in columns.at_us.tolist()] == times
            assert len(view.gaps(WHOLE)) == gaps
    with store.database.reading() as conn:
        live = read_live_runs(conn, 1)
        ids = ", ".join(map(str, live.ids))
        rows = conn.exec_driver_sql(
            f"SELECT {', '.join(RUN_COLUMNS)} FROM run WHERE id IN ({ids}) ORDER BY id"
        )
        assert [tuple(row) for row in rows] == [astuple(run)[:-1] for run in live.runs]
    assert (live.compacted_seq, live.fault) == (3, "")
    store.close()


def test_what_a_metric_says_of_its_events_is_kept(tmp_path):
    """All five fields, created and changed."""
    store = make(tmp_path / "m.db")
    spec = MetricSpec(
        code="A",
        name="a",
        notify=Notify.EVERY,
        hysteresis=0.5,
        outside_for="5m",
        expected_every="1h",
        mute_until_us=1_900_000_000_000_000,
    )
    assert store.catalog.create("here", spec).spec == spec
    assert store.catalog.metric("here", "A").spec == spec
    changed = store.catalog.update("here", "A", {"notify": Notify.CHANGE, "mute_until_us": None})
    assert (changed.spec.notify, changed.spec.mute_until_us) == (Notify.CHANGE, None)
    assert changed.spec.hysteresis == 0.5
    store.close()
