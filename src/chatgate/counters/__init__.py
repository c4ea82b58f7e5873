"""Where limits and budgets are counted: in this process, or in one place for several.

port      what a call asks of its counters, whoever keeps them
local     kept in this process, for a gateway that is one
shared    kept by another process, for a worker: a question and an answer
link      a worker's connection to that process
doorway   how such a connection comes about
channel   the connection itself, as either side has it
wire      what is said over it
owner     the one that counts for all workers
notes     what it has counted, for whoever succeeds it when it dies
hosting   its process: its connections and its clock
readings  how it learns from the workers what the database says is spent
redis     kept in Redis, for gateways on several machines
asking    which rules hold for a call there, and what the answers mean
fleet     the way there, and who else counts
money     the budgets there, and what they have spent when the store has forgotten it

A call is taken from all of its limits and budgets in one question, and told of once more when it has ended. Knows how
to count nothing itself: that is `admission`'s and `accounting`'s. Made by `app`; `admitting` and `attempts` ask.
"""
