"""Configurations that must not start: each names the key at fault, its line and nothing secret."""

from __future__ import annotations

import contextlib
import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from chatgate.settings import Settings, SettingsError, load
from chatgate.settings.document import Document
from chatgate.settings.entries import read_items
from chatgate.settings.keys import LISTS, SECTIONS, TargetKeys
from chatgate.settings.problems import Place, Problem, Problems

Load = Callable[..., Settings]

SECRET = "sk-test-never-shown"

LIMIT = '[[limits]]\nscope = "address"\nresource = "requests"\n'
UPSTREAM = '[[upstreams]]\nname = "a"\n'
MODEL = '[[models]]\nname = "m"\n'
TARGETS = 'targets = [{ upstream = "openai" }]'
OTHER_MODEL = '[[models]]\nname = "n"\n'
BUDGET = '[[budgets]]\nper = "month"\namount_usd = "5"\n'
ADMIN = "test-admin-0123456789-0123456789-01"
PRICE = '[[prices]]\nmodel = "m"\noutput_usd_per_million = "1"\n'

# The text of a file; the key and the line of its only problem; a part of what is said.
BAD_FILES: list[tuple[str, str, int | None, str]] = [
    ("prot = 1", "prot", 1, "not a known key"),
    ("port = 1", "port", 1, "below [server]"),
    ("[sever]\nport = 1", "sever", 1, "did you mean server?"),
    ("server = 1", "server", 1, "must be a table"),
    ("[[server]]\nport = 1", "server", 1, "must be a table"),
    ("[server]\n\nprot = 1", "server.prot", 3, "did you mean port?"),
    ('[server]\nport = "80"', "server.port", 2, "a whole number from 0 to 65535"),
    ("[server]\nport = -1", "server.port", 2, "not -1"),
    ("[server]\nport = 65536", "server.port", 2, "not 65536"),
    ("[server]\nport = 80.5", "server.port", 2, "not 80.5"),
    ("[server]\nport = true", "server.port", 2, "not true"),
    ("[server]\nport = []", "server.port", 2, "whole number"),
    ("[server]\nhost = 1", "server.host", 2, "text"),
    ('[server]\nhost = ""', "server.host", 2, "not empty"),
    ('[server]\nhost = "a b"', "server.host", 2, "no host name"),
    ('[server]\nhost = "1.2.3.400"', "server.host", 2, "IPv4"),
    ("[server]\nworkers = 0", "server.workers", 2, "from 1"),
    ('[server]\nroute = "v1"', "server.route", 2, "itself answers"),
    ('[server]\nroute = "v1/chat/completions"', "server.route", 2, "itself answers"),
    ('[server]\nroute = "a b"', "server.route", 2, "must be a path"),
    ('[server]\nroute = "../x"', "server.route", 2, "segments"),
    ("[server]\nlanguage = []", "server.language", 2, "text"),
    ('[server]\ntrusted_proxies = "10.0.0.0/8"', "server.trusted_proxies", 2, "list"),
    ('[server]\ntrusted_proxies = [\n "::1",\n "10.0.0.0/99" ]', "server.trusted_proxies[1]", 4, "no CIDR"),
    ("[access]\nanonymous = 1", "access.anonymous", 2, "true or false"),
    ('[access]\nanonymous = "no"', "access.anonymous", 2, 'not "no"'),
    ("[access]\nallow = [1]", "access.allow", 2, "list of texts"),
    ('[access]\nallow = ["localhost"]', "access.allow[0]", 2, 'not "localhost"'),
    ('[access]\nallow = ["10.0.0.1/8"]', "access.allow[0]", 2, "write 10.0.0.0/8 or 10.0.0.1"),
    ('[access]\nallow = [""]', "access.allow[0]", 2, "no address"),
    ("[timeouts]\nconnect = 1", "timeouts.connect", 2, "did you mean connect_seconds?"),
    ("[timeouts]\nconnect_seconds = 0", "timeouts.connect_seconds", 2, "above 0"),
    ("[timeouts]\nidle_seconds = -1.5", "timeouts.idle_seconds", 2, "not -1.5"),
    ("[timeouts]\ntotal_seconds = inf", "timeouts.total_seconds", 2, "at most 86400"),
    ("[timeouts]\ntotal_seconds = nan", "timeouts.total_seconds", 2, "above 0"),
    ('[timeouts]\nfirst_token_seconds = "60s"', "timeouts.first_token_seconds", 2, "seconds"),
    ("[retry]\nmax_retries = -1", "retry.max_retries", 2, "from 0 to 10"),
    ("[retry]\nmax_retries = 11", "retry.max_retries", 2, "from 0 to 10"),
    ("[retry]\nretries = 1", "retry.retries", 2, "did you mean max_retries?"),
    ('[retry]\nrecovery = "resum"', "retry.recovery", 2, "did you mean resume?"),
    ("[retry]\nrecovery = true", "retry.recovery", 2, "one of resume, error"),
    ('[streams]\non_disconnect = "ignore"', "streams.on_disconnect", 2, "one of cancel, drain"),
    ("[streams]\ndrain_seconds = 0", "streams.drain_seconds", 2, "above 0"),
    ("[streams]\ndrain_calls = 0", "streams.drain_calls", 2, "from 1"),
    ("[streams]\ndrain_cals = 1", "streams.drain_cals", 2, "did you mean drain_calls?"),
    ("[hedging]\nshare_percent = 51", "hedging.share_percent", 2, "from 0 (off) to 50"),
    ("[hedging]\nshare_percent = -1", "hedging.share_percent", 2, "not -1"),
    ("[hedging]\nshare_percent = nan", "hedging.share_percent", 2, "not nan"),
    ("[hedging]\nshare = 5", "hedging.share", 2, "not a known key"),
    ("[responses]\nstore_seconds = 2592001", "responses.store_seconds", 2, "to 2592000"),
    ("[responses]\nstore_seconds = -1", "responses.store_seconds", 2, "from 0"),
    ("[responses]\nstore = 5", "responses.store", 2, "not a known key"),
    ("[translation]\ndrop_unsupported = 1", "translation.drop_unsupported", 2, "not 1"),
    ("share_percent = 5", "share_percent", 1, "below [hedging]"),
    ("[limits]\namount = 1", "limits", 1, "[[limits]]"),
    ("limits = [1]", "limits[0]", 1, "must be a table"),
    (f'{LIMIT}amount = -1\nper = "hour"', "limits[0].amount", 4, "from 0 (no limit)"),
    (f'{LIMIT}amount = 1.5\nper = "hour"', "limits[0].amount", 4, "whole number"),
    (f"{LIMIT}amount = 1", "limits[0].per", 1, "is missing"),
    (f'{LIMIT}per = "hour"', "limits[0].amount", 1, "is missing"),
    (f'{LIMIT}amount = 1\nper = "hours"', "limits[0].per", 5, "did you mean hour?"),
    (f'{LIMIT}amount = 1\nper = "hour"\nburst = 2', "limits[0].burst", 6, "not a known key"),
    (f'{LIMIT}amount = 1\nper = "hour"\n{LIMIT}amount = 2\nper = "hour"', "limits[1]", 6, "earlier one"),
    ('[[limits]]\nscope = "adress"\nresource = "requests"\namount = 1\nper = "day"', "limits[0].scope", 2, "address?"),
    ('[[limits]]\nscope = "key+modle"\nresource = "requests"\namount = 1\nper = "day"', "limits[0].scope", 2, "model?"),
    ('[[limits]]\nscope = "key+key"\nresource = "requests"\namount = 1\nper = "day"', "limits[0].scope", 2, "twice"),
    (
        '[[limits]]\nscope = "global+key"\nresource = "usd"\namount = 1\nper = "day"',
        "limits[0].scope",
        2,
        "leave it out",
    ),
    (
        '[[limits]]\nscope = ""\nresource = "usd"\namount = 1\nper = "day"',
        "limits[0].scope",
        2,
        "must be one of address",
    ),
    ('[[limits]]\nscope = "key"\nresource = "usd"\namount = 0.5\nper = "day"', "limits[0].amount", 4, "in quotes"),
    ('[[limits]]\nscope = "key"\nresource = "usd"\namount = "5 $"\nper = "day"', "limits[0].amount", 4, "dollars"),
    ('[[limits]]\nscope = "key"\nresource = "usd"\namount = "-1"\nper = "day"', "limits[0].amount", 4, "from 0"),
    (
        '[[limits]]\nscope = "key"\nresource = "tokens"\namount = "5"\nper = "day"',
        "limits[0].amount",
        4,
        "without quotes",
    ),
    ('[[limits]]\nscope = "key"\nresource = "in_flight"\namount = 0\nper = "day"', "limits[0].per", 5, "absent"),
    (f'{BUDGET}scope = "owner"', "budgets[0].owner", 1, "is missing"),
    (f'{BUDGET}scope = "owner"\nowner = ""', "budgets[0].owner", 5, "not empty"),
    (f'{BUDGET}scope = "owner"\nowner = "a\\u0000"', "budgets[0].owner", 5, "can be called"),
    (f'{BUDGET}scope = "global"\nowner = "alice"', "budgets[0].owner", 5, "must be absent"),
    (f'{BUDGET}scope = "key"', "budgets[0].scope", 4, "one of owner, global"),
    (f'{BUDGET}scope = "global"\n' * 2, "budgets[1]", 5, "as an earlier one"),
    ('[[budgets]]\nscope = "global"\nper = "hour"\namount_usd = 1', "budgets[0].per", 3, "one of day"),
    ('[[budgets]]\nscope = "global"\nper = "day"\namount_usd = "0"', "budgets[0].amount_usd", 4, "above 0"),
    ('[[budgets]]\nscope = "global"\nper = "day"\namount_usd = 0.5', "budgets[0].amount_usd", 4, "in quotes"),
    ('[[budgets]]\nscope = "global"\nper = "day"\namount_usd = "9e9"', "budgets[0].amount_usd", 4, "dollars"),
    ('[[admins]]\nname = "root"', "admins[0].key", 1, "openssl rand"),
    ('[[admins]]\nname = "root"\nkey = "short"', "admins[0].key", 3, "32 to 512"),
    (f'[[admins]]\nname = "root"\nkey = "{ADMIN} {ADMIN}"', "admins[0].key", 3, "without blanks"),
    (f'[[admins]]\nname = "root"\nkey = "sk-cg-{ADMIN}"', "admins[0].key", 3, "for callers"),
    (f'[[admins]]\nname = "a"\nkey = "{ADMIN}"\nkey_file = "x"', "admins[0].key_file", 4, "beside key"),
    ('[[admins]]\nname = "a"\nkey_file = "missing"', "admins[0].key_file", 3, "cannot be read"),
    (f'[[admins]]\nname = "a"\nkey = "{ADMIN}"\nmay = "all"', "admins[0].may", 4, "one of change, read"),
    (f'[[admins]]\nname = "a"\nkey = "{ADMIN}"\n[[admins]]\nname = "b"\nkey = "{ADMIN}"', "admins[1].key", 6, "too"),
    (f'[[admins]]\nname = "a"\nkey = "{ADMIN}"\n[[admins]]\nname = "a"\nkey = "{ADMIN}2"', "admins[1].key", 6, "too"),
    (f"{PRICE}input_usd_per_million = 0.25", "prices[0].input_usd_per_million", 4, "in quotes"),
    (f'{PRICE}input_usd_per_million = "-1"', "prices[0].input_usd_per_million", 4, "dollars"),
    (f'{PRICE}input_usd_per_million = "1e3"', "prices[0].input_usd_per_million", 4, "dollars"),
    (PRICE, "prices[0].input_usd_per_million", 1, "is missing"),
    (f'{PRICE}input_usd_per_million = "1"\n' * 2, "prices[1].model", 6, "another price"),
    (UPSTREAM, "upstreams[0].base_url", 1, "is missing"),
    ('[[upstreams]]\nbase_url = "http://a"', "upstreams[0].name", 1, "is missing"),
    ('[[upstreams]]\nname = "a b"\nbase_url = "http://a"', "upstreams[0].name", 2, "a name of at most"),
    ('[[upstreams]]\nname = "demo"\nbase_url = "http://a"', "upstreams[0].name", 2, "must not be demo"),
    (f'{UPSTREAM}base_url = "http://a"\n' * 2, "upstreams[1].name", 5, "another upstream"),
    (f'{UPSTREAM}base_url = "ftp://{SECRET}@a"', "upstreams[0].base_url", 3, "http, https"),
    (f'{UPSTREAM}base_url = "http://u:{SECRET}@a"', "upstreams[0].base_url", 3, "without a user name"),
    (f'{UPSTREAM}base_url = "http://a?key={SECRET}"', "upstreams[0].base_url", 3, "without a query"),
    (f'{UPSTREAM}base_url = "http://a"\nprovider = 1', "upstreams[0].provider", 4, "a name"),
    (f'{UPSTREAM}base_url = "http://a"\nprovider = "opanai"', "upstreams[0].provider", 4, "did you mean openai?"),
    (
        f'{UPSTREAM}base_url = "http://a"\nprovider = "zzz"',
        "upstreams[0].provider",
        4,
        "known are anthropic, example, gemini, openai,",
    ),
    (f'{UPSTREAM}base_url = "http://a"\napikey = "{SECRET}"', "upstreams[0].apikey", 4, "did you mean api_key?"),
    (f'{UPSTREAM}base_url = "http://a"\napi_key = ["{SECRET}"]', "upstreams[0].api_key", 4, "text"),
    (f'{UPSTREAM}base_url = "http://a"\napi_keys = "{SECRET}"', "upstreams[0].api_keys", 4, "a list of texts"),
    (f'{UPSTREAM}base_url = "http://a"\napi_keys = ["{SECRET}", 1]', "upstreams[0].api_keys", 4, "a list of texts"),
    (f'{UPSTREAM}base_url = "http://a"\napi_keys = ["{SECRET}", ""]', "upstreams[0].api_keys[1]", 4, "must be a key"),
    (
        f'{UPSTREAM}base_url = "http://a"\napi_keys = [\n"{SECRET}",\n"{SECRET}"]',
        "upstreams[0].api_keys[1]",
        6,
        "same key",
    ),
    (
        f'{UPSTREAM}base_url = "http://a"\napi_keys = ["none",\n"{SECRET}"]',
        "upstreams[0].api_keys[0]",
        4,
        "no key is needed",
    ),
    (f'{UPSTREAM}base_url = "http://a"\nmax_in_flight = -1', "upstreams[0].max_in_flight", 4, "from 0 (any number)"),
    (
        f'{UPSTREAM}base_url = "http://a"\ncontinuation = "prefill"',
        "upstreams[0].continuation",
        4,
        "did you mean prefix?",
    ),
    (f'{UPSTREAM}base_url = "http://a"\napi_key = "{SECRET} x"', "upstreams[0].api_key", 4, "without blanks"),
    (f'{UPSTREAM}base_url = "http://a"\napi_key = "{SECRET}é"', "upstreams[0].api_key", 4, "ASCII"),
    (f'{UPSTREAM}base_url = "http://a"\napi_key = "{SECRET}\\n"', "upstreams[0].api_key", 4, "without blanks"),
    (f'{UPSTREAM}base_url = "http://a"\napi_key_env = "{SECRET}"', "upstreams[0].api_key_env", 4, "not set"),
    (f'{UPSTREAM}base_url = "http://a"\napi_key_file = "{SECRET}"', "upstreams[0].api_key_file", 4, "cannot be read"),
    (
        f'{UPSTREAM}base_url = "http://a"\napi_key = "{SECRET}"\napi_key_env = "{SECRET}"',
        "upstreams[0].api_key_env",
        5,
        "beside api_key",
    ),
    (f'{UPSTREAM}base_url = "http://a"\nproxy = "ftp://u:{SECRET}@p"', "upstreams[0].proxy", 4, "socks5h"),
    (f'{UPSTREAM}base_url = "http://a"\nproxy = "http://u:{SECRET}@p/x"', "upstreams[0].proxy", 4, "without a path"),
    (f'{UPSTREAM}base_url = "http://a"\nproxy = ["{SECRET}"]', "upstreams[0].proxy", 4, "text"),
    (MODEL, "models[0].targets", 1, "is missing"),
    (f"{MODEL}targets = []", "models[0].targets", 3, "at least one"),
    (f'{MODEL}targets = ["openai"]', "models[0].targets", 3, "at least one"),
    (f"{MODEL}targets = [{{ }}]", "models[0].targets[0].upstream", 3, "is missing"),
    (f'{MODEL}targets = [\n{{ upstream = "opanai" }}]', "models[0].targets[0].upstream", 4, "did you mean openai?"),
    (
        f'{MODEL}targets = [{{ upstream = "openai" }},\n{{ upstream = "openai", weight = 0 }}]',
        "models[0].targets[1].weight",
        4,
        "from 1",
    ),
    (
        f'{MODEL}targets = [{{ upstream = "openai", modle = "x" }}]',
        "models[0].targets[0].modle",
        3,
        "did you mean model?",
    ),
    (
        f'{MODEL}targets = [{{ upstream = "openai" }}]\nfallbacks = [\n"n"]',
        "models[0].fallbacks[0]",
        5,
        "an alias of a model",
    ),
    (f'{MODEL}targets = [{{ upstream = "openai", priority = -1 }}]', "models[0].targets[0].priority", 3, "from 0"),
    (f'{MODEL}targets = [{{ upstream = "openai", priority = 1001 }}]', "models[0].targets[0].priority", 3, "to 1000"),
    (
        f'{MODEL}targets = [{{ upstream = "openai", context_tokens = 0 }}]',
        "models[0].targets[0].context_tokens",
        3,
        "from 1",
    ),
    (
        f'{MODEL}targets = [{{ upstream = "openai" }},\n{{ upstream = "openai", model = "m" }}]',
        "models[0].targets[1]",
        4,
        "as an earlier one",
    ),
    (f'{MODEL}targets = [{{ upstream = "openai", model = "*" }}]', "models[0].targets[0].model", 3, "more * than"),
    (f'{MODEL}{TARGETS}\nfallbacks = ["demo/ecoh"]', "models[0].fallbacks[0]", 4, "did you mean demo/echo?"),
    (f'{MODEL}{TARGETS}\nbalance = "random"', "models[0].balance", 4, "one of weighted, least_loaded"),
    (f'{MODEL}{TARGETS}\naliases = "a"', "models[0].aliases", 4, "a list of names"),
    (f'{MODEL}{TARGETS}\naliases = [""]', "models[0].aliases", 4, "a list of names"),
    (f'{MODEL}{TARGETS}\naliases = ["a",\n"a"]', "models[0].aliases[1]", 5, "an alias already"),
    (f'{MODEL}{TARGETS}\naliases = ["m"]', "models[0].aliases[0]", 4, "the name of a model too"),
    (f'{MODEL}{TARGETS}\naliases = ["demo/m"]', "models[0].aliases[0]", 4, "demo/"),
    (f'{MODEL}{TARGETS}\naliases = ["a*"]', "models[0].aliases[0]", 4, "must not hold *"),
    (f'{MODEL}{TARGETS}\naliases = ["a\\u0007"]', "models[0].aliases[0]", 4, "control characters"),
    (f'{MODEL}{TARGETS}\naliases = ["n"]\n{OTHER_MODEL}{TARGETS}', "models[0].aliases[0]", 4, "a model too"),
    (
        f'{MODEL}{TARGETS}\naliases = ["a"]\n{OTHER_MODEL}{TARGETS}\naliases = ["a"]',
        "models[1].aliases[0]",
        8,
        "already",
    ),
    (f'[[models]]\nname = "a*b*"\n{TARGETS}', "models[0].name", 2, "at most one *"),
    (f'[[models]]\nname = "demo/*"\n{TARGETS}', "models[0].name", 2, "demo/"),
    (f'[[models]]\nname = "a*"\n{TARGETS}\naliases = ["a"]', "models[0].aliases", 4, "empty in a wildcard model"),
    (
        f'{MODEL}{TARGETS}\nfallbacks = ["x-*"]\n[[models]]\nname = "x-*"\n{TARGETS}',
        "models[0].fallbacks[0]",
        4,
        "wildcard",
    ),
    (f'{MODEL}{TARGETS}\naliases = ["a"]\nfallbacks = ["a"]', "models[0].fallbacks[0]", 5, "itself"),
    (
        f'{MODEL}{TARGETS}\nfallbacks = ["n", "a"]\n{OTHER_MODEL}{TARGETS}\naliases = ["a"]',
        "models[0].fallbacks[1]",
        4,
        "as an earlier one",
    ),
    (
        f'{MODEL}{TARGETS}\nfallbacks = ["a"]\n{OTHER_MODEL}{TARGETS}\naliases = ["a"]\nfallbacks = ["m"]',
        "models[0].fallbacks",
        4,
        "lead back to the model: m → n → m",
    ),
    (f'{MODEL}targets = [{{ upstream = "openai" }}]\nfallbacks = ["m"]', "models[0].fallbacks[0]", 4, "itself"),
    (f'{MODEL}targets = [{{ upstream = "openai" }}]\n' * 2, "models[1].name", 5, "another model"),
    ('[[models]]\nname = "demo/x"\ntargets = [{ upstream = "openai" }]', "models[0].name", 2, "demo/"),
    (
        '[[models]]\nname = "a\\u001b[2J"\ntargets = [{ upstream = "openai" }]',
        "models[0].name",
        2,
        "control characters",
    ),
    ('[[models]]\nname = ""\ntargets = [{ upstream = "openai" }]', "models[0].name", 2, "not empty"),
]

