"""Events that readings raise lie in their journal row, and go to ``event_row`` when that goes; ``event`` is both."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

VIEW = """CREATE VIEW event AS
SELECT id, org, CAST(metric_first AS INTEGER) AS metric_first, CAST(metric_last AS INTEGER) AS metric_last,
CAST(types AS INTEGER) AS types, CAST(count AS INTEGER) AS count, CAST(recorded_at AS INTEGER) AS recorded_at,
CAST(checksum AS INTEGER) AS checksum, CAST(data AS BLOB) AS data FROM event_row
UNION ALL
SELECT id, org, CAST(events_metric_first AS INTEGER), CAST(events_metric_last AS INTEGER),
CAST(events_types AS INTEGER), CAST(events_count AS INTEGER), CAST(recorded_at AS INTEGER),
CAST(events_checksum AS INTEGER), CAST(events AS BLOB)
FROM journal INDEXED BY journal_events WHERE events IS NOT NULL"""


def upgrade() -> None:
    for name in ("events_metric_first", "events_metric_last", "events_types", "events_count"):
        op.add_column("journal", sa.Column(name, sa.Integer(), nullable=True))
    op.add_column("journal", sa.Column("events_checksum", sa.BigInteger(), nullable=True))
    op.add_column("journal", sa.Column("events", sa.LargeBinary(), nullable=True))
    op.create_index(
        "journal_events",
        "journal",
        ["id", "org"],
        unique=False,
        sqlite_where=sa.text("events IS NOT NULL"),
        postgresql_where=sa.text("events IS NOT NULL"),
    )
    op.drop_index("event_org", "event")
    op.rename_table("event", "event_row")
    op.create_index("event_row_org", "event_row", ["org", "id"], unique=False)
    op.execute(VIEW)
