"""The registry's tables. Imported only once a database is opened: SQLAlchemy takes half a second to load."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# One counter for each section of the snapshot; every change raises it inside its own transaction.
versions = Table(
    "versions",
    metadata,
    Column("section", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# `body` is NULL where the row only switches a candidate of the config file off or on.
candidates = Table(
    "candidates",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("body", Text),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

client_keys = Table(
    "client_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("models", Text, nullable=False),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("budget_usd", Double),
    Column("budget_period", String(8), nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("version", BigInteger, nullable=False, index=True),
)

profiles = Table(
    "profiles",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("body", Text, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("version", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(128), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("progress", Text, nullable=False),
    Column("error", Text),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("finished_at", Double),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("request_id", String(128), nullable=False),
    Column("key_id", String(40)),
    Column("requested", String(160), nullable=False),
    Column("model", String(128), nullable=False),
    Column("rule", String(16), nullable=False),
    Column("outcome", String(24), nullable=False),
    Column("status", Integer, nullable=False),
    Column("p", Double),
    Column("cost_usd", Double),
    Column("body", Text, nullable=False),
)

# `key_id` is '' for requests without a client key; `day` is a UTC date such as 2026-11-21.
usage = Table(
    "usage",
    metadata,
    Column("key_id", String(40), primary_key=True),
    Column("model", String(160), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("baseline_cost_usd", Double, nullable=False),
    Index("usage_by_day", "day"),
)

# A second score for a decision replaces the first.
feedback = Table(
    "feedback",
    metadata,
    Column("decision_id", String(64), primary_key=True),
    Column("score", Double, nullable=False),
    Column("at", Double, nullable=False),
)

# The last batch each writer has stored: a batch that is sent twice after a lost connection counts once.
ledger_writers = Table(
    "ledger_writers",
    metadata,
    Column("writer", String(40), primary_key=True),
    Column("batch", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

# Made once, by the first gateway that needs it: every gateway on this database hashes with the same key.
shared_keys = Table(
    "shared_keys",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)

SECTIONS = ("candidates", "keys", "profiles")
