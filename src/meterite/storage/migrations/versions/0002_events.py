"""Events, their deliveries, and what a metric says about them; checksums of what rows are chosen by."""

import struct
import zlib

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _add_events()
    _check_journal_columns()
    _list_live_runs()


def _list_live_runs() -> None:
    """What was read by the columns of ``run`` and ``org`` is read by a list with a checksum."""
    op.create_table(
        "live_runs",
        sa.Column("org", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("org"),
    )
    conn = op.get_bind()
    query = (
        'SELECT id, "window", seq_first, seq_last, applied_seq, series_first, series_last, at_first, at_last,'
        " count, bytes, live_at, groups, directory FROM run"
        " WHERE org = ? AND live_at IS NOT NULL AND dead_at IS NULL ORDER BY id"
    )
    orgs = conn.exec_driver_sql("SELECT id, compacted_seq FROM org WHERE compacted_seq > 0").fetchall()
    for org_id, compacted_seq in orgs:
        runs = conn.exec_driver_sql(query, (org_id,)).fetchall()
        try:
            rows = [struct.pack("<12qI", *numbers) + directory[4:8] for *numbers, directory in runs]
        except (TypeError, struct.error):
            continue  # damaged: without a list the rows are read, and that is told
        checked = struct.pack("<Iqq", len(rows), org_id, compacted_seq) + b"".join(rows)
        data = b"MLR1" + struct.pack("<I", zlib.crc32(checked)) + checked
        conn.exec_driver_sql("INSERT INTO live_runs VALUES (?, ?)", (org_id, data))


def _check_journal_columns() -> None:
    """The upper half of a journal row's checksum becomes that of its columns alone."""
    conn = op.get_bind()
    query = (
        "SELECT id, org, series_first, series_last, at_first, at_last, count, recorded_at, checksum"
        " FROM journal ORDER BY id"
    )
    for *columns, checksum in conn.exec_driver_sql(query).fetchall():
        try:
            head = zlib.crc32(struct.pack("<8q", *columns))
            (both,) = struct.unpack("<q", struct.pack("<2I", checksum, head))
        except (TypeError, struct.error):
            continue  # damaged: no checksum will hold
        conn.exec_driver_sql("UPDATE journal SET checksum = ? WHERE id = ?", (both, columns[0]))


def _add_events() -> None:
    op.add_column("metric", sa.Column("notify", sa.Text(), server_default="change", nullable=False))
    op.add_column("metric", sa.Column("hysteresis", sa.Float(), server_default="0", nullable=False))
    op.add_column("metric", sa.Column("outside_for", sa.Text(), nullable=True))
    op.add_column("metric", sa.Column("expected_every", sa.Text(), nullable=True))
    op.add_column("metric", sa.Column("mute_until_us", sa.BigInteger(), nullable=True))
    op.create_index(
        "metric_code_deleted",
        "metric",
        ["org", "code"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NOT NULL"),
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "metric_expected",
        "metric",
        ["id"],
        unique=False,
        sqlite_where=sa.text("expected_every IS NOT NULL"),
        postgresql_where=sa.text("expected_every IS NOT NULL"),
    )
    op.create_table(
        "event",
        sa.Column("id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("org", sa.Integer(), nullable=False),
        sa.Column("metric_first", sa.Integer(), nullable=False),
        sa.Column("metric_last", sa.Integer(), nullable=False),
        sa.Column("types", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("event_org", "event", ["org", "id"], unique=False)
    op.create_table(
        "watermark",
        sa.Column("org", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("org"),
    )
    op.create_table(
        "alarm",
        sa.Column("org", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("org", "event_row", "number"),
    )
    op.create_table(
        "ack",
        sa.Column("event_row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("org", sa.Integer(), nullable=False),
        sa.Column("acked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_row", "ordinal"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "handler",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("cursor_row", sa.BigInteger(), nullable=False),
        sa.Column("cursor_ordinal", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "delivery",
        sa.Column("handler", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("event_row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("org", sa.Integer(), nullable=False),
        sa.Column("series_key", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("first_at", sa.BigInteger(), nullable=True),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("handler", "event_row", "ordinal"),
        sqlite_with_rowid=False,
    )
    for name, columns, where in (
        ("delivery_due", ["handler", "due_at"], "state <= 1"),
        ("delivery_series", ["handler", "series_key"], "state <= 2 AND series_key IS NOT NULL"),
        ("delivery_dead", ["handler"], "state = 4"),
        (
            "delivery_done",
            ["handler", "series_key", "done_at"],
            "state = 3 AND series_key IS NOT NULL AND error IS NULL",
        ),
    ):
        op.create_index(
            name,
            "delivery",
            columns,
            unique=False,
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
