"""LiteLLM's `config.yaml` as upstreams and models.

Owns what its keys mean; pure. Called by the command. LiteLLM's own description is at
https://docs.litellm.ai/docs/proxy/configs and https://docs.litellm.ai/docs/routing.

Deployments of one `model_name` share its calls: by `weight` if the first of them has one, else by its `rpm`, else by
its `tpm`, else evenly; the lowest `order` goes first. `os.environ/NAME` stands for a variable anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import yaml
from msgspec import Struct

from chatgate.cli.importing.litellm_providers import PROVIDERS, Provider
from chatgate.cli.importing.plan import MAX_MODEL_CHARACTERS, MAX_WEIGHT, Model, Plan, Target, ranked, why_no_model
from chatgate.settings.models import find_loops
from chatgate.settings.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE: Final = "os.environ/"
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPENAI_NAMES: Final = re.compile(r"(gpt-|chatgpt-|o[0-9]|ft:gpt-|\*\Z)")
_KNOWN: Final = frozenset(
    {
        *("model", "custom_llm_provider", "api_key", "api_base", "base_url", "litellm_credential_name"),
        *("weight", "rpm", "tpm", "order", "max_parallel_requests", "input_cost_per_token", "output_cost_per_token"),
    }
)
_SHARES: Final = ("weight", "rpm", "tpm")
_SECTIONS: Final = frozenset(
    {"model_list", "litellm_settings", "router_settings", "general_settings", "environment_variables"}
)
_MAX_RETRIES: Final = 10
_MAX_SECONDS: Final = 86_400
_MAX_IN_FLIGHT: Final = 1_000_000
_MAX_AMOUNT: Final = 10**12
_FINE: Final = 10**6
_PER_MILLION: Final = 10**6
_PRICE: Final = Decimal("0.000000001")
_PRICE_BOUND: Final = Decimal(10**9)


class UnreadableError(Exception):
    """The file is no configuration of LiteLLM; `str()` says why."""


class _Deployment(Struct):
    """A target on its way, and what decides over its share of calls."""

    target: Target
    settings: Mapping[str, Any]


def parse(text: str) -> Mapping[str, Any]:
    """Return the tables of a configuration, made of nothing but plain values. Raises `UnreadableError`."""
    found = _parse_yaml(text)
    if not isinstance(found, dict) or not isinstance(found.get("model_list"), list):
        raise UnreadableError("it has no model_list")
    return found


def _parse_yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" (line {place.line + 1})"
        # Its own message quotes the file, which holds keys.
        raise UnreadableError(f"it is no YAML{where}") from None
    except (ValueError, RecursionError):
        raise UnreadableError("it is no YAML that can be read") from None


def read_config(config: Mapping[str, Any], plan: Plan) -> None:
    """Put a parsed configuration into a plan."""
    _Reader(config, plan).read()


class _Reader:
    def __init__(self, config: Mapping[str, Any], plan: Plan) -> None:
        self._config = config
        self._plan = plan
        self._variables = _table(config, "environment_variables")
        self._credentials = {
            _name(each.get("credential_name")): _table(each, "credential_values")
            for each in _tables(config.get("credential_list"))
        }
        self._accounts: dict[tuple[str, str, str, int], str] = {}
        self._deployments: dict[str, list[_Deployment]] = {}

    def read(self) -> None:
        for number, entry in enumerate(self._config["model_list"], 1):
            if isinstance(entry, Mapping):
                self._read_entry(entry, f"model_list item {number} ({_short(entry.get('model_name'))})")
            else:
                self._plan.lose(f"model_list item {number}", "left out: it is no table")
        for name, deployments in self._deployments.items():
            self._plan.models.append(Model(name, self._shared(name, deployments)))
        self._read_limits()
        self._read_aliases()
        self._read_fallbacks()
        self._read_settings()

    def _read_entry(self, entry: Mapping[str, Any], called: str) -> None:
        settings = dict(_table(entry, "litellm_params"))
        settings.update(self._credentials.get(_name(settings.get("litellm_credential_name")), {}))
        facts = _table(entry, "model_info")
        # Older files have these two beside the parameters.
        settings |= {name: entry[name] for name in ("rpm", "tpm") if name in entry and name not in settings}
        mode = facts.get("mode") or "chat"
        name = entry.get("model_name")
        why = "has no name" if not isinstance(name, str) else why_no_model(name)
        if why is None and mode != "chat":
            why = f"chatgate serves no models of the mode {_short(mode)} yet"
        if why is not None or not isinstance(name, str):
            self._plan.lose(called, f"left out: {why}")
            return
        try:
            target = self._target(settings, name)
        except Refusal as refusal:
            self._plan.lose(called, f"left out: {refusal.problem}")
            return
        known = self._deployments.setdefault(name, [])
        if any((each.target.upstream, each.target.model) == (target.upstream, target.model) for each in known):
            self._plan.lose(called, "left out: an earlier item leads to the same model with the same key")
            return
        known.append(_Deployment(target, settings))
        self._read_price(called, target.model, {**settings, **facts})
        for setting in sorted(map(str, settings.keys() - _KNOWN)):
            self._plan.lose(called, f"{setting} is not carried")

    def _target(self, settings: Mapping[str, Any], name: str) -> Target:
        """Return where an item leads, its account added. Raises `Refusal`."""
        model = settings.get("model")
        if not isinstance(model, str) or not model:
            raise Refusal("it has no litellm_params.model")
        prefix, provider, sent = self._provider(model, settings)
        # A model's * stands for what the name's * matched; without one there it stands for nothing.
        if sent.count("*") > name.count("*"):
            raise Refusal(f"{_short(model)} has a * that its name has not")
        if not sent or len(sent) > MAX_MODEL_CHARACTERS:
            raise Refusal("its litellm_params.model is empty or too long")
        base_url = self._resolved(settings.get("api_base") or settings.get("base_url"), "api_base")
        address = provider.address_of(base_url)
        if not address:
            raise Refusal(f"it has no api_base, and {prefix} has no address of its own")
        secret, variable = self._key(settings, provider)
        in_flight = settings.get("max_parallel_requests")
        held = in_flight if isinstance(in_flight, int) and 0 < in_flight <= _MAX_IN_FLIGHT else 0
        account = (address, secret, variable, held)
        if account not in self._accounts:
            self._accounts[account] = self._plan.add_upstream(prefix, address, secret, variable, held)
        return Target(self._accounts[account], sent)

    @staticmethod
    def _provider(model: str, settings: Mapping[str, Any]) -> tuple[str, Provider, str]:
        """Return a provider's name, what is known of it, and what a model is called there."""
        prefix, slash, rest = model.partition("/")
        stated = settings.get("custom_llm_provider")
        if isinstance(stated, str) and stated:
            prefix, rest = stated, rest if prefix == stated and slash else model
        elif not slash:
            # A bare name is one of OpenAI's, or of the server that api_base names.
            if not settings.get("api_base") and not _OPENAI_NAMES.match(model):
                raise Refusal(f"it does not say whose model {_short(model)} is")
            prefix, rest = "openai", model
        provider = PROVIDERS.get(prefix)
        if provider is None:
            raise Refusal(f"chatgate cannot speak to {_short(prefix)}")
        return prefix, provider, rest

    def _key(self, settings: Mapping[str, Any], provider: Provider) -> tuple[str, str]:
        """Return a key, or the name of the variable that holds it; the first is "" then."""
        given = settings.get("api_key")
        if given is None:
            return "", provider.variable
        if not isinstance(given, str):
            raise Refusal("its api_key is no text")
        name = given.removeprefix(_VARIABLE)
        if name == given:
            return given.strip(), ""
        if isinstance(self._variables.get(name), str) and not self._variables[name].startswith(_VARIABLE):
            return str(self._variables[name]).strip(), ""
        if not _VARIABLE_NAME.fullmatch(name):
            raise Refusal("its api_key names no variable that could be set")
        return "", name

    def _resolved(self, value: object, what: str) -> str:
        """Return a text, or what the file says of the variable that it names. Raises `Refusal`."""
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Refusal(f"its {what} is no text")
        if not value.startswith(_VARIABLE):
            return value.strip()
        found = self._variables.get(value.removeprefix(_VARIABLE))
        if not isinstance(found, str) or found.startswith(_VARIABLE):
            raise Refusal(f"its {what} is in a variable; write the address there and import again")
        return found.strip()

    def _read_price(self, called: str, model: str, settings: Mapping[str, Any]) -> None:
        stated = [settings.get(f"{side}_cost_per_token") for side in ("input", "output")]
        if stated == [None, None]:
            return
        try:
            price = _per_million(stated[0]), _per_million(stated[1])
        except InvalidOperation:
            self._plan.lose(called, "its price is no amount of dollars, and is not carried")
            return
        if self._plan.prices.setdefault(model, price) != price:
            self._plan.lose(called, f"has another price for {model} than an earlier item, which is kept")

    def _shared(self, name: str, deployments: list[_Deployment]) -> list[Target]:
        """Return the targets of a model with their shares and their order."""
        orders = [_whole(each.settings.get("order"), math.inf) for each in deployments]
        ranks = ranked([int(order) for order in orders if order < math.inf], highest_first=False)
        last = len(ranks)
        share = next((key for key in _SHARES if deployments[0].settings.get(key) is not None), None)
        weights = [1.0 if share is None else _share(each.settings.get(share)) for each in deployments]
        whole = _whole_weights(weights)
        for each, order, weight, stated in zip(deployments, orders, whole, weights, strict=True):
            each.target.priority = ranks[int(order)] if order < math.inf else last
            each.target.weight = weight
            if not stated:
                # There it is not chosen as long as another one is left.
                each.target.priority, each.target.weight = last + 1, 1
                self._plan.lose(f"model {name}", f"its deployment with no {share} comes last")
        return [each.target for each in deployments]

    def _read_limits(self) -> None:
        """Carry rpm and tpm where they fit: chatgate has one limit for every upstream, for each of them."""
        everything = [each for deployments in self._deployments.values() for each in deployments]
        alone = len({each.target.upstream for each in everything}) == len(everything) == len(self._plan.upstreams)
        for key, resource in (("rpm", "requests"), ("tpm", "tokens")):
            stated = [each.settings.get(key) for each in everything if each.settings.get(key) is not None]
            amount = stated[0] if stated else None
            if not stated:
                continue
            alike = alone and len(stated) == len(everything)
            if isinstance(amount, int) and 0 < amount <= _MAX_AMOUNT and alike and stated == [amount] * len(stated):
                self._plan.limits[resource] = amount
            else:
                self._plan.lose(
                    key,
                    f"does not limit {len(stated)} deployments any more: chatgate's limit is alike for all upstreams",
                )

    def _read_aliases(self) -> None:
        models = {model.name: model for model in self._plan.models}
        for alias, meant in _table(_table(self._config, "router_settings"), "model_group_alias").items():
            name = meant.get("model") if isinstance(meant, Mapping) else meant
            called = f"model_group_alias {_short(alias)}"
            why = why_no_model(alias) if isinstance(alias, str) else "is no name"
            if why is None and ("*" in alias or alias in models):
                why = "is a model already, or a pattern"
            if why is not None or not isinstance(name, str) or name not in models or "*" in name:
                self._plan.lose(called, f"not carried: {why or 'it leads to no model that is carried'}")
            else:
                models[name].aliases.append(alias)

    def _read_fallbacks(self) -> None:
        models = {model.name: model for model in self._plan.models}
        for model, fallback in self._stated_fallbacks():
            known = models.get(model)
            what = f"fallback {_short(model)} to {_short(fallback)}"
            if known is None or fallback not in models or "*" in fallback or fallback == model:
                self._plan.lose(what, "not carried: one of the two is no model that is carried")
                continue
            if fallback in known.fallbacks:
                continue
            known.fallbacks.append(fallback)
            if find_loops({each.name: each.fallbacks for each in self._plan.models}):
                known.fallbacks.remove(fallback)
                self._plan.lose(what, "not carried: it would lead back to where it began")

    def _stated_fallbacks(self) -> Iterator[tuple[str, str]]:
        """Yield who falls back to whom, each model's own before the ones that all have."""
        places = [_table(self._config, section) for section in ("litellm_settings", "router_settings")]
        for place in places:
            for each in _tables(place.get("fallbacks")):
                for model, fallbacks in each.items():
                    yield from ((_name(model), _name(fallback)) for fallback in _list(fallbacks))
        for place in places:
            for fallback in _list(place.get("default_fallbacks")):
                yield from ((model.name, _name(fallback)) for model in self._plan.models if model.name != fallback)

    def _read_settings(self) -> None:
        general, module, router = (
            _table(self._config, section) for section in ("general_settings", "litellm_settings", "router_settings")
        )
        carried = {
            "general_settings": {"master_key"},
            "litellm_settings": {"fallbacks", "default_fallbacks", "num_retries", "request_timeout"},
            "router_settings": {"fallbacks", "default_fallbacks", "num_retries", "timeout", "model_group_alias"},
        }
        retries = router.get("num_retries", module.get("num_retries"))
        if isinstance(retries, int) and 0 <= retries <= _MAX_RETRIES:
            self._plan.max_retries = int(retries)
        elif retries is not None:
            self._plan.lose("num_retries", f"is no whole number from 0 to {_MAX_RETRIES}, and is not carried")
        seconds = router.get("timeout", module.get("request_timeout"))
        if isinstance(seconds, int | float) and 0 < seconds <= _MAX_SECONDS:
            self._plan.total_seconds = float(seconds)
        elif seconds is not None:
            self._plan.lose("timeout", "is no number of seconds up to a day, and is not carried")
        if "master_key" in general:
            self._plan.lose("general_settings.master_key", "not carried: make keys with `chatgate keys create`")
        for section, known in carried.items():
            for key in sorted(map(str, _table(self._config, section).keys() - known)):
                self._plan.lose(f"{section}.{key}", "is not carried")
        for section in sorted(map(str, self._config.keys() - _SECTIONS - {"credential_list"})):
            self._plan.lose(section, "is not carried")


