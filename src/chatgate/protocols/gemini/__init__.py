"""Gemini's `generateContent`, spoken with callers and with upstreams; between the two is OpenAI's chat.

    fields        a message of the protocol by its names, which may be written in either of two ways
    schemas       Gemini's schemas as JSON schemas
    from_gemini   a Gemini request → an OpenAI chat's body
    dialogue      the turns of a Gemini request → an OpenAI chat's messages
    to_gemini     an OpenAI chat's body → a Gemini request
    turns         an OpenAI chat's messages → the turns of a Gemini request
    signatures    what models know their own calls of tools by
    counts        tokens and reasons to stop, both ways
    answer        whole answers, both ways
    encoder       OpenAI chunks → Gemini's pieces
    decoder       Gemini's pieces → OpenAI chunks
    relay         a stream on its way to a Gemini caller
    call          a caller's request, as it came and as a chat's body
    counting      a caller's request for a count of tokens
    errors        situations and providers' errors, both ways
    models        the list of models, both ways
    dialect       all of it, as the pipeline speaks it
    upstream      all of it, as upstreams speak it

Sources (read 2026-11-23): https://ai.google.dev/api/generate-content, https://ai.google.dev/api/tokens,
https://ai.google.dev/api/models, https://ai.google.dev/gemini-api/docs/thought-signatures,
https://ai.google.dev/gemini-api/docs/openai, and the discovery document of 2026-05-29,
https://generativelanguage.googleapis.com/$discovery/rest?version=v1beta.
"""
