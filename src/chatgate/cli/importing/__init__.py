"""The command `chatgate import`: move in from one-api, new-api or LiteLLM.

command            the subcommands, their options and exit codes
plan               what moves in, and what does not
one_api, tokens    channels and tokens of one-api and new-api; rows, channel_types
litellm            LiteLLM's config.yaml; litellm_providers
document, writing  the plan as a chatgate.toml, and the files that are made
"""

from chatgate.cli.importing.command import importing

__all__ = ["importing"]
