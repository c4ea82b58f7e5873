"""Languages are understood as documented, and messages are rendered in them."""

# The punctuation of the languages under test is no confusion.
# ruff: noqa: RUF001

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.i18n import LANGUAGES, Catalogues, language_of_header, language_of_locale
from chatgate.vocabulary.errors import Phrase

_CATALOGUES = Catalogues()


# --- Which language ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("zh_CN", "zh_CN"),
        ("zh", "zh_CN"),
        ("ZH-cn", "zh_CN"),
        ("zh_CN.UTF-8", "zh_CN"),
        ("zh_CN.GB18030@stroke", "zh_CN"),
        ("zh_TW", "zh_TW"),
        ("zh_TW.Big5", "zh_TW"),
        ("zh-HK", "zh_TW"),
        ("zh_SG.UTF-8", "zh_TW"),
        ("zh_Hant", "zh_TW"),
        ("en_US.UTF-8", "en_US"),
        ("en", "en_US"),
        ("en_GB", "en_US"),
        ("ru_RU.KOI8-R", "ru_RU"),
        ("ru", "ru_RU"),
        ("ru_UA@currency", "ru_RU"),
        (" ru_RU ", "ru_RU"),
        ("de_DE.UTF-8", "en_US"),
        ("klingon", "en_US"),
        ("_", "en_US"),
        ("C", None),
        ("c.utf8", None),
        ("C.UTF-8", None),
        ("POSIX", None),
        ("posix.UTF-8", None),
        ("", None),
        ("   ", None),
        ("@euro", None),
    ],
)
def test_a_locale_name_stands_for_a_language(name: str, language: str | None) -> None:
    """LANG is read by the documented rule."""
    assert language_of_locale(name) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, None),
        (b"", None),
        (b"*", None),
        (b"*;q=0.9, de", None),
        (b"de-DE,de;q=0.9", None),
        (b"de-DE,de;q=0.9,en;q=0.8", "en_US"),
        (b"en", "en_US"),
        (b"EN-gb", "en_US"),
        (b"ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru_RU"),
        (b"zh", "zh_CN"),
        (b"zh-CN,zh;q=0.9", "zh_CN"),
        (b"zh_CN", "zh_CN"),
        (b"zh-SG", "zh_CN"),
        (b"zh-Hans", "zh_CN"),
        (b"zh-Hans-HK", "zh_CN"),
        (b"zh-TW,zh;q=0.9,en;q=0.8", "zh_TW"),
        (b"zh-HK", "zh_TW"),
        (b"zh-MO", "zh_TW"),
        (b"zh-Hant", "zh_TW"),
        (b"zh-hant-cn", "zh_TW"),
        (b"en;q=0.5, ru;q=0.7, zh;q=0.6", "ru_RU"),
        (b"en;q=0.5, ru;q=0.5", "en_US"),
        (b"en;q=0, ru;q=0.001", "ru_RU"),
        (b"en;q=0", None),
        (b"en;q=0.000", None),
        (b" \ten ; q=0.5 , ru ;q=1.000", "ru_RU"),
        (b"en;Q=0.5,ru;Q=0.6", "ru_RU"),
        (b"en;q=2", None),
        (b"en;q=-1", None),
        (b"en;q=nan, ru;q=0.1", "ru_RU"),
        (b"en;q=0.1234, ru;q=0.1", "ru_RU"),
        (b"en;level=1", None),
        (b",,,ru,,", "ru_RU"),
        (b"english", None),
        (b"rue", None),
        (b"-en", None),
        (b"en-", None),
        (b"\xff\xfe\x00, ru", "ru_RU"),
        ("en-ß".encode(), None),
        (b'{"a": 1}', None),
    ],
)
def test_the_best_language_of_a_header_wins(header: bytes | None, language: str | None) -> None:
    """Accept-Language is read by quality, and what is not well-formed in it does not count."""
    assert language_of_header(header) == language


