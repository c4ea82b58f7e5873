"""Anthropic's Messages protocol, spoken with callers and with upstreams; between the two is OpenAI's chat.

    from_messages an Anthropic request → an OpenAI chat's body
    to_messages   an OpenAI chat's body → an Anthropic request
    message       whole answers, counts and reasons to stop, both ways
    encoder       OpenAI chunks → Anthropic events
    decoder       Anthropic events → OpenAI chunks
    relay         a stream on its way to an Anthropic caller
    call          a caller's request, as it came and as a chat's body
    errors        situations and providers' errors, both ways
    models        the list of models
    dialect       all of it, as the pipeline speaks it

Sources (read 2026-11-23): https://platform.claude.com/docs/en/api/messages,
https://platform.claude.com/docs/en/build-with-claude/streaming, https://platform.claude.com/docs/en/api/errors,
https://platform.claude.com/docs/en/api/versioning, and the types of the PyPI package anthropic 2.12.0.
"""
