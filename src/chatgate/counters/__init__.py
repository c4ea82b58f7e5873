"""Where limits and budgets are counted: in this process, or in one place for several.

port     what a call asks of its counters, whoever keeps them
local    kept in this process, for a gateway that is one

A call is taken from all of its limits and budgets in one question, and told of once more when it has ended. Knows how
to count nothing itself: that is `admission`'s and `accounting`'s. Made by `app`; `admitting` and `attempts` ask.
"""
