"""The files that an import makes: a configuration, and beside it a file for each provider's key.

Owns that nothing is overwritten, that all of it is readable by its owner alone, and that a failure leaves nothing
behind. Called by the command.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from chatgate.cli.importing.document import KEY_DIRECTORY
from chatgate.cli.importing.plan import needs_no_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chatgate.cli.importing.plan import Plan


def key_files(plan: Plan, directory: Path) -> dict[Path, str]:
    """Return the files that hold the providers' keys, and what is in them."""
    return {
        directory / KEY_DIRECTORY / upstream.name: upstream.secret + "\n"
        for upstream in plan.upstreams
        if not upstream.variable and not needs_no_key(upstream.secret)
    }


@contextlib.contextmanager
def written(files: Mapping[Path, str]) -> Iterator[None]:
    """Write files, and take them away again when the block does not end well.

    Raises FileExistsError, with the file's name, before anything is written if one is there; and OSError.
    """
    for path in files:
        if os.path.lexists(path):
            raise FileExistsError(17, "exists already", str(path))
    made: list[Path] = []
    directories: list[Path] = []
    try:
        for path, text in files.items():
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700)
                directories.append(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            made.append(path)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        yield
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        for directory in directories:
            directory.rmdir()
        raise
