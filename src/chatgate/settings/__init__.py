"""Boot-time settings: one frozen tree, read once, complete or refused with every reason.

tree         the settings that a process runs with
reading      where they come from and what wins; the only reader of `os.environ`
upstreams, limits, budgets, admins, models, prices    the rules of the lists
storage      where keys and records are kept
environment  the names of environment variables
document     the file, and the line of each key
keys         every key of the file with its rule
entries      loose values on their way to typed ones
network      addresses, URLs, proxies, paths
problems     what is wrong, worded and rendered
"""

from chatgate.settings.network import without_credentials
from chatgate.settings.problems import Problem, SettingsError
from chatgate.settings.reading import load, load_from_process, load_upstream_from_process
from chatgate.settings.tree import (
    AccessSettings,
    AdminSettings,
    BudgetRule,
    LedgerSettings,
    LimitRule,
    ModelSettings,
    Price,
    RetrySettings,
    ServerSettings,
    Settings,
    StreamSettings,
    TargetSettings,
)
from chatgate.settings.upstreams import OPENAI_COMPATIBLE

__all__ = [
    "OPENAI_COMPATIBLE",
    "AccessSettings",
    "AdminSettings",
    "BudgetRule",
    "LedgerSettings",
    "LimitRule",
    "ModelSettings",
    "Price",
    "Problem",
    "RetrySettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "StreamSettings",
    "TargetSettings",
    "load",
    "load_from_process",
    "load_upstream_from_process",
    "without_credentials",
]
