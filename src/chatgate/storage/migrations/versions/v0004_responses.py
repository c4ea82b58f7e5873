"""Make the table of responses that callers may go on from."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def text(name: str, characters: int) -> sa.Column[str]:
    """Return a column of text with its bound."""
    bound = sa.CheckConstraint(f"length({name}) <= {characters}", name=f"{name}_length")
    return sa.Column(name, sa.String(characters), bound, nullable=False)


tables = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

sa.Table(
    "responses",
    tables,
    text("id", 64),
    text("subject", 128),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    text("body", 10_000_000),
    sa.PrimaryKeyConstraint("id"),
    sa.Index(None, "expires_at"),
)


def upgrade() -> None:
    """Make it; an older program does not know it, and works on."""
    tables.create_all(op.get_bind(), checkfirst=False)
