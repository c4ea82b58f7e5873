"""The language of a command's sentences: that of the configuration, from the catalogues that callers are told from.

Owns nothing but the choice of the language. Commands that explain what others may have to read use it; those that only
name settings and files speak English.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatgate.i18n import LANGUAGES, Catalogues, language_of_locale
from chatgate.vocabulary.errors import Phrase

if TYPE_CHECKING:
    from chatgate.settings import Settings


class Speaker:
    """Says things in one language."""

    def __init__(self, settings: Settings) -> None:
        """Speak the language of a configuration."""
        self._language = language_of_locale(settings.server.language) or LANGUAGES[0]
        self._catalogues = Catalogues()

    def __call__(self, code: str, /, **parameters: str | int) -> str:
        """Return the text of a message."""
        return self._catalogues.translate(self._language, Phrase(code, parameters))