# Variables; the source and the key of their only problem; a part of what is said.
BAD_VARIABLES: list[tuple[dict[str, str], str, str, str]] = [
    ({"HOUR_LIMIT": "many"}, "HOUR_LIMIT", "limits per hour", 'not "many"'),
    ({"SECOND_LIMIT": "-1"}, "SECOND_LIMIT", "limits per second", "from 0 (no limit)"),
    ({"MINUTE_LIMIT": "1.5"}, "MINUTE_LIMIT", "limits per minute", "whole number"),
    ({"DAY_LIMIT": SECRET}, "DAY_LIMIT", "limits per day", "whole number"),
    ({"ROUTE": "healthz"}, "ROUTE", "server.route", "itself answers"),
    ({"ROUTE": "https://x/api"}, "ROUTE", "server.route", "must be a path"),
    ({"IP_WHITELIST": "1.2.3.4,example.com"}, "IP_WHITELIST", "access.allow", "no address"),
    ({"IP_WHITELIST": "10.0.0.0/40"}, "IP_WHITELIST", "access.allow", "no CIDR"),
    ({"OPENAI_BASE_URL": f"https://u:{SECRET}@x"}, "OPENAI_BASE_URL", "upstreams[0].base_url", "password"),
    ({"API_KEY": f"{SECRET} {SECRET}"}, "API_KEY", "upstreams[0].api_key", "without blanks"),
    ({"DEFAULT_MODEL": "x" * 300}, "DEFAULT_MODEL", "DEFAULT_MODEL", "text"),
    ({"DEFAULT_MODEL": "\udcff"}, "DEFAULT_MODEL", "DEFAULT_MODEL", "text"),
    ({"LANG": "\udcff"}, "LANG", "server.language", "text"),
    ({"CHATGATE_ACCESS__ANONYMOUS": "\udcff"}, "CHATGATE_ACCESS__ANONYMOUS", "access.anonymous", "true or false"),
    ({"HTTPS_PROXY": f"{SECRET}@proxy:1"}, "HTTPS_PROXY", "HTTPS_PROXY", "scheme://"),
    ({"all_proxy": f"socks4://u:{SECRET}@p"}, "all_proxy", "all_proxy", "socks5"),
    ({"NO_PROXY": "10.*"}, "NO_PROXY", "NO_PROXY", "10.0.0.0/8"),
    ({"CHATGATE_PORT": "http"}, "CHATGATE_PORT", "server.port", "from 0 to 65535"),
    ({"CHATGATE_HOST": "a b"}, "CHATGATE_HOST", "server.host", "no host name"),
    ({"CHATGATE_WORKERS": "1025"}, "CHATGATE_WORKERS", "server.workers", "from 1 to 1024"),
    ({"CHATGATE_ACCESS__ANONYMOUS": "no"}, "CHATGATE_ACCESS__ANONYMOUS", "access.anonymous", "true or false"),
    ({"CHATGATE_RETRY__MAX_RETRIES": "x"}, "CHATGATE_RETRY__MAX_RETRIES", "retry.max_retries", "from 0 to 10"),
    ({"CHATGATE_RETRY__RECOVERY": "x"}, "CHATGATE_RETRY__RECOVERY", "retry.recovery", "one of resume, error"),
    ({"CHATGATE_STREAMS__DRAIN_CALLS": "1.5"}, "CHATGATE_STREAMS__DRAIN_CALLS", "streams.drain_calls", "whole number"),
    ({"CHATGATE_HEDGING__SHARE_PERCENT": "5%"}, "CHATGATE_HEDGING__SHARE_PERCENT", "hedging.share_percent", "to 50"),
    ({"CHATGATE_HEDGING__SHARE": "5"}, "CHATGATE_HEDGING__SHARE", "CHATGATE_HEDGING__SHARE", "SHARE_PERCENT?"),
    ({"CHATGATE_CONFIG": "absent.toml"}, "absent.toml", "absent.toml", "cannot be read"),
    ({"CHATGATE_SERVER__PROT": SECRET}, "CHATGATE_SERVER__PROT", "CHATGATE_SERVER__PROT", "SERVER__PORT"),
]


