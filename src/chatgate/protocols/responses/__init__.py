"""OpenAI's Responses protocol, as callers speak it; upstreams are asked in OpenAI's chat, or in their own Responses.

    tools     the tools of a request and the names under which a chat model knows them
    items     the items of an input → the messages of a chat
    request   a Responses request → an OpenAI chat's body
    session   what an answer repeats of its request, and the Response object around it
    output    the items of an answer while they are written, and their events
    encoder   OpenAI chunks → events; a whole completion → a Response object
    relay     a stream on its way to a caller of Responses

Sources (read 2026-11-23): https://developers.openai.com/api/reference/resources/responses,
https://developers.openai.com/api/reference/resources/responses/streaming-events, and the types of the PyPI package
openai 3.54.0.
"""
