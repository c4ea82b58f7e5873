"""A program that keeps a book and acknowledges, run and killed by `test_book_kill.py`.

Its arguments are the data directory, its place in the journal, and a name that is in every id. Some calls have a key
with a budget, some are tried twice, some never end; the book folds meanwhile, at first what others left. It says on
standard output, one unbuffered line each, when a call may be made and when its end may be seen, with what it cost: by
then the records must survive.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from accounting.books import TARGET, USAGE, begin, key, office
from chatgate.accounting.book import Book
from chatgate.vocabulary.exchange import Outcome
from chatgate.vocabulary.keys import KeyBudget

RICH = key(KeyBudget(10**15, "day"))


def serve(book: Book, call_id: str, number: int) -> None:
    """Carry a call, of which every seventh is never settled, and every fifth tried twice."""
    entry = begin(book, call_id, RICH if number % 2 else None)
    entry.dispatch(1, TARGET)
    os.write(1, f"dispatched {call_id} 1\n".encode())
    if number % 5 == 0:
        entry.fail(1, "upstream_error", 502)
        entry.dispatch(2, TARGET)
        os.write(1, f"dispatched {call_id} 2\n".encode())
    if number % 7:
        charged = entry.settle(Outcome.COMPLETED, 200, usage=USAGE)
        os.write(1, f"settled {call_id} {charged}\n".encode())


async def main(data: str, number: str, name: str) -> None:
    """Serve until killed."""
    async with office(Path(data)) as place:
        place.directory = place.directory.with_name(number)
        book = place.book()
        opening = asyncio.ensure_future(book.tick())
        count = 0
        while not opening.done():
            count += 2
            serve(book, f"{name}-{count}", count)
            await asyncio.sleep(0.001)
        while True:
            for _ in range(20):
                count += 1
                serve(book, f"{name}-{count}", count)
            await book.tick()


asyncio.run(main(*sys.argv[1:]))
