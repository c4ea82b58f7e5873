"""What outlives the process: every statement of SQL, on SQLite and on PostgreSQL, and what is asked of Redis.

database     one database: reads that see one moment, writes that are whole or not at all, and what keeps it from both
threads      the same for an event loop, which never waits for a disk or a server
schema       the tables; `columns` what is put into their cells, `migration` and `migrations/` how they came to be
keys         the keys of the gateway; what is known of one is in `vocabulary.keys`
ledger       records of journals become rows, exactly once, and their money sums; `records` is what they look like,
             `calls` what they make of the rows of a call, `plain` the short way that nearly all calls go
audit        whether the sums are those of the rows
usage        calls, tokens and money in groups
pepper       the secret that digests of keys are made under
backup       copies of a database while it is used, and the way back
errors       what all of these raise
redis        what several machines count together in Redis or Valkey: connection, scripts and statements

Importing the package itself loads none of that: a command that needs no database does not wait for one.
"""
