"""The tables, one schema for both databases.

Owns what the statements of this package are built from. What makes and changes the tables in a database is
`migrations/`, and a test holds the two to each other. A change here needs a new revision there, and `HEAD` names the
last one.

    keys                the gateway's keys, by digest
    attempts            the ledger: a row for each attempt to get an answer, upstream by upstream
    budgets             what is spent and held in each account of a budget: sums of attempts, kept with them
    journal_positions   how far each worker's journal is in the ledger; moves in the same transaction as the rows
    quarantine          records of a journal that could not become rows, so that their neighbours could
    responses           what callers of Responses may go on from, for as long as the operator says
    facts               a few single values about the database itself

Money is integer nano-USD in 64 bits, times are `UtcTime`, every text is bounded: by a rule of the database, except in
`attempts`. Nothing refers to a key by a foreign key: the ledger outlives the keys it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, MetaData, Table, false, text

from chatgate.storage.columns import JsonList, UtcTime, free_text, list_column, text_column
from chatgate.vocabulary import keys as key_record

if TYPE_CHECKING:
    from datetime import datetime

HEAD = "0005"
"""The last revision of the tables that this program knows."""

MAX_LIST_CHARACTERS = 100_000
"""More than the longest list that `key_record.check` lets through takes as JSON."""

MAX_ID_CHARACTERS = 64
MAX_MODEL_CHARACTERS = 256
MAX_ADDRESS_CHARACTERS = 64
MAX_ACCOUNT_CHARACTERS = 300
"""A scope, a subject of 200, a period and its first day."""
MAX_ACCOUNTS_CHARACTERS = 10_000
MAX_SUBJECT_CHARACTERS = 128
MAX_RESPONSE_CHARACTERS = 10_000_000
"""PostgreSQL bounds no text at more than 10 485 760."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcTime(), nullable=nullable)


