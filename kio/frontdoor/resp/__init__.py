"""RESP behind the kernel: what the commands do that it does not execute itself.

kernel        parses, executes the common commands, encodes their replies (frontdoor/_resp*.pxd, _commands.pxd)
|  command(handle, connection, arguments)
runner.py     looks the command up, checks arity and rights, runs its plan, answers
|-- transactions.py   MULTI to EXEC: many plans as one
|-- holds.py          shards that one command has to itself
|-- sessions.py       what is known of each connection
`-- connection.py, server.py, introspection.py   commands that are about these, not about keys

Owns: sessions, queued commands, plans under way. Never: sockets, shards.
"""
