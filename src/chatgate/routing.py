"""Which targets may serve a model, best first.

Prepared when the configuration is read, so that a call costs one look-up. Knows no caller but for one rule: what a
caller may be told about a model does not depend on who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.vocabulary.upstreams import Upstream


class Routing:
    """Maps the names that callers ask for to targets."""

    def __init__(
        self,
        models: Mapping[str, tuple[Target, ...]],
        *,
        default_upstream: Upstream,
        reserved_prefix: str,
    ) -> None:
        """Take the named models, targets best first and never empty.

        When `models` names nothing outside of `reserved_prefix`, every other name goes to the default upstream.
        """
        self._models = dict(models)
        self._reserved_prefix = reserved_prefix
        self.names = tuple(models)
        self.is_open = all(name.startswith(reserved_prefix) for name in models)
        self._default = (Target(default_upstream),)

    def targets(self, asked_model: str) -> tuple[Target, ...]:
        """Return where calls for a model may go. Raises `CallerError` when nobody serves it."""
        found = self._models.get(asked_model)
        if found is not None:
            return found
        if self.is_open and not asked_model.startswith(self._reserved_prefix):
            return self._default
        raise CallerError(Kind.MODEL_NOT_FOUND, "unknown_model", param="model", parameters={"model": asked_model[:100]})
