"""Which targets may serve a call, best first, and how each of them is doing.

Called by the attempts, which report every failure here, and by the composition root. Sends nothing and waits for
nothing: every decision is synchronous, and takes the time as a parameter.
"""
