"""Let the program alone bound what it writes into `attempts`: the rules cost as much as all the rest of an insertion.

What stays are the rules about states and money. PostgreSQL's types go on bounding texts. SQLite cannot take a rule from
a table, so the rows move to a new one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXTS = {
    "request_id": 64,
    "state": 16,
    "outcome": 32,
    "code": 64,
    "key_id": 64,
    "owner": 200,
    "address": 64,
    "operation": 32,
    "surface": 32,
    "asked_model": 256,
    "sent_model": 256,
    "answered_model": 256,
    "upstream": 128,
    "upstream_request_id": 256,
    "worker": 64,
    "usage_source": 16,
    "price": 2000,
    "accounts": 10_000,
}
COUNTS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
)


def text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text."""
    return sa.Column(name, sa.String(TEXTS[name]), nullable=nullable)


def count(name: str) -> sa.Column[int]:
    """Return a column of a number that is 0 until known."""
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def money(name: str) -> sa.Column[int]:
    """Return a column of an amount, which is never negative."""
    bound = sa.CheckConstraint(f"{name} >= 0", name=f"{name}_not_negative")
    return sa.Column(name, sa.BigInteger, bound, nullable=False, server_default=sa.text("0"))


tables = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

attempts = sa.Table(
    "attempts",
    tables,
    text("request_id"),
    sa.Column("attempt", sa.Integer, nullable=False),
    text("state"),
    sa.Column("ends_call", sa.Boolean, nullable=False),
    text("outcome", nullable=True),
    text("code", nullable=True),
    sa.Column("status", sa.Integer, nullable=True),
    text("key_id", nullable=True),
    text("owner"),
    text("address"),
    text("operation"),
    text("surface"),
    sa.Column("streamed", sa.Boolean, nullable=False),
    text("asked_model"),
    text("sent_model"),
    text("answered_model"),
    text("upstream"),
    text("upstream_request_id"),
    text("worker"),
    sa.Column("dispatched_at", sa.BigInteger, nullable=False),
    sa.Column("first_token_at", sa.BigInteger, nullable=True),
    sa.Column("settled_at", sa.BigInteger, nullable=True),
    *(count(name) for name in COUNTS),
    text("usage_source"),
    sa.Column("usage_refused", sa.Boolean, nullable=False),
    text("price"),
    money("reserved_nano_usd"),
    money("charged_nano_usd"),
    money("cost_nano_usd"),
    text("accounts", nullable=True),
    sa.PrimaryKeyConstraint("request_id", "attempt"),
    sa.CheckConstraint(
        "state IN ('refused', 'dispatched', 'settled', 'failed', 'abandoned', 'unknown')", name="state_known"
    ),
    sa.CheckConstraint("attempt >= 0", name="attempt_not_negative"),
    sa.Index(None, "dispatched_at"),
    sa.Index(None, "key_id", "dispatched_at"),
    sa.Index("ix_attempts_ending_nothing", "worker", sqlite_where=sa.text("ends_call = 0")),
)


def upgrade() -> None:
    """Take the rules away."""
    if op.get_bind().dialect.name == "postgresql":
        for rule in (*(f"{name}_length" for name in TEXTS), *(f"{name}_not_negative" for name in COUNTS)):
            op.drop_constraint(op.f(f"ck_attempts_{rule}"), "attempts")
        return
    names = ", ".join(column.name for column in attempts.columns)
    for index in attempts.indexes:
        op.drop_index(str(index.name))
    op.rename_table("attempts", "attempts_0001")
    tables.create_all(op.get_bind(), checkfirst=False)
    op.execute(f"INSERT INTO attempts ({names}) SELECT {names} FROM attempts_0001")  # noqa: S608 - names of columns
    op.drop_table("attempts_0001")
