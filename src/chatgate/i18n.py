"""Own the words: which language a caller reads, and the text of a message in it.

Messages are gettext catalogues under `locales/`, one per language, whose msgid is a stable code. `locales/chatgate.pot`
lists every code with its parameters; English has a catalogue like the others. The compiled `.mo` files are committed,
so that running needs the standard library only. After a change to a `.po` file, compile all of them with Babel:

    pybabel compile --domain chatgate --directory src/chatgate/locales

Nothing here knows a protocol, a status or a setting. The pipeline calls it to render what went wrong, the application
to resolve the configured language.
"""

from __future__ import annotations

import gettext
import logging
import re
from functools import lru_cache
from pathlib import Path

from chatgate.vocabulary.errors import Parameter, Phrase

LANGUAGES = ("en_US", "zh_CN", "zh_TW", "ru_RU")
"""Every language there is a catalogue for; the first one is used when nothing better is known."""

_LOCALES = Path(__file__).parent / "locales"
_LOG = logging.getLogger("chatgate.i18n")

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_LONGEST_VALUE = 2000  # characters; a caller who sends a megabyte as a model's name does not get it all back

_HEADER_BYTES = 512
_HEADER_ITEMS = 20
# RFC 9110, sections 12.4.2 and 12.5.4. An underscore is taken for a hyphen, because clients do send `zh_CN`.
_HEADER_ITEM = re.compile(
    rb"[ \t]*([a-z]{2,8}(?:[-_][a-z0-9]{1,8})*)[ \t]*(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*",
    re.IGNORECASE,
)
_TRADITIONAL_REGIONS = frozenset({b"tw", b"hk", b"mo"})


def language_of_locale(name: str) -> str | None:
    """Return the language that a POSIX locale name or a setting stands for, None when it names no language.

    `C`, `POSIX` and the empty string name none. `zh` and `zh_CN` are Simplified Chinese and every other `zh…` is
    Traditional, as the documented rule of `LANG` has it, also for `zh_SG`. Unknown languages are read as English.
    Encoding (`.UTF-8`), modifier (`@latin`) and case do not matter; a hyphen is as good as an underscore.
    """
    plain = re.split(r"[.@]", name.strip(), maxsplit=1)[0].lower().replace("-", "_")
    if plain in {"", "c", "posix"}:
        return None
    if plain in {"zh", "zh_cn"}:
        return "zh_CN"
    if plain.startswith("zh"):
        return "zh_TW"
    return "ru_RU" if plain.startswith("ru") else "en_US"


def language_of_header(accept_language: bytes | None) -> str | None:
    """Return the language that an Accept-Language header likes best, None when it names none of ours.

    The first of equals wins, `q=0` and `*` name nothing, and items that are not well-formed are skipped. Only the
    first 512 bytes and 20 items are looked at.
    """
    if not accept_language:
        return None
    if len(accept_language) > _HEADER_BYTES:  # The last item may be cut in the middle, and say something else then.
        accept_language = accept_language[: _HEADER_BYTES + 1].rpartition(b",")[0]
    return _best_language(accept_language)


@lru_cache(maxsize=256)
def _best_language(header: bytes) -> str | None:
    best, best_quality = None, 0.0
    for item in header.split(b",", _HEADER_ITEMS)[:_HEADER_ITEMS]:
        match = _HEADER_ITEM.fullmatch(item)
        if match is None:
            continue
        language = _language_of_tag(match[1])
        quality = float(match[2] or b"1")
        if language is not None and quality > best_quality:
            best, best_quality = language, quality
    return best


def _language_of_tag(tag: bytes) -> str | None:
    """Return the language of a tag such as `zh-Hant-HK`; a script says more than a region."""
    primary, *subtags = tag.lower().replace(b"_", b"-").split(b"-")
    if primary == b"zh":
        if b"hans" in subtags:
            return "zh_CN"
        return "zh_TW" if b"hant" in subtags or not _TRADITIONAL_REGIONS.isdisjoint(subtags) else "zh_CN"
    return {b"en": "en_US", b"ru": "ru_RU"}.get(primary)


class Catalogues:
    """The messages in every language, read once at start."""

    __slots__ = ("_messages", "_pieces", "_reported")

    def __init__(self) -> None:
        """Read the compiled catalogues; one that is missing or broken raises here (OSError when it is missing)."""
        self._messages = {name: gettext.translation("chatgate", _LOCALES, [name]) for name in LANGUAGES}
        self._pieces: dict[tuple[str, str], tuple[str, ...]] = {}
        self._reported: set[tuple[str, str]] = set()

    def translate(self, language: str, phrase: Phrase) -> str:
        """Return the text of a phrase; a language without a catalogue is read as English.

        A nested phrase is rendered in the same language, and a tuple of them is joined by that language's separator.
        Values are put in as they are: braces in them mean nothing, and one of more than 2000 characters is cut.
        Never raises: a code without a message stands for itself, a missing parameter leaves an ellipsis, and either
        is logged once as the bug that it is.
        """
        pieces = self._pieces.get((language, phrase.code)) or self._split(language, phrase.code)
        if len(pieces) == 1:
            return pieces[0]
        texts = list(pieces)
        for index in range(1, len(pieces), 2):
            value = phrase.parameters.get(pieces[index])
            texts[index] = self._missing(phrase.code, pieces[index]) if value is None else self._text(language, value)
        return "".join(texts)

    def _split(self, language: str, code: str) -> tuple[str, ...]:
        """Keep a message as text and names of parameters in turn, beginning and ending with text."""
        message = self._messages.get(language, self._messages[LANGUAGES[0]]).gettext(code)
        if message == code:
            _LOG.error("There is no message %s.", code)
        pieces = tuple(_PLACEHOLDER.split(message))
        if language in self._messages:
            self._pieces[language, code] = pieces
        return pieces

    def _text(self, language: str, value: Parameter) -> str:
        if isinstance(value, Phrase):
            return self.translate(language, value)
        if isinstance(value, tuple):
            separator = self.translate(language, Phrase("list_separator"))
            return separator.join([self.translate(language, part) for part in value])
        text = str(value)
        return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"

    def _missing(self, code: str, name: str) -> str:
        if (code, name) not in self._reported:
            self._reported.add((code, name))
            _LOG.error("The message %s was asked for without its parameter %s.", code, name)
        return "…"
