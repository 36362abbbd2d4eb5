"""Which journal rows hold events is known in memory, not by an index; each place of event rows has a view of its own."""

from alembic import op

revision = "0006"
down_revision = "0005"

VIEWS = {
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


def upgrade() -> None:
    op.execute("DROP VIEW event")
    op.drop_index("journal_events", "journal")
    for view in VIEWS.values():
        op.execute(view)