def only_problem(load: Callable[[], Settings]) -> Problem:
    """Return the one problem of a configuration, whose text must not hold the secret."""
    with pytest.raises(SettingsError) as caught:
        load()
    (problem,) = caught.value.problems
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.render()}"
    assert "\x1b" not in caught.value.render()
    return problem


@pytest.mark.parametrize(("text", "key", "line", "said"), BAD_FILES)
def test_a_bad_file_is_refused_at_its_key(load_text: Load, text: str, key: str, line: int | None, said: str) -> None:
    """Exactly one problem, at the right key and line, with words that help and no secret."""
    problem = only_problem(lambda: load_text(text))
    assert (problem.source, problem.key, problem.line) == ("chatgate.toml", key, line)
    assert said in f"{problem}"


@pytest.mark.parametrize(("environ", "source", "key", "said"), BAD_VARIABLES)
def test_a_bad_variable_is_refused_by_name(
    load_text: Load, environ: dict[str, str], source: str, key: str, said: str
) -> None:
    """Exactly one problem, which names the variable, with words that help and no secret."""
    problem = only_problem(lambda: load_text("", environ))
    assert (problem.source, problem.key, problem.line) == (source, key, None)
    assert said in f"{problem}"


@pytest.mark.parametrize(
    ("arguments", "source"), [({"port": 70000}, "--port"), ({"workers": -2}, "--workers"), ({"host": "?"}, "--host")]
)
def test_a_bad_argument_is_refused_by_option(load_text: Load, arguments: dict[str, object], source: str) -> None:
    """Values of the command line obey the same rules as all others."""
    assert only_problem(lambda: load_text("", None, **arguments)).source == source


