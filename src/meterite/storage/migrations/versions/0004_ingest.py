"""Receipts of pushes that may be sent again, and how many series an org has."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("org", sa.Column("series_count", sa.BigInteger(), nullable=False, server_default="0"))
    op.get_bind().exec_driver_sql(
        "UPDATE org SET series_count = (SELECT coalesce(sum(series_next), 0) FROM metric"
        " WHERE metric.org = org.id AND metric.deleted_at IS NULL)"
    )
    op.create_table(
        "receipt",
        sa.Column("org", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("given_at", sa.BigInteger(), nullable=False),
        sa.Column("replaced", sa.BigInteger(), nullable=False),
        sa.Column("unchanged", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("org", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("receipt_recorded", "receipt", ["recorded_at"], unique=False)