def _free_count(name: str) -> Column[int]:
    """Return a column of a 64-bit number that is 0 until known, without a rule."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _count(name: str) -> Column[int]:
    """Return a column of a 64-bit number that is never negative and 0 until known."""
    not_negative = CheckConstraint(f"{name} >= 0", name=f"{name}_not_negative")
    return Column(name, BigInteger, not_negative, nullable=False, server_default=text("0"))


keys = Table(
    "keys",
    metadata,
    text_column("id", MAX_ID_CHARACTERS, primary_key=True),
    text_column("name", key_record.MAX_NAME_CHARACTERS),
    text_column("owner", key_record.MAX_OWNER_CHARACTERS),
    text_column("digest", 64),
    text_column("display", 32),
    Column("enabled", Boolean, nullable=False),
    _time("created_at"),
    _time("expires_at", nullable=True),
    _time("revoked_at", nullable=True),
    _time("rotated_at", nullable=True),
    list_column("allowed_models", str, MAX_LIST_CHARACTERS),
    list_column("allowed_addresses", str, MAX_LIST_CHARACTERS),
    list_column("limits", key_record.KeyLimit, MAX_LIST_CHARACTERS),
    list_column("budgets", key_record.KeyBudget, MAX_LIST_CHARACTERS),
    text_column("language", key_record.MAX_LANGUAGE_CHARACTERS, nullable=True),
    text_column("notes", key_record.MAX_NOTES_CHARACTERS),
    Column("version", Integer, nullable=False),
    Index(None, "digest", unique=True),
    Index(None, "owner", "created_at", "id"),
    Index(None, "created_at", "id"),
)

# Of all tables the one that is written for every call: `calls` bounds what is in it, for rules of the database would
# cost as much as all the rest of an insertion. Those about states and money stay.
attempts = Table(
    "attempts",
    metadata,
    # Made here, never an upstream's: theirs collide, or are empty.
    free_text("request_id", MAX_ID_CHARACTERS, primary_key=True),
    # 1 for a call's first attempt; 0 is a call that was refused before any.
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    # dispatched: sent, and not heard of since. settled: the call ended with it. failed: another attempt followed.
    # abandoned: the same, while the upstream may go on. unknown: nothing was heard of it when the call ended, or its
    # process. refused: the call was never sent.
    free_text("state", 16),
    # True on the one row per call that carries its charge. Unless that row is settled, the process died first, and the
    # charge is what was reserved: an upper bound.
    Column("ends_call", Boolean, nullable=False),
    free_text("outcome", 32, nullable=True),
    free_text("code", 64, nullable=True),
    Column("status", Integer, nullable=True),
    free_text("key_id", MAX_ID_CHARACTERS, nullable=True),
    free_text("owner", key_record.MAX_OWNER_CHARACTERS),
    free_text("address", MAX_ADDRESS_CHARACTERS),
    free_text("operation", 32),
    free_text("surface", 32),
    Column("streamed", Boolean, nullable=False),
    free_text("asked_model", MAX_MODEL_CHARACTERS),
    free_text("sent_model", MAX_MODEL_CHARACTERS),
    free_text("answered_model", MAX_MODEL_CHARACTERS),
    free_text("upstream", 128),
    free_text("upstream_request_id", 256),
    free_text("worker", MAX_ID_CHARACTERS),
    _time("dispatched_at"),
    _time("first_token_at", nullable=True),
    _time("settled_at", nullable=True),
    _free_count("input_tokens"),
    _free_count("cached_input_tokens"),
    _free_count("cache_write_tokens"),
    _free_count("audio_input_tokens"),
    _free_count("output_tokens"),
    _free_count("reasoning_tokens"),
    _free_count("audio_output_tokens"),
    # Where the numbers come from: final, partial, counted, estimated; "" while there are none.
    free_text("usage_source", 16),
    # True when the upstream told numbers that cannot be.
    Column("usage_refused", Boolean, nullable=False),
    # The price as it was then, as JSON; "" when the model has none.
    free_text("price", 2000),
    _count("reserved_nano_usd"),
    _count("charged_nano_usd"),
    # What a failed attempt may cost the operator, an estimate. The caller is never billed for it.
    _count("cost_nano_usd"),
    # The names of the accounts that the call is held in; NULL when the record of its dispatch was lost.
    Column("accounts", JsonList(str, MAX_ACCOUNTS_CHARACTERS), nullable=True),
    # True when the caller's own key of the provider was shown, so that the provider sends them the bill.
    Column("own_key", Boolean, nullable=False, server_default=false()),
    # SQLite would build the list of an `IN` anew for each row. The states that nearly all rows have come first.
    CheckConstraint(
        " OR ".join(
            f"state = '{state}'" for state in ("settled", "dispatched", "refused", "failed", "abandoned", "unknown")
        ),
        name="state_known",
    ),
    CheckConstraint("attempt >= 0", name="attempt_not_negative"),
    Index(None, "dispatched_at"),
    # These two are as partial on PostgreSQL, by its migrations: to say so here would load that dialect where nobody
    # uses it, for 2 MiB and a tenth of the start.
    Index(None, "key_id", "dispatched_at", sqlite_where=text("key_id IS NOT NULL")),
    # Calls under way are among these; all others are ended by one of their rows.
    Index(
        "ix_attempts_ending_nothing",
        "worker",
        sqlite_where=text("ends_call = 0"),
    ),
)

budgets = Table(
    "budgets",
    metadata,
    # Whoever holds money names the accounts: by scope, subject, period and its first day.
    text_column("account", MAX_ACCOUNT_CHARACTERS, primary_key=True),
    _count("spent_nano_usd"),
    _count("reserved_nano_usd"),
    # The part of what is spent that no row names: the rows are deleted, or were there before the budget.
    _count("forgotten_nano_usd"),
)

journal_positions = Table(
    "journal_positions",
    metadata,
    text_column("worker", MAX_ID_CHARACTERS, primary_key=True),
    _count("segment"),
    _count("offset_bytes"),
)

quarantine = Table(
    "quarantine",
    metadata,
    text_column("worker", MAX_ID_CHARACTERS, primary_key=True),
    Column("segment", BigInteger, primary_key=True, autoincrement=False),
    Column("offset_bytes", BigInteger, primary_key=True, autoincrement=False),
    text_column("problem", 500),
    text_column("record", 10_000),
)

responses = Table(
    "responses",
    metadata,
    text_column("id", MAX_ID_CHARACTERS, primary_key=True),
    # Who may see it: a key of the gateway by its id, or another one by a digest; "" for callers without any.
    text_column("subject", MAX_SUBJECT_CHARACTERS),
    _time("expires_at"),
    # JSON, the text of a dialogue: the only one that is ever written down, and only where the operator wants it.
    text_column("body", MAX_RESPONSE_CHARACTERS),
    Index(None, "expires_at"),
)

facts = Table(
    "facts",
    metadata,
    text_column("name", 64, primary_key=True),
    text_column("value", 1000),
)

FACT_OLDEST_REVISION = "oldest_revision"
"""The oldest revision whose program still works on the tables as they are; a migration that breaks one says so."""

FACT_PEPPER = "pepper_fingerprint"
"""Tells which pepper the digests were made under, and nothing about it."""
