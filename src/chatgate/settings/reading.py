"""Make the settings: command line over `CHATGATE_*` over the seed's names over `chatgate.toml` over defaults.

Owns the order of precedence and the rules that span several keys. `load_from_process` is the only place that looks at
the process; `load` is a function of what it is given and of the files that this names. Called by the commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import structs

from chatgate.settings.admins import read_admins
from chatgate.settings.budgets import read_budgets
from chatgate.settings.document import Document, read_document
from chatgate.settings.entries import Entries, Entry, fill, read_entries
from chatgate.settings.environment import Environment
from chatgate.settings.keys import (
    LISTS,
    SECTIONS,
    AccessKeys,
    HedgingKeys,
    LedgerKeys,
    ResponsesKeys,
    RetryKeys,
    SeedKeys,
    ServerKeys,
    StreamKeys,
    TimeoutKeys,
    TranslationKeys,
)
from chatgate.settings.limits import read_limits
from chatgate.settings.models import DEMO_PREFIX, answers_to, read_models
from chatgate.settings.network import read_host, read_network, read_route
from chatgate.settings.prices import read_prices
from chatgate.settings.problems import Place, Problems, nearest
from chatgate.settings.storage import read_storage
from chatgate.settings.tree import (
    AccessSettings,
    LedgerSettings,
    ModelSettings,
    RetrySettings,
    ServerSettings,
    Settings,
    StreamSettings,
)
from chatgate.settings.upstreams import read_one, read_upstreams
from chatgate.vocabulary.upstreams import Timeouts, Upstream

_FILE_NAME = "chatgate.toml"


def load_from_process(
    arguments: Mapping[str, object],
    providers: Mapping[str, str | None],
    demo_models: Collection[str] | None = None,
) -> Settings:
    """Load the settings of this process; see `load`."""
    return load(arguments, os.environ, Path.cwd(), providers, demo_models)


def load_upstream_from_process(
    table: Mapping[str, object], usual_key_env: str | None, providers: Mapping[str, str | None]
) -> Upstream:
    """Load one upstream that stands in no file, with the proxy of this process; see `upstreams.read_one`.

    Where the table names no key, the one in the variable `usual_key_env` is taken if it is set. Raises `SettingsError`.
    """
    problems = Problems()
    environment = Environment(os.environ, Path.cwd(), problems)
    if usual_key_env and not {"api_key_env", "api_key_file"} & table.keys() and environment.find_secret(usual_key_env):
        table = {**table, "api_key_env": usual_key_env}
    upstream = read_one(table, Path.cwd(), environment, providers, problems)
    problems.stop_if_any()
    assert upstream is not None  # noqa: S101 - it is only missing where something is wrong
    return upstream


def load(
    arguments: Mapping[str, object],
    environ: Mapping[str, str],
    directory: Path,
    providers: Mapping[str, str | None],
    demo_models: Collection[str] | None = None,
) -> Settings:
    """Load the settings, or raise `SettingsError` with everything that is wrong.

    `arguments` may hold `config`, `host`, `port`, `workers` and `data` of the command line, None for what was not
    given. `directory` is where relative paths start, and where `chatgate.toml` is looked for. `providers` maps the
    names of the catalogue to their base URLs, None for software that runs anywhere. `demo_models` are those that may
    be fallbacks, None when any name below `demo/` will do.
    """
    return _Reading(arguments, environ, directory, providers).read(demo_models)


class _Reading:
    """One load: what it was given, and what it found wrong so far."""

    def __init__(
        self,
        arguments: Mapping[str, object],
        environ: Mapping[str, str],
        directory: Path,
        providers: Mapping[str, str | None],
    ) -> None:
        self._providers = providers
        self._arguments = {name: value for name, value in arguments.items() if value not in {None, ""}}
        self._directory = directory
        self._problems = Problems()
        self._warnings: list[str] = []
        self._environment = Environment(environ, directory, self._problems)
        self._config = self._find_config()
        self._document = self._read_config()

    def read(self, demo_models: Collection[str] | None) -> Settings:
        """Read everything before complaining, so that one start shows every problem."""
        self._environment.check_names()
        self._refuse_unknown_tables()
        seed_sections, own_sections = self._environment.seed_sections(), self._environment.own_sections()
        sections = {
            section: self._merge(section, seed_sections[section], own_sections[section]) for section in SECTIONS
        }
        seed = fill(SeedKeys, read_entries(SeedKeys, self._environment.seed_values(), self._problems))
        server = self._read_server(sections["server"])
        access = self._read_access(sections["access"])
        limits = read_limits(self._document, seed, self._problems)
        budgets = read_budgets(self._document, self._problems)
        admins = read_admins(self._document, self._environment, self._problems)
        prices = read_prices(self._document, self._problems)
        accounts = read_upstreams(self._document, self._environment, self._providers, self._problems)
        names = self._document.names("upstreams") or [upstream.name for upstream in accounts.upstreams]
        models = read_models(self._document, names, demo_models, self._problems)
        if server.workers > 1:
            self._question_workers(server.workers, accounts.upstreams)
        self._question_default_model(seed.DEFAULT_MODEL, models)
        data = self._find_data_directory()
        storage = read_storage(self._environment, self._problems)
        if storage.redis is not None and (storage.database_url or "sqlite").startswith("sqlite"):
            self._warnings.append(
                "limits are counted in Redis, and keys and budgets are kept in this machine's SQLite alone; "
                "several machines need CHATGATE_DATABASE_URL too"
            )
        self._problems.stop_if_any()
        return Settings(
            config=self._config and self._config[0],
            data=data,
            server=server,
            access=access,
            limits=limits,
            budgets=budgets,
            admins=admins.admins,
            timeouts=Timeouts(**structs.asdict(fill(TimeoutKeys, sections["timeouts"]))),
            retry=RetrySettings(**structs.asdict(fill(RetryKeys, sections["retry"]))),
            streams=StreamSettings(**structs.asdict(fill(StreamKeys, sections["streams"]))),
            ledger=LedgerSettings(**structs.asdict(fill(LedgerKeys, sections["ledger"]))),
            drops_unsupported=fill(TranslationKeys, sections["translation"]).drop_unsupported,
            hedging_share=fill(HedgingKeys, sections["hedging"]).share_percent / 100,
            response_seconds=fill(ResponsesKeys, sections["responses"]).store_seconds,
            prices=prices,
            upstreams=accounts.upstreams,
            continuations=accounts.continuations,
            models=models,
            default_model=seed.DEFAULT_MODEL,
            database_url=storage.database_url,
            redis=storage.redis,
            pepper=storage.pepper,
            warnings=tuple(self._warnings),
            secret_values=accounts.secrets | storage.secrets | admins.secrets,
        )

    def _find_config(self) -> tuple[Path, str] | None:
        """Return the file and its path as written. One that is asked for must exist; one in the directory may."""
        asked = self._arguments.get("config")
        if asked is None:
            entry = self._environment.find("CHATGATE_CONFIG")
            asked = entry and entry.value
        if asked is not None:
            return self._directory / str(asked), str(asked)
        path = self._directory / _FILE_NAME
        return (path, _FILE_NAME) if os.path.lexists(path) else None

    def _read_config(self) -> Document:
        if self._config is None:
            return Document(_FILE_NAME, self._directory)
        return read_document(*self._config, self._problems)

    def _refuse_unknown_tables(self) -> None:
        known = [*SECTIONS, *LISTS]
        for name in self._document.tables:
            if name in known:
                continue
            owners = [section for section, table in SECTIONS.items() if name in table.__struct_fields__]
            hint = f"it belongs below [{owners[0]}]" if owners else nearest(name, known)
            self._problems.add(self._document.place((name,)), "is not a known key", hint)

    def _merge(self, section: str, seed: Entries, own: Entries) -> Entries:
        """Return a section's entries, each from the strongest source that has it; every source must be right."""
        merged: Entries = {}
        for layer in (self._section_of_file(section), seed, own, self._section_of_arguments(section)):
            merged |= read_entries(SECTIONS[section], layer, self._problems)
        return merged

    def _section_of_file(self, section: str) -> Entries:
        found = self._document.at((section,))
        if isinstance(found, dict):
            return {name: Entry(value, self._document.place((section, name))) for name, value in found.items()}
        if found is not None:
            self._problems.add(self._document.place((section,)), "must be a table", f"write it as [{section}]")
        return {}

    def _section_of_arguments(self, section: str) -> Entries:
        names = ("host", "port", "workers") if section == "server" else ()
        return {
            name: Entry(self._arguments[name], Place(f"--{name}", f"server.{name}"), is_text=True)
            for name in names
            if name in self._arguments
        }

    def _read_server(self, entries: Entries) -> ServerSettings:
        keys = fill(ServerKeys, entries)
        host, route = keys.host, keys.route
        if "host" in entries:
            with self._problems.about(entries["host"].place):
                host = read_host(keys.host)
        if "route" in entries:
            with self._problems.about(entries["route"].place):
                route = read_route(keys.route)
        if keys.workers > 1 and sys.platform != "linux":
            self._problems.add(
                entries["workers"].place, "must be 1", "only Linux spreads the calls of a port over processes"
            )
        return ServerSettings(
            host=host,
            port=keys.port,
            workers=keys.workers,
            route=route,
            language=keys.language,
            language_source=entries["language"].place.source if "language" in entries else "default",
            trusted_proxies=self._read_networks("server", "trusted_proxies", entries),
        )

    def _read_access(self, entries: Entries) -> AccessSettings:
        anonymous = fill(AccessKeys, entries).anonymous
        return AccessSettings(self._read_networks("access", "allow", entries), anonymous)

    def _read_networks(self, section: str, key: str, entries: Entries) -> tuple[str, ...]:
        networks: list[str] = []
        entry = entries.get(key)
        if entry is None:
            return ()
        for index, text in enumerate(entry.value):
            is_of_file = entry.place.line is not None
            place = self._document.place((section, key, index)) if is_of_file else entry.place
            with self._problems.about(place):
                networks.append(read_network(text.strip()))
        return tuple(networks)

    def _question_workers(self, workers: int, upstreams: tuple[Upstream, ...]) -> None:
        self._warnings += [
            f"upstream {upstream.name}: each of the {workers} workers counts for itself, "
            f"so up to {workers * upstream.max_in_flight} calls may be under way there"
            for upstream in upstreams
            if upstream.max_in_flight
        ]

    def _question_default_model(self, default_model: str | None, models: tuple[ModelSettings, ...]) -> None:
        if default_model is None or not models or default_model.startswith(DEMO_PREFIX):
            return
        if not any(answers_to(model, default_model) for model in models):
            self._warnings.append("DEFAULT_MODEL is not among [[models]]: the plain API will refuse it")

    def _find_data_directory(self) -> Path:
        """Return where data goes: as asked, else the place that the XDG base directory specification gives.

        https://specifications.freedesktop.org/basedir-spec/latest (read 2026-11-23): a relative value is ignored.
        """
        entry = self._environment.find("CHATGATE_DATA", "data")
        if "data" in self._arguments:
            entry = Entry(str(self._arguments["data"]), Place("--data", "data"))
        if entry is not None:
            asked = self._directory / str(entry.value)
            if os.path.lexists(asked) and not asked.is_dir():
                self._problems.add(entry.place, "must be a directory; a file is in its place")
            return asked
        base = self._environment.find("XDG_DATA_HOME")
        if base is not None and Path(base.value).is_absolute():
            return Path(base.value) / "chatgate"
        home = self._environment.find("HOME")
        try:
            return (Path(home.value) if home else Path.home()) / ".local" / "share" / "chatgate"
        except RuntimeError:
            self._problems.add(Place("--data", "data"), "is missing, and this user has no home", "set CHATGATE_DATA")
            return self._directory
