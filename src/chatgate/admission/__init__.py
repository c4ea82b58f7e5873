"""The guards that a call passes: one per file, none knows another, none does I/O.

addresses   where a call really comes from, and whether that place may come in
keys        which key a caller shows, and whether it opens this gateway
limits      how often an address may call; `callers` and `sliding_log` are where it remembers
"""