def test_a_bad_value_is_refused_even_where_a_stronger_one_hides_it(load_text: Load) -> None:
    """A file that would fail without the variable is not left waiting for that day."""
    problem = only_problem(lambda: load_text("[server]\nport = -1", {"CHATGATE_PORT": "1"}))
    assert problem.source == "chatgate.toml"


def test_one_start_shows_every_problem(load_text: Load) -> None:
    """Problems of the file and of the environment come together, in the form compilers use."""
    with pytest.raises(SettingsError) as caught:
        load_text("[server]\nport = -1\nhots = 1\n", {"HOUR_LIMIT": "x", "CHATGATE_X": "1"})
    sources = [(problem.source, problem.line) for problem in caught.value.problems]
    assert sources == [("CHATGATE_X", None), ("chatgate.toml", 2), ("chatgate.toml", 3), ("HOUR_LIMIT", None)]
    assert "chatgate.toml:3: server.hots is not a known key\n    hint: did you mean host?" in str(caught.value)


def test_a_table_with_a_fault_can_still_be_referred_to(load_text: Load) -> None:
    """A target at a broken upstream, and a fallback to a broken model, are no problems of their own."""
    text = (
        f'{UPSTREAM}base_url = "http://a"\nprovider = 1\n'
        f'{MODEL}targets = [{{ upstream = "a" }}]\nfallbacks = ["n"]\n'
        '[[models]]\nname = "n"\ntargets = [{ upstream = "a" }]\nfallbacks = 1'
    )
    with pytest.raises(SettingsError) as caught:
        load_text(text)
    assert {problem.key for problem in caught.value.problems} == {"upstreams[0].provider", "models[1].fallbacks"}


