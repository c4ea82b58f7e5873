"""Every message exists, in every language, as the source uses it and as a native reader expects it."""

# The punctuation and letters of the languages under test are no confusion.
# ruff: noqa: RUF001

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

import chatgate
from chatgate.i18n import LANGUAGES, Catalogues
from chatgate.vocabulary.errors import Kind, Overloaded, Parameter, Phrase

_SOURCE = Path(chatgate.__file__).parent
_LOCALES = _SOURCE / "locales"


def _read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, abort_invalid=True)


def _texts(catalog: Catalog) -> dict[str, str]:
    return {str(message.id): str(message.string) for message in catalog if message.id}


_TEMPLATE = _read(_LOCALES / "chatgate.pot")
_CODES = set(_texts(_TEMPLATE))
_CATALOGUES = {name: _read(_LOCALES / name / "LC_MESSAGES" / "chatgate.po") for name in LANGUAGES}
_TEXTS = {name: _texts(catalog) for name, catalog in _CATALOGUES.items()}


def _placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{([^{}]*)\}", text))


# --- The catalogues ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_has_a_text_in_every_language(language: str) -> None:
    """A catalogue has exactly the listed codes, none empty, marked as doubtful, or left over from earlier."""
    catalog = _CATALOGUES[language]
    assert set(_TEXTS[language]) == _CODES
    assert [code for code, text in _TEXTS[language].items() if not text or text == code] == []
    assert [message.id for message in catalog if message.id and message.fuzzy] == []
    assert not catalog.obsolete
    assert catalog.locale_identifier == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_are_those_of_english(language: str) -> None:
    """A message has the same parameters in every language."""
    for code in _CODES:
        assert _placeholders(_TEXTS[language][code]) == _placeholders(_TEXTS["en_US"][code]), code


def test_placeholders_are_explained() -> None:
    """The list of codes names every parameter, and braces hold nothing else."""
    for message in _TEMPLATE:
        if message.id:
            for name in _placeholders(_TEXTS["en_US"][str(message.id)]):
                assert re.fullmatch(r"[a-z_]+", name)
                assert re.search(rf"\b{name}\b", " ".join(message.auto_comments)), message.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogues_are_up_to_date(language: str) -> None:
    """What is committed as `.mo` is what its `.po` compiles to."""
    compiled = io.BytesIO()
    write_mo(compiled, _CATALOGUES[language])
    compiled.seek(0)
    with (_LOCALES / language / "LC_MESSAGES" / "chatgate.mo").open("rb") as committed:
        assert _texts(read_mo(committed)) == _texts(read_mo(compiled)) == _TEXTS[language]


def test_there_is_no_other_catalogue() -> None:
    """Every folder of the catalogues is a language that callers can get."""
    assert {path.name for path in _LOCALES.iterdir() if path.is_dir()} == set(LANGUAGES)


def _sample(name: str) -> Parameter:
    samples: dict[str, Parameter] = {
        "limits": (Phrase("limit_per_hour", {"amount": 50}), Phrase("limit_per_day", {"amount": 200})),
        "wait": Phrase("wait_minutes", {"minutes": 7}),
        "expected": Phrase("type_string"),
    }
    return samples.get(name, f"<{name}>")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_renders(language: str, caplog: pytest.LogCaptureFixture) -> None:
    """With its parameters a message is complete: every value is in it and no placeholder is left."""
    catalogues = Catalogues()
    for code in _CODES:
        names = _placeholders(_TEXTS["en_US"][code])
        text = catalogues.translate(language, Phrase(code, {name: _sample(name) for name in names}))
        assert "{" not in text
        assert "}" not in text
        assert all(str(_sample(name)) in text for name in names if isinstance(_sample(name), str))
    assert caplog.records == []


# --- How they are written ---------------------------------------------------------------------------------------------

_QUOTES = {"en_US": "“”’", "zh_CN": "“”", "zh_TW": "「」", "ru_RU": "«»"}
_MAINLAND_WORDS = ("令牌", "密匙", "網關", "字段", "字節", "默認", "服務器", "網絡", "信息", "接口", "對象", "字符串")


@pytest.mark.parametrize("language", LANGUAGES)
def test_quotes_are_the_languages_own(language: str) -> None:
    """Each language uses its own quotation marks, and the straight ones appear nowhere."""
    foreign = set("\"'" + "".join(_QUOTES.values())) - set(_QUOTES[language])
    assert {code: text for code, text in _TEXTS[language].items() if foreign & set(text)} == {}


@pytest.mark.parametrize("language", ["zh_CN", "zh_TW"])
def test_chinese_punctuation_is_full_width(language: str) -> None:
    """No Western punctuation follows or precedes a Chinese character."""
    mixed = re.compile(r"[\u4e00-\u9fff] ?[,.;:!?()]|[,.;:!?()] ?[\u4e00-\u9fff]")
    assert {code: text for code, text in _TEXTS[language].items() if mixed.search(text)} == {}


