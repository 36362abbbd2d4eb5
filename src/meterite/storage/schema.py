"""The tables, as SQLAlchemy Core knows them; docs/format/tables.md says what each column means.

The database is made by the migrations in ``migrations/``; a test holds the two equal. ``SCHEMA_REVISION`` is kept in
the file (``PRAGMA user_version``), so that a start on a current file needs no Alembic.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA_REVISION: Final = 6

JOURNAL_ROW_BITS: Final = 16
"""A journal row's id is ``seq << 16 | its number in the commit``."""
SEGMENT_BITS: Final = 20
"""A segment's id is ``run << 20 | its number in the run``."""
EVENT_ROW_BITS: Final = 16
"""An event row's id is ``seq << 16 | its number in the commit``, counted with the journal's rows."""

PENDING: Final = 0
LEASED: Final = 1
WAITING: Final = 2
DONE: Final = 3
DEAD: Final = 4
"""``delivery.state``. Waiting: behind an earlier one of its series."""

metadata = MetaData()
BigId = BigInteger().with_variant(Integer, "sqlite")

clock = Table(
    "clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("catalog_version", BigInteger, nullable=False),
)
secret = Table(
    "secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
org = Table(
    "org",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("catalog_version", BigInteger, nullable=False, server_default="0"),
    Column("compacted_seq", BigInteger, nullable=False, server_default="0"),
    Column("series_count", BigInteger, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
metric = Table(
    "metric",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("org", Integer, ForeignKey("org.id"), nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("min_reading", Float, nullable=False),
    Column("max_reading", Float, nullable=False),
    Column("truncate_reading_to", Text),
    Column("unit", Text),
    Column("description", Text),
    Column("timezone", Text),
    Column("on_conflict", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("series_next", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("notify", Text, nullable=False, server_default="change"),
    Column("hysteresis", Float, nullable=False, server_default="0"),
    Column("outside_for", Text),
    Column("expected_every", Text),
    Column("mute_until_us", BigInteger),
    Index(
        "metric_code",
        "org",
        "code",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index(
        "metric_code_deleted",
        "org",
        "code",
        sqlite_where=text("deleted_at IS NOT NULL"),
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    Index(
        "metric_expected",
        "id",
        sqlite_where=text("expected_every IS NOT NULL"),
        postgresql_where=text("expected_every IS NOT NULL"),
    ),
    Index("metric_version", "org", "version"),
    sqlite_autoincrement=True,
)
series = Table(
    "series",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("org", Integer, ForeignKey("org.id"), nullable=False),
    Column("metric", Integer, ForeignKey("metric.id"), nullable=False),
    Column("labels", Text, nullable=False),
    UniqueConstraint("metric", "labels", name="series_labels"),
)
journal = Table(
    "journal",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("org", Integer, nullable=False),
    Column("series_first", BigInteger, nullable=False),
    Column("series_last", BigInteger, nullable=False),
    Column("at_first", BigInteger, nullable=False),
    Column("at_last", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("events_metric_first", Integer),
    Column("events_metric_last", Integer),
    Column("events_types", Integer),
    Column("events_count", Integer),
    Column("events_checksum", BigInteger),
    Column("events", LargeBinary),
)
run = Table(
    "run",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("org", Integer, nullable=False),
    Column("window", Integer, nullable=False),
    Column("seq_first", BigInteger, nullable=False),
    Column("seq_last", BigInteger, nullable=False),
    Column("applied_seq", BigInteger, nullable=False),
    Column("series_first", BigInteger, nullable=False),
    Column("series_last", BigInteger, nullable=False),
    Column("at_first", BigInteger, nullable=False),
    Column("at_last", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("groups", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("live_at", BigInteger),
    Column("dead_at", BigInteger),
    Column("directory", LargeBinary, nullable=False),
    Index("run_org", "org", "window"),
    sqlite_autoincrement=True,
)
live_runs = Table(
    "live_runs",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
segment = Table(
    "segment",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("org", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
tombstone = Table(
    "tombstone",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("org", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("metric", Integer, nullable=False),
    Column("series", LargeBinary),
    Column("series_first", BigInteger, nullable=False),
    Column("series_last", BigInteger, nullable=False),
    Column("at_first", BigInteger, nullable=False),
    Column("at_last", BigInteger, nullable=False),
    Index("tombstone_org", "org", "seq"),
    sqlite_autoincrement=True,
)
state = Table(
    "state",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
commit_time = Table(
    "commit_time",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("seq_first", BigInteger, primary_key=True, autoincrement=False),
    Column("seq_last", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
flip = Table(
    "flip",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("org", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("flipped_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("org", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("row_id", BigInteger, nullable=False),
    Column("series_first", BigInteger, nullable=False),
    Column("series_last", BigInteger, nullable=False),
    Column("at_first", BigInteger, nullable=False),
    Column("at_last", BigInteger, nullable=False),
    Column("found_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    UniqueConstraint("kind", "row_id", name="quarantine_row"),
    sqlite_autoincrement=True,
)
push_group = Table(
    "push_group",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("series", LargeBinary, nullable=False),
)
receipt = Table(
    "receipt",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("given_at", BigInteger, nullable=False),
    Column("replaced", BigInteger, nullable=False),
    Column("unchanged", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("receipt_recorded", "recorded_at"),
    sqlite_with_rowid=False,
)
event_row = Table(
    "event_row",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=False),
    Column("org", Integer, nullable=False),
    Column("metric_first", Integer, nullable=False),
    Column("metric_last", Integer, nullable=False),
    Column("types", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("event_row_org", "org", "id"),
)
watermark = Table(
    "watermark",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
alarm = Table(
    "alarm",
    metadata,
    Column("org", Integer, primary_key=True, autoincrement=False),
    Column("event_row", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("parts", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
ack = Table(
    "ack",
    metadata,
    Column("event_row", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("org", Integer, nullable=False),
    Column("acked_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
handler = Table(
    "handler",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("active", Boolean, nullable=False),
    Column("cursor_row", BigInteger, nullable=False),
    Column("cursor_ordinal", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
delivery = Table(
    "delivery",
    metadata,
    Column("handler", Integer, primary_key=True, autoincrement=False),
    Column("event_row", BigInteger, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("org", Integer, nullable=False),
    Column("series_key", BigInteger),
    Column("state", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("owner", Text),
    Column("first_at", BigInteger),
    Column("done_at", BigInteger),
    Column("error", Text),
    Index(
        "delivery_due",
        "handler",
        "due_at",
        sqlite_where=text("state <= 1"),
        postgresql_where=text("state <= 1"),
    ),
    Index(
        "delivery_series",
        "handler",
        "series_key",
        sqlite_where=text("state <= 2 AND series_key IS NOT NULL"),
        postgresql_where=text("state <= 2 AND series_key IS NOT NULL"),
    ),
    Index(
        "delivery_dead",
        "handler",
        sqlite_where=text("state = 4"),
        postgresql_where=text("state = 4"),
    ),
    Index(
        "delivery_done",
        "handler",
        "series_key",
        "done_at",
        sqlite_where=text("state = 3 AND series_key IS NOT NULL AND error IS NULL"),
        postgresql_where=text("state = 3 AND series_key IS NOT NULL AND error IS NULL"),
    ),
    sqlite_with_rowid=False,
)

EVENT_VIEWS: Final = {
    "event_apart": """CREATE VIEW event_apart AS
SELECT id, org, CAST(metric_first AS INTEGER) AS metric_first, CAST(metric_last AS INTEGER) AS metric_last,
CAST(types AS INTEGER) AS types, CAST(count AS INTEGER) AS count, CAST(recorded_at AS INTEGER) AS recorded_at,
CAST(checksum AS INTEGER) AS checksum, CAST(data AS BLOB) AS data FROM event_row""",
    "event_beside": """CREATE VIEW event_beside AS
SELECT id, org, CAST(events_metric_first AS INTEGER) AS metric_first,
CAST(events_metric_last AS INTEGER) AS metric_last, CAST(events_types AS INTEGER) AS types,
CAST(events_count AS INTEGER) AS count, CAST(recorded_at AS INTEGER) AS recorded_at,
CAST(events_checksum AS INTEGER) AS checksum, CAST(events AS BLOB) AS data
FROM journal WHERE events IS NOT NULL""",
    "event": "CREATE VIEW event AS SELECT * FROM event_apart UNION ALL SELECT * FROM event_beside",
}
"""All event rows. What readings raise lies in their journal row until that goes: a page less for a commit to write.
Which journal rows those are isn't in the file, to keep the log small: :class:`EventReader` knows. Of whatever type
damage made a value, it is read as what it should be: then the checksum says that it isn't, and no query fails by it."""
MOVE_EVENTS: Final = (
    "INSERT INTO event_row SELECT id, org, coalesce(events_metric_first, 0), coalesce(events_metric_last, 0),"
    " coalesce(events_types, 0), coalesce(events_count, 0), recorded_at, coalesce(events_checksum, 0), events"
    " FROM journal WHERE id = ? AND events IS NOT NULL"
)
"""Of one journal row, which is deleted in the same transaction. What isn't there was damaged: its checksum tells."""
