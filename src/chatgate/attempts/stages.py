"""The stages of a call that know its route: who holds one of these has been admitted."""

from __future__ import annotations

from msgspec import Struct

from chatgate.accounting.entries import Entry
from chatgate.admission.limits import Bound, Facts
from chatgate.routing.table import Route
from chatgate.vocabulary.exchange import Decoded


class Admitted(Struct, frozen=True, gc=False):
    """Every guard said yes, and what the limits took is taken.

    `route` is where calls for the model may go; `entry` is the call in the book, `receipt` what it has taken of
    the limits, None for nothing but what was counted at `counted_at_ns`; `bound` is what the limits looked at, and
    `body_bytes` is the size of what was asked; `headers` are the lines that tell where the caller stands.
    """

    decoded: Decoded
    route: Route
    entry: Entry
    receipt: object
    bound: Bound
    headers: bytes
    body_bytes: int = 0
    counted_at_ns: int = 0

    @property
    def facts(self) -> Facts:
        """Return what the scopes of limits look at."""
        caller = self.decoded.caller
        return Facts(caller.counted_as, None if caller.record is None else caller.record.id, self.route.name)
