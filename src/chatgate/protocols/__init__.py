"""Wire formats: pure functions between bytes and the vocabulary. No I/O, no clock, no configuration.

document      a JSON object as it arrived: guarded, and changed by splicing
sse           server-sent events, cut at any byte
openai_chat   OpenAI chat completions: requests, answers, streams, errors
openai_models OpenAI's list of models
plain         the plain API: one JSON route, three body forms, its answers and its stream
page          what a browser sees on the plain route
openapi       the description of the HTTP surface
"""
