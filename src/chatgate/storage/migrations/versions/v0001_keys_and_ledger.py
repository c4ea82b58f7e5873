"""Make the tables of keys, ledger, budgets and journals.

The first revision. Like every revision it is never changed again, and so takes nothing from the rest of the program.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

OLDEST_PROGRAM = "0001"
"""The revision a program must know to work with these tables."""

tables = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def text(name: str, characters: int, *, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text with its bound."""
    bound = sa.CheckConstraint(f"length({name}) <= {characters}", name=f"{name}_length")
    return sa.Column(name, sa.String(characters), bound, nullable=nullable)


def number(name: str) -> sa.Column[int]:
    """Return a column of a number that is never negative, and 0 until known."""
    bound = sa.CheckConstraint(f"{name} >= 0", name=f"{name}_not_negative")
    return sa.Column(name, sa.BigInteger, bound, nullable=False, server_default=sa.text("0"))


def time(name: str, *, nullable: bool = False) -> sa.Column[int]:
    """Return a column of microseconds since 1970."""
    return sa.Column(name, sa.BigInteger, nullable=nullable)


sa.Table(
    "keys",
    tables,
    text("id", 64),
    text("name", 200),
    text("owner", 200),
    text("digest", 64),
    text("display", 32),
    sa.Column("enabled", sa.Boolean, nullable=False),
    time("created_at"),
    time("expires_at", nullable=True),
    time("revoked_at", nullable=True),
    time("rotated_at", nullable=True),
    text("allowed_models", 100_000),
    text("allowed_addresses", 100_000),
    text("limits", 100_000),
    text("budgets", 100_000),
    text("language", 35, nullable=True),
    text("notes", 2000),
    sa.Column("version", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.Index(None, "digest", unique=True),
    sa.Index(None, "owner", "created_at", "id"),
    sa.Index(None, "created_at", "id"),
)

sa.Table(
    "attempts",
    tables,
    text("request_id", 64),
    sa.Column("attempt", sa.Integer, nullable=False),
    text("state", 16),
    sa.Column("ends_call", sa.Boolean, nullable=False),
    text("outcome", 32, nullable=True),
    text("code", 64, nullable=True),
    sa.Column("status", sa.Integer, nullable=True),
    text("key_id", 64, nullable=True),
    text("owner", 200),
    text("address", 64),
    text("operation", 32),
    text("surface", 32),
    sa.Column("streamed", sa.Boolean, nullable=False),
    text("asked_model", 256),
    text("sent_model", 256),
    text("answered_model", 256),
    text("upstream", 128),
    text("upstream_request_id", 256),
    text("worker", 64),
    time("dispatched_at"),
    time("first_token_at", nullable=True),
    time("settled_at", nullable=True),
    number("input_tokens"),
    number("cached_input_tokens"),
    number("cache_write_tokens"),
    number("audio_input_tokens"),
    number("output_tokens"),
    number("reasoning_tokens"),
    number("audio_output_tokens"),
    text("usage_source", 16),
    sa.Column("usage_refused", sa.Boolean, nullable=False),
    text("price", 2000),
    number("reserved_nano_usd"),
    number("charged_nano_usd"),
    number("cost_nano_usd"),
    text("accounts", 10_000, nullable=True),
    sa.PrimaryKeyConstraint("request_id", "attempt"),
    sa.CheckConstraint(
        "state IN ('refused', 'dispatched', 'settled', 'failed', 'abandoned', 'unknown')", name="state_known"
    ),
    sa.CheckConstraint("attempt >= 0", name="attempt_not_negative"),
    sa.Index(None, "dispatched_at"),
    sa.Index(None, "key_id", "dispatched_at"),
    sa.Index(
        "ix_attempts_ending_nothing",
        "worker",
        sqlite_where=sa.text("ends_call = 0"),
        postgresql_where=sa.text("NOT ends_call"),
    ),
)

sa.Table(
    "budgets",
    tables,
    text("account", 300),
    number("spent_nano_usd"),
    number("reserved_nano_usd"),
    number("forgotten_nano_usd"),
    sa.PrimaryKeyConstraint("account"),
)

sa.Table(
    "journal_positions",
    tables,
    text("worker", 64),
    number("segment"),
    number("offset_bytes"),
    sa.PrimaryKeyConstraint("worker"),
)

sa.Table(
    "quarantine",
    tables,
    text("worker", 64),
    sa.Column("segment", sa.BigInteger, nullable=False),
    sa.Column("offset_bytes", sa.BigInteger, nullable=False),
    text("problem", 500),
    text("record", 10_000),
    sa.PrimaryKeyConstraint("worker", "segment", "offset_bytes"),
)

facts = sa.Table("facts", tables, text("name", 64), text("value", 1000), sa.PrimaryKeyConstraint("name"))


def upgrade() -> None:
    """Make them."""
    tables.create_all(op.get_bind(), checkfirst=False)
    op.bulk_insert(facts, [{"name": "oldest_revision", "value": OLDEST_PROGRAM}])