def test_only_the_beginning_of_a_header_is_looked_at() -> None:
    """Twenty items and 512 bytes count, and an item that is cut in the middle does not."""
    assert language_of_header(b"de," * 19 + b"ru") == "ru_RU"
    assert language_of_header(b"de," * 20 + b"ru") is None
    assert language_of_header(b"en;q=0.1," + b" " * 501 + b"ru") == "ru_RU"
    assert language_of_header(b"en;q=0.1," + b" " * 502 + b"ru") == "en_US"
    assert language_of_header(b"en;q=0.1," + b" " * 498 + b"zh-TW") == "zh_TW"
    assert language_of_header(b"en;q=0.1," + b" " * 501 + b"zh-TW") == "en_US"
    assert language_of_header(b"en;q=0.1," + b" " * 501 + b"ru,zh") == "ru_RU"
    assert language_of_header(b"a" * 100_000) is None


@given(st.one_of(st.binary(max_size=700), st.text("enruzh-_*;q=01., \t", max_size=700).map(str.encode)))
def test_any_header_is_a_language_or_none(header: bytes) -> None:
    """No header is an error."""
    assert language_of_header(header) in {*LANGUAGES, None}


@given(st.text())
def test_any_locale_name_is_a_language_or_none(name: str) -> None:
    """No locale name is an error."""
    assert language_of_locale(name) in {*LANGUAGES, None}


# --- Rendering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en_US", "Too many requests; the limit is 50 per hour, 200 per day. Please try again in 7 min."),
        ("zh_CN", "请求过于频繁，已达到上限：每小时 50 次、每天 200 次。请在 7 分钟后重试。"),
        ("zh_TW", "請求過於頻繁，已達到上限：每小時 50 次、每天 200 次。請在 7 分鐘後重試。"),
        ("ru_RU", "Слишком много запросов; предел: 50 в час, 200 в сутки. Повторите через 7 мин."),
    ],
)
def test_phrases_render_inside_messages(language: str, text: str) -> None:
    """Phrases within a message are in its language, and several are joined as that language lists things."""
    limits = (Phrase("limit_per_hour", {"amount": 50}), Phrase("limit_per_day", {"amount": 200}))
    phrase = Phrase("rate_limit_exceeded", {"limits": limits, "wait": Phrase("wait_minutes", {"minutes": 7})})
    assert _CATALOGUES.translate(language, phrase) == text


def test_an_unknown_language_is_read_as_english() -> None:
    """A language without a catalogue gets English words, also within a phrase."""
    phrase = Phrase("wrong_type", {"field": "model", "expected": Phrase("type_string")})
    assert _CATALOGUES.translate("de_DE", phrase) == "The field “model” must be a string."


@given(value=st.text(max_size=500))
def test_values_stay_as_they_are(value: str) -> None:
    """Nothing in a caller's text is taken for a placeholder."""
    text = _CATALOGUES.translate("en_US", Phrase("unknown_model", {"model": value, "field": "other"}))
    assert text == f"There is no model “{value}” here. GET /v1/models lists those there are."


def test_values_that_look_like_placeholders_mean_nothing() -> None:
    """A value with another parameter's placeholder is not filled in again."""
    text = _CATALOGUES.translate(
        "en_US", Phrase("conflicting_fields", {"first": "{second}", "second": "{0.__class__}%s\\1"})
    )
    assert "“{second}” and “{0.__class__}%s\\1”" in text


def test_long_values_are_cut() -> None:
    """A caller does not get a megabyte of its own back."""
    text = _CATALOGUES.translate("en_US", Phrase("unknown_model", {"model": "m" * 1_000_000}))
    assert "m" * 2000 + "…”" in text
    assert len(text) < 2200


def test_a_missing_parameter_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in the parameters costs the caller a word and not the answer, and shows once in the log."""
    catalogues = Catalogues()
    with caplog.at_level(logging.ERROR):
        texts = {catalogues.translate("en_US", Phrase("missing_field", {"model": "x"})) for _ in range(3)}
    assert texts == {"The field “…” is missing. Please add it."}
    assert len(caplog.records) == 1
    assert "missing_field" in caplog.text


def test_an_unknown_code_is_logged_and_stands_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A code without a message never raises for a caller."""
    catalogues = Catalogues()
    with caplog.at_level(logging.ERROR):
        assert {catalogues.translate("ru_RU", Phrase("no_such_code")) for _ in range(3)} == {"no_such_code"}
    assert len(caplog.records) == 1
