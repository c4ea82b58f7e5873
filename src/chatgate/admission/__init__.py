"""The guards that a call passes: one per file, none knows another, none does I/O.

addresses   where a call really comes from, and whether that place may come in
keys        which key a caller shows, and whether it opens this gateway
limits      how much may be called, by whomever and of whatever; `rules` says what there is to limit, `standing` what
            comes of it, `headers` how callers are told; `address_limits`, `meters`, `callers`, `sliding_log` and
            `amount_log` are how it counts
"""
