"""A revision that rewrites a table, and writes more than fits into the page cache: the log has it before COMMIT."""

import os
import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = max(file.name[:4] for file in Path(__file__).parent.glob("0*.py"))


def upgrade():
    with op.batch_alter_table("org") as org:  # makes a new table, copies, drops the old one
        org.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "bulk", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("data", sa.LargeBinary())
    )
    op.execute(
        "INSERT INTO bulk WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16)"
        " SELECT i, randomblob(1048576) FROM n"
    )
    halt("middle")
    op.execute("UPDATE journal SET recorded_at = -recorded_at")
    op.execute("UPDATE journal SET recorded_at = -recorded_at")
    halt("end")


def halt(place):
    if os.environ.get("HALT_AT") == place:
        Path("halted").touch()
        threading.Event().wait()
