"""Own the command `chatgate import` and its exit codes: 0 fine, 1 when something cannot be read or written.

What moves in goes to standard output or to files, what does not is told on standard error, a line for each thing. The
old program's files are only read, and nothing is overwritten.
"""

from __future__ import annotations

import json
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from chatgate.accounting.catalogue import Catalogue
from chatgate.accounting.prices import PriceList
from chatgate.admission import gateway_keys
from chatgate.cli.importing import litellm, one_api, tokens
from chatgate.cli.importing.document import render
from chatgate.cli.importing.plan import Plan
from chatgate.cli.importing.writing import key_files, written
from chatgate.cli.keys.shown import as_object
from chatgate.cli.options import load_or_exit, storage_options
from chatgate.cli.storage import opened, peppers_of
from chatgate.providers import spec
from chatgate.storage import foreign
from chatgate.storage import keys as stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chatgate.settings import Settings
    from chatgate.vocabulary.keys import KeyRecord, NewKey

Command = TypeVar("Command", bound="Callable[..., object]")
Made = tuple["KeyRecord", str]
"""A key that was made, and its text."""

_MAX_CONFIG_BYTES = 1 << 20

_OPTIONS = (
    click.argument("file", type=click.Path(path_type=Path)),
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write the configuration there; else to standard output.",
    ),
    click.option("--inline-keys", is_flag=True, help="Write providers' keys into it; else into files beside it."),
    click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
    click.option("--json", "as_json", is_flag=True, help="For programs: one object."),
)


def _import_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group("import")
def importing() -> None:
    """Move in from another gateway: write its models and make its keys, and say what could not be carried."""


@importing.command("one-api")
@_import_options
@storage_options
def from_one_api(
    *, file: Path, output: Path | None, inline_keys: bool, dry_run: bool, as_json: bool, **options: object
) -> None:
    """Move in from one-api or new-api: FILE is its SQLite database, such as one-api.db.

    Channels become upstreams and models, tokens become new keys: the texts of the old ones cannot be kept. The new
    ones are printed, this once.
    """
    settings = load_or_exit(options)
    plan = _new_plan()
    try:
        tables = foreign.read_tables(file, one_api.COLUMNS)
    except foreign.ForeignFileError as error:
        _end(f"{file} cannot be read: {error}")
    missing = [table for table in ("channels", "tokens") if table not in tables]
    if missing:
        _end(f"{file} is no database of one-api or new-api: it has no table {missing[0]}")
    one_api.read_channels(tables["channels"], plan, new_api=one_api.is_new_api(tables))
    now = datetime.now(UTC)
    tokens.read_tokens(tables, plan, now)
    _tell_unpriced(plan, now)
    _carry_out(plan, settings, output, inline_keys=inline_keys, dry_run=dry_run, as_json=as_json)


@importing.command("litellm")
@_import_options
def from_litellm(*, file: Path, output: Path | None, inline_keys: bool, dry_run: bool, as_json: bool) -> None:
    """Move in from LiteLLM: FILE is its config.yaml."""
    plan = _new_plan()
    try:
        litellm.read_config(litellm.parse(_text_of(file)), plan)
    except litellm.UnreadableError as error:
        _end(f"{file} is no configuration of LiteLLM: {error}")
    _carry_out(plan, None, output, inline_keys=inline_keys, dry_run=dry_run, as_json=as_json)


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened_file:
            content = opened_file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        _end(f"{file} cannot be read: {error.strerror}")
    if len(content) > _MAX_CONFIG_BYTES:
        _end(f"{file} is larger than 1 MiB")
    return content.decode("utf-8-sig", "replace")


def _new_plan() -> Plan:
    return Plan({name: provider.base_url for name, provider in spec.load().items()})


def _tell_unpriced(plan: Plan, now: datetime) -> None:
    """Name the models that no key with a budget can use, because nobody knows what they cost."""
    if not any(key.budgets for key in plan.keys):
        return
    prices = PriceList((), Catalogue())
    upstreams = {upstream.name: upstream for upstream in plan.upstreams}
    for model in plan.models:
        for target in model.targets:
            at = upstreams[target.upstream]
            if prices.tariff(target.model, now, provider=at.provider, base_url=at.base_url) is None:
                plan.lose(f"model {model.name}", "keys with a budget cannot use it until [[prices]] says what it costs")
                break


def _carry_out(
    plan: Plan,
    settings: Settings | None,
    output: Path | None,
    *,
    inline_keys: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the files, make the keys, and tell everything."""
    text = render(plan, inline_keys=inline_keys)
    directory = Path() if output is None else output.parent
    files = {} if inline_keys else key_files(plan, directory)
    if output is not None:
        files[output] = text
    made: list[Made] = []
    if not dry_run:
        try:
            with written(files):
                made = [] if settings is None else _make_keys(plan, settings)
        except OSError as error:
            _end(f"{error.filename or output} cannot be written: {error.strerror}; nothing was done")
    if as_json:
        now = datetime.now(UTC)
        told = {
            "dry_run": dry_run,
            "config": text,
            "files": [str(path) for path in files],
            "keys": [as_object(record, now, key) for record, key in made],
            "not_carried": plan.losses,
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    if output is None or dry_run:
        click.echo(text, nl=False)
    _tell(plan, files, made, is_text_shown=output is None or dry_run, dry_run=dry_run)


def _make_keys(plan: Plan, settings: Settings) -> list[Made]:
    """Make the keys, all or none. A token that has a key from an earlier import gets no other."""
    if not plan.keys:
        return []
    with opened(settings) as database:
        pepper = peppers_of(settings, database)[0]
        now = datetime.now(UTC)
        wanted = []
        for new in plan.keys:
            if any(_is_from_same(record, new) for record in database.read(stored.find_by_name, new.name)):
                plan.lose(f"key {new.name}", "is there already, from an earlier import, and is left as it is")
            else:
                key = gateway_keys.make(secrets.token_bytes)
                wanted.append((new, key, gateway_keys.digest(pepper, key)))
        return database.write(
            # Lists of keys are in the order of their making; so these keep that of the tokens.
            lambda connection: [
                (stored.create(connection, new, key.id, digest, key.display, now + timedelta(microseconds=n)), key.text)
                for n, (new, key, digest) in enumerate(wanted)
            ]
        )


def _is_from_same(record: KeyRecord, new: NewKey) -> bool:
    return record.revoked_at is None and (record.owner, record.notes) == (new.owner, new.notes)


def _tell(plan: Plan, files: Mapping[Path, str], made: Sequence[Made], *, is_text_shown: bool, dry_run: bool) -> None:
    """Tell people what was done; on standard error while standard output has the configuration."""

    def say(line: str = "") -> None:
        click.echo(line, err=is_text_shown)

    keys = plan.keys if dry_run else made
    say(f"{_many(len(plan.upstreams), 'upstream')}, {_many(len(plan.models), 'model')}, {_many(len(keys), 'key')}.")
    for path in files:
        say(f"{'would be written' if dry_run else 'written'}: {path}")
    if made:
        say("\nThe old tokens' texts cannot be kept. Hand these out now; they are never shown again:\n")
        width = max(len(record.name) for record, _ in made)
        for record, key in made:
            say(f"  {record.name:<{width}}  {key}{'' if record.enabled else '  (disabled)'}")
    if plan.losses:
        click.echo("\nNot carried, or not as it was:", err=True)
        for line in plan.losses:
            click.echo(f"  {line}", err=True)


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _end(problem: str) -> NoReturn:
    click.echo(f"chatgate: {problem}", err=True)
    sys.exit(1)
