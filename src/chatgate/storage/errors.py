"""What can go wrong with what is stored.

    StorageError
    ├── StorageUnavailable   locked, full, slow, out of reach: the same may work in a moment
    ├── StorageInUse         somebody else has the database open, and what was asked needs it alone
    ├── SchemaTooNew         a later version of the program has changed the tables beyond what this one knows
    ├── BackupError          no copy could be made, or a copy cannot be used
    ├── PepperError          the pepper cannot be read, or is not the one the keys were made under
    ├── KeyNotFound          no such key, or not this owner's
    ├── KeyTaken             the id or the digest exists already
    ├── KeyRevoked           a revoked key stays revoked
    └── StaleVersion         somebody else changed it first

Each carries a code and typed fields; sentences are made by whoever tells somebody. None holds a password or a key.
"""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Why the storage cannot be used right now."""

    LOCKED = "locked"
    """Somebody else is writing for longer than we wait."""
    FULL = "full"
    """No space is left on the device."""
    SLOW = "slow"
    """No answer in time, or too many are waiting for one."""
    OUT_OF_REACH = "out_of_reach"
    """No connection to the server, or it was cut."""
    FAILED = "failed"
    """The file cannot be read or written: an I/O error, a read-only place, a damaged file."""


class StorageError(Exception):
    """Anything the storage refuses or cannot do."""


class StorageUnavailable(StorageError):  # noqa: N818 - the situation's name is the field's term
    """Not now. A write that raises this has not been done, unless the connection was cut while it was committed.

    `detail` is the database's own first line, for the log.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """Keep why."""
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class StorageInUse(StorageError):  # noqa: N818 - the same
    """The database is open elsewhere."""


class SchemaTooNew(StorageError):  # noqa: N818 - the same
    """The tables are of `revision`, which says that `known`, the last this program knows, is too old for them."""

    def __init__(self, revision: str, known: str) -> None:
        """Keep both."""
        super().__init__(f"the schema is {revision}, this program knows {known}")
        self.revision = revision
        self.known = known


class BackupError(StorageError):
    """`code` is `program_missing`, `not_a_backup`, `damaged`, `exists` or `failed`; `detail` says of what, or how."""

    def __init__(self, code: str, detail: str) -> None:
        """Keep both."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class PepperError(StorageError):
    """`code` is `unreadable`, `too_short` or `not_ours`."""

    def __init__(self, code: str, detail: str = "") -> None:
        """Keep why; `detail` never holds the pepper."""
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code


class KeyNotFound(StorageError):  # noqa: N818 - the same
    """No key has the id, or it is another owner's: the two cannot be told apart."""


class KeyTaken(StorageError):  # noqa: N818 - the same
    """A key with this id or digest exists."""


class KeyRevoked(StorageError):  # noqa: N818 - the same
    """The key is revoked, and stays so."""


class StaleVersion(StorageError):  # noqa: N818 - the same
    """The key was changed since it was read; `current` is its version now."""

    def __init__(self, current: int) -> None:
        """Keep the version."""
        super().__init__(str(current))
        self.current = current
