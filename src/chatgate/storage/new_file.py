"""Files that appear whole or not at all, and never in place of another.

Owns how such a file comes to be; `pepper`, `backup` and `sqlite` use it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the path of an empty file, readable by its owner alone, that becomes `target` when the block ends well.

    Then it is on the disk. Raises FileExistsError when something is at `target` by then, which is left as it was, and
    OSError. Directories that are missing are made.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield made
        sync(made)
        # A link, unlike a rename, does not replace what is there.
        os.link(made, target)
    finally:
        made.unlink(missing_ok=True)
    sync(target.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, written to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
