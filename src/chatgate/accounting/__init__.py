"""What calls cost, and the record of it.

book       what the pipeline tells about money: the one object that it knows
entries    one call, as the book is told of it: dispatched, failed and tried again, settled
folding    from the journal into the database, in the background
usage      tokens of a call, from the best source there is
rates      what tokens cost, exactly; the most that a call can cost
prices     which rates a model has: the configuration's, else the catalogue's
catalogue  the prices of genai-prices, read offline
holds      money set aside before a call and settled after it, against every budget at once
periods    the calendar that budgets go by
records    what is written about a call
ledger     the rows that records add up to, and the balances that rows add up to
journal    the append-only files in which records survive a crash: their writer
recent     what was written there lately, in memory
orphans    journals whose writers have ended, next to one's own
frames     records as bytes, and back
segments   these files, as their readers see them
syncing    the thread that brings a journal to the disk itself

Decides and adds synchronously; only `journal`, `segments`, `orphans` and `syncing` touch files, and only `folding` and
those who want to outlive the power wait for anything. Knows no SQL, no HTTP and no configuration but its prices.
"""