def test_a_hostile_file_cannot_move_the_terminals_cursor(load_text: Load) -> None:
    """Control characters in keys and values are not printed."""
    problem = only_problem(lambda: load_text('[server]\nhost = "\\u001b[2J"\n'))
    assert "\x1b" not in str(problem)
    with pytest.raises(SettingsError) as caught:
        load_text('"\\u001b]0;x\\u0007\\n" = 1')
    assert str(caught.value).isprintable()


GOOD = """
[server]
host = "127.0.0.1"
port = 5000
workers = 1
route = "api"
language = "zh_CN"
trusted_proxies = ["10.0.0.0/8"]
[access]
allow = ["192.0.2.1", "2001:db8::/32"]
anonymous = true
[[limits]]
scope = "address"
resource = "requests"
amount = 50
per = "hour"
[timeouts]
connect_seconds = 5
first_token_seconds = 60
idle_seconds = 120.5
total_seconds = 1800
[retry]
max_retries = 2
recovery = "resume"
[streams]
on_disconnect = "drain"
drain_seconds = 15
drain_calls = 50
[ledger]
durability = "power"
retention_days = 90
[translation]
drop_unsupported = true
[hedging]
share_percent = 5
[[budgets]]
scope = "owner"
owner = "alice"
amount_usd = "5"
per = "month"
warn_at_percent = 90
[[admins]]
name = "root"
key = "test-admin-0123456789-0123456789-01"
owner = "alice"
may = "read"
[responses]
store_seconds = 3600
[[prices]]
model = "gpt-5-mini"
input_usd_per_million = "0.25"
output_usd_per_million = "2.00"
[[upstreams]]
name = "openai"
provider = "openai"
base_url = "https://api.openai.com/v1"
api_key = "sk-test-1"
proxy = "socks5h://u:p@127.0.0.1:1080"
[[upstreams]]
name = "backup"
base_url = "http://[::1]:8000/v1"
api_keys = ["sk-test-2", "sk-test-3"]
max_in_flight = 8
continuation = "prefix"
[[models]]
name = "gpt-5-mini"
targets = [{ upstream = "openai", model = "gpt-5-mini", weight = 3 },
           { upstream = "backup", model = "gpt-5-mini", weight = 1, priority = 1, context_tokens = 8192 }]
aliases = ["mini"]
fallbacks = ["llama-local"]
balance = "least_loaded"
[[models]]
name = "llama-local"
targets = [{ upstream = "backup" }]
"""