@pytest.mark.parametrize(("language", "encoding"), [("zh_CN", "gb2312"), ("zh_TW", "big5")])
def test_chinese_characters_are_of_one_script(language: str, encoding: str) -> None:
    """The national character set of each side holds every character of its texts."""
    for text in _TEXTS[language].values():
        text.encode(encoding)


def test_taiwan_reads_its_own_words() -> None:
    """Traditional characters alone do not make a text for Taiwan."""
    assert {code for code, text in _TEXTS["zh_TW"].items() if any(word in text for word in _MAINLAND_WORDS)} == set()


def test_russian_words_are_all_cyrillic() -> None:
    """No Latin letter stands for its Cyrillic double."""
    mixed = re.compile(r"[а-яё][a-z]|[a-z][а-яё]", re.IGNORECASE)
    assert {code: text for code, text in _TEXTS["ru_RU"].items() if mixed.search(text)} == {}


# --- What the source says ---------------------------------------------------------------------------------------------

_REASON_INDEX = {"Phrase": 0, "UpstreamError": 0, "Overloaded": 0, "CallerError": 1, "GateError": 1}
_TREES = {
    path.relative_to(_SOURCE): ast.parse(path.read_text("utf-8"))
    for path in sorted(_SOURCE.rglob("*.py"))
    if path.relative_to(_SOURCE).parts[0] not in {"cli", "settings"}  # These speak English, to operators.
}


def _reason_indices() -> dict[str, int]:
    """Return where the reason stands among the positional arguments, for all that takes one."""
    indices = dict(_REASON_INDEX)
    for tree in _TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                taken = [argument for argument in node.args.args if argument.arg not in {"self", "cls"}]
                for index, argument in enumerate(taken):
                    if argument.arg == "reason" and argument.annotation and _name_of(argument.annotation) == "str":
                        indices[node.name] = index
    return indices


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _used_reasons() -> Iterator[tuple[str, str, set[str] | None]]:
    """Yield each place with a reason in its text: the place, the code, and the parameters' names where they show."""
    indices = _reason_indices()
    for path, tree in _TREES.items():
        for node in ast.walk(tree):
            holder: ast.expr | None = None
            parameters: set[str] | None = None
            if isinstance(node, ast.Call) and (name := _name_of(node.func)) in indices:
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                holder = keywords.get("reason") or next(iter(node.args[indices[name] :]), None)
                if name in _REASON_INDEX:
                    shown = node.args[1] if name == "Phrase" and len(node.args) > 1 else keywords.get("parameters")
                    parameters = _keys_of(shown)
            elif isinstance(node, ast.Assign) and _name_of(node.targets[0]).lstrip("_") == "reason":
                holder = node.value
            if holder is not None:
                yield from ((f"{path}:{holder.lineno}", code, parameters) for code in _codes_in(holder))


def _codes_in(holder: ast.AST) -> Iterator[str]:
    """Yield the codes in an expression; the beginning of an f-string stands for every code that begins so."""
    if isinstance(holder, ast.JoinedStr):
        beginning = holder.values[0].value if isinstance(holder.values[0], ast.Constant) else ""
        yield from [code for code in _CODES if beginning and code.startswith(str(beginning))] or [str(beginning)]
    elif isinstance(holder, ast.Constant):
        if isinstance(holder.value, str) and holder.value:
            yield holder.value
    else:
        for part in ast.iter_child_nodes(holder):
            yield from _codes_in(part)


def _keys_of(shown: ast.expr | None) -> set[str] | None:
    if shown is None:
        return set()
    if not isinstance(shown, ast.Dict) or None in shown.keys:
        return None
    return {key.value for key in shown.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


_ADDED_AT_THE_EDGE = {"internal_error": {"request_id"}}
"""Parameters that only the place which renders an error knows."""


def test_every_reason_in_the_source_has_a_message() -> None:
    """Whatever the gateway refuses a call with, the catalogues have words for it, and their parameters are given."""
    used = list(_used_reasons())
    assert used
    for place, code, parameters in used:
        assert code in _CODES, f"{place}: there is no message {code}"
        if parameters is not None:
            missing = _placeholders(_TEXTS["en_US"][code]) - parameters - _ADDED_AT_THE_EDGE.get(code, set())
            assert not missing, f"{place}: {code} needs {missing}"


def test_reasons_by_default_have_a_message() -> None:
    """Errors whose reason is a default value of the vocabulary are in the catalogues too."""
    assert Overloaded().reason in _CODES
    assert Kind.INTERNAL_ERROR.value in _CODES
