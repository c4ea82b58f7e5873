"""The nouns of the gateway: frozen types and enums that every layer may use, and that do no I/O.

errors      what can go wrong, whose fault it is, and what a caller may be told
identity    who calls, from where, and which key they showed
document    a JSON object in the bytes it came in
chat        what is asked of a model and what it cost in tokens
upstreams   providers' accounts as configured: origin, credential, target, model
exchange    one call on its way through the gateway: a type per stage
"""