def test_the_file_that_is_mutated_below_is_good(load_text: Load) -> None:
    """Every key that exists is in the file and is accepted, but for three that exclude others in it."""
    settings = load_text(GOOD)
    assert settings.server.route == "api"
    assert settings.secrets() == {"sk-test-1", "sk-test-2", "sk-test-3", "p", "test-admin-0123456789-0123456789-01"}
    tables: dict[str, Any] = tomllib.loads(GOOD)
    for section, table in SECTIONS.items():
        assert set(tables[section]) == set(table.__struct_fields__)
    for name, table in LISTS.items():
        known = {key for item in tables[name] for key in item}
        assert set(table.__struct_fields__) - known <= {"api_key_env", "api_key_file", "key_file"}
    targets = {key for model in tables["models"] for target in model["targets"] for key in target}
    assert targets == set(TargetKeys.__struct_fields__)


FRAGMENTS = [
    *(
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        '"',
        "'",
        '"""',
        "\n",
        "#",
        ",",
        ".",
        "-",
        "\\",
        "0",
        "9" * 30,
        "1e400",
        "\0",
    ),
    *("nan", "inf", "true", "1979-05-27", "07:32:00", "x", "server", "é", "\u202e", "[[upstreams]]\n", "[models]\n"),
]


@bounded(deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(FRAGMENTS), max_size=6), st.integers(0, 3))
def test_a_mutated_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, fragments: list[str], swaps: int
) -> None:
    """Characters inserted, lines lost, repeated and exchanged: never anything but settings or their refusal."""
    random_source = random.Random(seed)
    lines = GOOD.splitlines()
    for _ in range(swaps):
        one, other = (random_source.randrange(len(lines)) for _ in range(2))
        lines[one], lines[other] = lines[other], random_source.choice([lines[one], "", lines[other]])
    text = "\n".join(lines)
    for fragment in fragments:
        start = random_source.randrange(len(text))
        text = text[:start] + fragment + text[start + random_source.choice([0, 0, 1, 5]) :]
    path = tmp_path_factory.getbasetemp() / "mutated.toml"
    path.write_text(text, encoding="utf-8")
    with contextlib.suppress(SettingsError):
        load(
            {"config": path}, {"HOME": "/nowhere"}, Path("/nowhere"), {"openai": "https://a", "openai_compatible": None}
        )


VALUES: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@bounded(deadline=None)
@given(st.sampled_from(sorted(LISTS)), st.data())
def test_any_tables_are_read_or_refused(name: str, data: st.DataObject) -> None:
    """Whatever the values of a table are, each ends as a key of the right type or as a problem."""
    keys = st.sampled_from(LISTS[name].__struct_fields__) | st.text(max_size=5)
    tables = data.draw(st.lists(st.dictionaries(keys, VALUES, max_size=5) | VALUES, max_size=3))
    problems = Problems()
    items = read_items(LISTS[name], Document("x.toml", Path(), {name: tables}), (name,), problems)
    if len(items) < len(tables):
        with pytest.raises(SettingsError):
            problems.stop_if_any()


def test_a_problem_without_a_path_does_not_repeat_its_source() -> None:
    """A variable that is no key of the tree is named once."""
    problems = Problems()
    problems.add(Place("X", "X"), "is odd", "mend it")
    with pytest.raises(SettingsError, match=r"^X: is odd\n    hint: mend it$"):
        problems.stop_if_any()
