"""Own the command `chatgate keys` and its exit codes: 0 fine, 1 no such key, 2 wrong usage, 78 bad configuration.

A key's secret is printed by `create` and `rotate` and never again: nothing keeps it. A gateway that runs on the same
database hears of every change within about a second.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import click

from chatgate.admission import gateway_keys
from chatgate.cli.keys import shown
from chatgate.cli.keys.options import fields_of, key_options
from chatgate.cli.options import load_or_exit, storage_options
from chatgate.cli.storage import opened, peppers_of
from chatgate.storage import keys as stored
from chatgate.storage.errors import KeyNotFound, KeyRevoked
from chatgate.vocabulary.identity import GATEWAY_KEY_PREFIX
from chatgate.vocabulary.keys import InvalidField, KeyChanges, KeyRecord, NewKey, check

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chatgate.settings import Settings
    from chatgate.storage.database import Database

_SHOWN_KEY = re.compile(rf"{GATEWAY_KEY_PREFIX}([0-9A-Za-z]+)(-.*)?")
_PROBLEMS = {
    "empty": "must not be empty",
    "too_long": "is too long",
    "too_many": "lists too many",
    "unprintable": "has characters that cannot be printed",
    "out_of_range": "is out of range",
}
_OPTIONS_OF_FIELDS = {
    "limits": "--limit",
    "budgets": "--budget-usd",
    "allowed_models": "--models",
    "allowed_addresses": "--allow",
    "expires_at": "--expires",
}

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_which = click.argument("key", metavar="ID|NAME")


@click.group("keys")
def keys() -> None:
    """Make, look at, change and end the keys of the gateway, while it runs or not."""


@keys.command("create")
@click.argument("name")
@key_options
@_as_json
@storage_options
def create(*, name: str, as_json: bool, **options: object) -> None:
    """Make a key and print it, this once."""
    fields = fields_of(options)
    new = NewKey(name, **fields)
    _check(new)
    settings = _settings(options)
    now = datetime.now(UTC)
    with opened(settings) as database:
        peppers = peppers_of(settings, database)
        key = gateway_keys.make(secrets.token_bytes)
        twins = [twin for twin in database.read(stored.find_by_name, name) if twin.revoked_at is None]
        digest = gateway_keys.digest(peppers[0], key)
        record = database.write(stored.create, new, key.id, digest, key.display, now)
        _hand_over(record, key, "is made", settings, database, as_json=as_json)
    if twins:
        _note(f"there was a key of that name already ({', '.join(twin.id for twin in twins)}); now use their ids")


@keys.command("list")
@click.option("--owner", metavar="TEXT", help="Only the keys of this owner; '' for nobody's.")
@_as_json
@storage_options
def list_keys(*, owner: str | None, as_json: bool, **options: object) -> None:
    """List every key, oldest first."""
    with opened(_settings(options)) as database:
        records = _every_key(database, owner)
        location = database.location
    now = datetime.now(UTC)
    if as_json:
        _print_json([shown.as_object(record, now) for record in records])
    elif records:
        _print(shown.as_table(records, now))
    else:
        whose = "keys" if owner is None else "keys of this owner"
        _note(f"there are no {whose} in {location}; `chatgate keys create NAME` makes one")


@keys.command("show")
@_which
@_as_json
@storage_options
def show(*, key: str, as_json: bool, **options: object) -> None:
    """Show what a key may; never the key itself."""
    with opened(_settings(options)) as database:
        record = _find(database, key)
    _tell(record, as_json=as_json)


@keys.command("update")
@_which
@click.option("--name", metavar="TEXT", help="Another name.")
@click.option("--enable/--disable", "enabled", default=None, help="Let it open the gateway again, or not for now.")
@key_options
@_as_json
@storage_options
def update(*, key: str, name: str | None, enabled: bool | None, as_json: bool, **options: object) -> None:
    """Change what a key may. An option replaces all that it said before; what is not given stays."""
    fields = fields_of(options)
    if name is not None:
        fields["name"] = name
    if enabled is not None:
        fields["enabled"] = enabled
    if not fields:
        raise click.UsageError("nothing to change; say what, for example --expires 30d")
    changes = KeyChanges(**fields)
    _check(changes)
    with opened(_settings(options)) as database:
        record = _find(database, key)
        try:
            record = database.write(stored.change, record.id, changes)
        except KeyRevoked:
            _end(f"{_called(record)} is revoked and stays as it is")
    _tell(record, as_json=as_json)


@keys.command("revoke")
@_which
@_as_json
@storage_options
def revoke(*, key: str, as_json: bool, **options: object) -> None:
    """End a key for ever. To stop one for a while: update --disable."""
    with opened(_settings(options)) as database:
        record = database.write(stored.revoke, _find(database, key).id, datetime.now(UTC))
    if as_json:
        _tell(record, as_json=True)
    else:
        click.echo(f"{_called(record)} is revoked; a running gateway refuses it within a second or two.")


@keys.command("rotate")
@_which
@_as_json
@storage_options
def rotate(*, key: str, as_json: bool, **options: object) -> None:
    """Give a key another secret and print it, this once. The old one stops working."""
    settings = _settings(options)
    with opened(settings) as database:
        record = _find(database, key)
        peppers = peppers_of(settings, database)
        made = gateway_keys.make(secrets.token_bytes, record.id)
        digest = gateway_keys.digest(peppers[0], made)
        try:
            record = database.write(stored.rotate, record.id, digest, datetime.now(UTC))
        except KeyRevoked:
            _end(f"{_called(record)} is revoked and stays so; make another one with `chatgate keys create`")
        _hand_over(record, made, "has a new secret; the old one stops working", settings, database, as_json=as_json)


def _settings(options: Mapping[str, object]) -> Settings:
    return load_or_exit({name: options[name] for name in ("config", "data")})


def _every_key(database: Database, owner: str | None) -> list[KeyRecord]:
    found: list[KeyRecord] = []
    page = database.read(stored.list_keys, owner=owner, limit=stored.MAX_LISTED)
    while page:
        found += page
        page = database.read(stored.list_keys, owner=owner, after=page[-1], limit=stored.MAX_LISTED)
    return found


def _find(database: Database, asked: str) -> KeyRecord:
    """Return the key with this id, shown text or name; of several of one name the only one that is not revoked."""
    pasted = _SHOWN_KEY.fullmatch(asked)
    try:
        return database.read(stored.get, pasted[1] if pasted else asked)
    except KeyNotFound:
        named = database.read(stored.find_by_name, asked)
    found = [record for record in named if record.revoked_at is None] or named
    if not found:
        what = pasted[1] if pasted else asked
        _end(f"there is no key with the id or name {what!r}; `chatgate keys list` shows them all")
    if len(found) > 1:
        _end(f"{len(found)} keys have the name {asked!r}; say which by its id: {', '.join(each.id for each in found)}")
    return found[0]


def _check(key: NewKey | KeyChanges) -> None:
    """Refuse what no key can be before anything is opened."""
    try:
        check(key)
    except InvalidField as error:
        field = error.field.partition(".")[0]
        option = _OPTIONS_OF_FIELDS.get(field, "NAME" if isinstance(key, NewKey) and field == "name" else f"--{field}")
        raise click.BadParameter(_PROBLEMS[error.problem], param_hint=option) from None


def _hand_over(
    record: KeyRecord,
    key: gateway_keys.GatewayKey,
    done: str,
    settings: Settings,
    database: Database,
    *,
    as_json: bool,
) -> None:
    """Print a key's text, the only time it is known."""
    if as_json:
        _print_json(shown.as_object(record, datetime.now(UTC), key.text))
        return
    click.echo(f"{_called(record)} {done}. Copy it now: it is not kept, and never shown again.\n")
    click.echo(f"    {key.text}\n")
    click.echo("It goes where a provider's key would: the API key of an SDK or app, or `Authorization: Bearer`.")
    click.echo(f"What it may is kept in {database.location}.")
    if settings.access.anonymous:
        _note("callers without a key are let in too; `anonymous = false` below [access] closes that door")


def _tell(record: KeyRecord, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    if as_json:
        _print_json(shown.as_object(record, now))
    else:
        _print(shown.as_lines(record, now))


def _called(record: KeyRecord) -> str:
    return f"Key {record.name} ({record.id})"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _note(text: str) -> None:
    click.echo(f"Note: {text}.", err=True)


def _end(problem: str) -> NoReturn:
    click.echo(f"chatgate: {problem}", err=True)
    sys.exit(1)
