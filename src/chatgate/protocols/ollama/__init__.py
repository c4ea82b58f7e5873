"""Ollama's protocol, spoken with callers and with upstreams; between the two is OpenAI's chat.

    to_chat     a request for a chat or a completion → an OpenAI chat's body
    to_ollama   an OpenAI chat's body → a request for a chat
    answer      whole answers, counts and reasons to stop, both ways
    encoder     OpenAI chunks → lines
    decoder     lines → OpenAI chunks
    relay       a stream on its way to an Ollama caller
    call        a caller's request, as it came and as a chat's body
    embedding   vectors
    models      the lists of models, and the version
    dialect     all of it, as the pipeline speaks it
    upstream    as upstreams speak it

Streams are lines of JSON, the last with `"done": true`. Counts are tokens, durations nanoseconds.
Sources (read 2026-11-23): https://github.com/ollama/ollama/blob/main/docs/api.md, api/types.go of the same repository,
https://docs.ollama.com/api/errors, and the types of the PyPI package ollama 0.6.3.
"""
