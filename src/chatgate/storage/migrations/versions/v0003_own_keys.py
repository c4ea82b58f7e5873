"""Attempts say whether their callers' own keys of a provider were shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; of the rows that are there nobody knows, and the program before goes on with it."""
    op.add_column("attempts", sa.Column("own_key", sa.Boolean, nullable=False, server_default=sa.false()))