def _per_million(cost: object) -> str:
    """Return the price of a million tokens, to nine decimals. Raises `InvalidOperation`."""
    price = (Decimal(_short(cost or 0)) * _PER_MILLION).quantize(_PRICE)
    if not 0 <= price < _PRICE_BOUND:
        raise InvalidOperation
    return f"{price.normalize():f}"


def _table(tables: Mapping[Any, Any], name: str) -> Mapping[Any, Any]:
    found = tables.get(name)
    return found if isinstance(found, Mapping) else {}


def _tables(found: object) -> list[Mapping[str, Any]]:
    return [each for each in _list(found) if isinstance(each, Mapping)]


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _name(value: object) -> str:
    """Return a name, and for what is none something that nothing is called."""
    return value if isinstance(value, str) else ""


def _short(value: object) -> str:
    """Return a value for the report; of tables and lists their kind, for one may hold itself many times over."""
    return str(value)[:80] if isinstance(value, str | int | float | None) else type(value).__name__


def _whole(value: object, missing: float) -> float:
    return value if isinstance(value, int) else missing


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else 0.0


def _whole_weights(shares: list[float]) -> list[int]:
    """Return whole numbers from 1 on in the same proportions, as small as they can be."""
    fine = [round(share * _FINE) for share in shares]
    divisor = math.gcd(*fine) or 1
    small = [each // divisor for each in fine]
    excess = max(1, -(-max(small) // MAX_WEIGHT))
    return [max(1, each // excess) for each in small]
