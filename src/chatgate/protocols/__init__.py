"""Wire formats: pure functions between bytes and the vocabulary. No I/O, no clock, no configuration.

document      a JSON object as it arrived: guarded, and changed by splicing
sse           server-sent events, cut at any byte
openai_chat   OpenAI chat completions: requests, answers, streams, errors
openai_models OpenAI's list of models
openai_operations embeddings, legacy completions, moderations: bytes pass through
anthropic     Anthropic's Messages, in terms of a chat, and a chat in terms of them
gemini        Gemini's generateContent, in the same way
responses     OpenAI's Responses, in terms of a chat
translation   the seam between callers' protocols and upstreams'
counting      the seam for protocols in which callers ask for counts of tokens
chat_body     what a chat's body has in common, whichever protocol it is translated from or to
reading       JSON values with their paths, for requests of any protocol
losses        what a translation between two protocols could not carry
plain         the plain API: one JSON route, three body forms, its answers and its stream
page          what a browser sees on the plain route
openapi       the description of the HTTP surface
"""
