"""What several machines count together, in Redis or Valkey: every statement that is sent there.

connection   a connection that all calls share: whatever is asked in one turn of the loop goes in one write
statements   what is asked, and what the answers mean
probe        whether a server can be used
counts       windows and slots, in Lua: stands before the scripts that count
take         a call is taken from all of its limits and budgets, or from none
settle       what was taken is corrected when the call has ended
session      a process begins to count, and shows that it lives
money        the accounts of budgets: settled, told of, and loaded from the ledger

The scripts run in the server, one at a time and by its clock. Every key they make ends by itself, begins with
`{chatgate}:` and so would lie in one slot of a cluster; a cluster is refused all the same, for it would move that slot
away from under us. Knows no rules and no budgets: `counters` asks.
"""
