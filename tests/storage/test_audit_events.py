"""What verify sees of events: each row, and what belongs to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from meterite.storage import audit_events, event_upkeep
from meterite.storage.audit_events import EventAudit
from meterite.storage.database import driver_of
from meterite.storage.event_upkeep import EventUpkeep
from meterite.storage.maintenance import verify
from meterite.storage.work import Limits, Work
from storage.raised import Raised, changed, transition
from storage.test_events_in_journal import push


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Two orgs' events, some delivered, one acknowledged; alarms written down."""
    monkeypatch.setattr(event_upkeep, "SNAPSHOT_ROWS", 1)
    raised = Raised(tmp_path / "m.db")
    raised.store.outbox.register(["ops"])
    for org in ("here", "there"):
        metric = raised.metric("m", org=org)
        raised.raise_(transition(metric.series_first), changed(metric.id), org=org)
    while raised.store.outbox.fan_out("ops", lambda row: np.ones(len(row), bool)):
        pass
    raised.store.events.ack("here", raised.all()[0].id)
    steps = EventUpkeep(Work(raised.store, Limits()))
    while steps.step():
        pass
    raised.close()
    return raised.path


def test_all_holds(path):
    """And the rows are counted."""
    report = verify(f"sqlite:///{path}")
    assert report.ok
    assert "2 event rows" in report.lines[0]


def test_events_are_read_without_a_look_at_the_readings(tmp_path, monkeypatch):
    """However many rows of the journal hold none."""
    monkeypatch.setattr(audit_events, "_ROWS", 1)
    raised = Raised(tmp_path / "m.db")
    metric, quiet = raised.metric("m"), raised.metric("q")
    for _ in range(40):
        raised.raise_(transition(metric.series_first))
    steps = []

    def faults():
        steps.append(0)
        audit = EventAudit(raised.store.database, raised.store.event_reader)
        with raised.store.database.reading() as conn:
            driver_of(conn).set_progress_handler(lambda: steps.append(steps.pop() + 1), 10)
        found = list(audit.faults())
        with raised.store.database.reading() as conn:
            driver_of(conn).set_progress_handler(None, 0)
        return found, audit.rows

    assert faults() == ([], 40)
    for _ in range(40):
        push(raised, quiet, [5.0])
    raised.store.close()
    raised.store = raised.opened()
    assert faults() == ([], 40)
    assert 40 < steps[1] < 1.5 * steps[0]
    raised.close()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE event_row SET checksum = checksum + 1", "fails its checksum"),
        ("UPDATE event_row SET org = 3 - org", "fails its checksum"),
        ("UPDATE event_row SET types = 64", "fails its checksum"),
        ("UPDATE event_row SET types = 'x'", "fails its checksum"),
        ("UPDATE event_row SET count = x'ff'", "fails its checksum"),
        ("UPDATE metric SET org = 2, code = 'x' WHERE org = 1", "aren't its org's"),
        ("UPDATE event_row SET recorded_at = -id", "recorded before"),
        ("DELETE FROM event_row WHERE org = 1", "delivery of event row"),
        ("DELETE FROM event_row WHERE org = 1", "acknowledgement of event row"),
        ("DELETE FROM handler", "delivery for handler"),
        ("UPDATE alarm SET data = x'00'", "no MAL1 block"),
        ("UPDATE alarm SET event_row = 1", "came later"),
    ],
)
def test_what_is_wrong(path, statement, words):
    """Each table against the others."""
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(statement)
        conn.commit()
    report = verify(f"sqlite:///{path}")
    assert not report.ok
    assert words in "\n".join(report.lines)


def test_every_bit_of_a_row_is_covered(path):
    """A flipped bit anywhere in the bytes of an event row, or of a part of the alarms, is found."""
    for table in ("event_row", "alarm"):
        with closing(sqlite3.connect(path)) as conn:
            (data,) = conn.execute(f"SELECT data FROM {table} WHERE org = 1").fetchone()
        for place in range(0, len(data), 7):
            changed_data = bytearray(data)
            changed_data[place] ^= 0x10
            with closing(sqlite3.connect(path)) as conn:
                conn.execute(f"UPDATE {table} SET data = ? WHERE org = 1", (bytes(changed_data),))
                conn.commit()
            assert table.replace("_", " ") in verify(f"sqlite:///{path}").lines[0], (table, place)
        with closing(sqlite3.connect(path)) as conn:
            conn.execute(f"UPDATE {table} SET data = ? WHERE org = 1", (data,))
            conn.commit()
    assert verify(f"sqlite:///{path}").ok
