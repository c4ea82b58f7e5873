"""Who is upstream, as data, and how a call is put to them.

spec         the catalogue: one TOML file per vendor that states its differences
requests     the head and the body of a request to an upstream
translating  the answers of upstreams that speak another protocol than OpenAI's
failures     what a provider's refusal means for the caller
demo         the models inside the gateway, for trying it without a provider
"""
