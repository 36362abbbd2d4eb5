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

SCHEMA_REVISION: Final = 1

JOURNAL_ROW_BITS: Final = 16
"""A journal row's id is ``seq << 16 | its number in the commit``."""
SEGMENT_BITS: Final = 20
"""A segment's id is ``run << 20 | its number in the run``."""

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
    Index(
        "metric_code",
        "org",
        "code",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
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
