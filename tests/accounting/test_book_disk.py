"""The book on a disk without any room left: calls are refused before they are made, and none that was is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys
from pathlib import Path
from accounting.books import COST, TARGET, USAGE, begin, office, serve
from chatgate.vocabulary.errors import Overloaded
from chatgate.vocabulary.exchange import Outcome

async def main(root):
    refused = 0
    async with office(root) as place:
        book = place.book()
        assert await book.tick()
        made = []
        for turn in range(5):
            under_way = begin(book, f"{turn}-under-way")
            under_way.dispatch(1, TARGET)
            made.append(f"{turn}-under-way")
            with (root / "ballast").open("wb", buffering=0) as ballast:
                try:
                    while ballast.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            for number in range(10_000):
                call_id = f"{turn}-{number}"
                entry = begin(book, call_id)
                try:
                    entry.dispatch(1, TARGET)
                except Overloaded as error:
                    assert error.reason == "accounting_unavailable"
                    assert entry.settle(Outcome.REFUSED, 503) == 0
                    refused += 1
                    break
                made.append(call_id)
                entry.settle(Outcome.COMPLETED, 200, usage=USAGE)
            assert book.gauges.state == "unavailable"
            assert under_way.settle(Outcome.COMPLETED, 200, usage=USAGE) == COST
            await book.tick()
            (root / "ballast").unlink()
            place.clock.now += 5
            assert await book.tick()
            assert book.gauges.state == "ok"
            serve(book, f"{turn}-again")
            made.append(f"{turn}-again")
            await book.tick()
        await book.close()
        rows = place.rows()
        assert set(rows) == {(call_id, 1) for call_id in made}
        assert {(row.state, row.charged_nano_usd) for row in rows.values()} == {("settled", COST)}
        assert place.audit().differences == ()
    print(refused, "refused")

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_file_system(tmp_path: Path) -> None:
    """Journal and database on a small file system that is filled and freed five times."""
    mount = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$0" -c "$2" "$1"'
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run(
            [unshare, "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small file system cannot be mounted here: `unshare -rm` and tmpfs are needed")
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", mount, sys.executable, tmp_path, PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout == "5 refused\n", done.stderr
