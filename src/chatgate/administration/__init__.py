"""The admin HTTP API: what `chatgate keys` and `chatgate usage` do, for programs elsewhere.

door         who may administer, by which key, and what becomes of wrong ones
desk         what each operation does, in the database and on this node
routes       the one table of all operations, and the way of a request through it
description  the table as OpenAPI knows it
usages       what was used, as JSON tells it; also the command's

It is built by `app` and asked by `endpoints`, as rarely as people administer: nothing here is on the way of a call.
"""
