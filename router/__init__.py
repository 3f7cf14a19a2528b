"""The router: one process between all clients and all shards.

    __main__.py  the start of the process
    loop.py      the loop: clients, pipes and the supervisor, a turn at a time
    pipes.py     the ZeroMQ pipes to one worker
    rare.py      count, clear, scan, stats: what crosses shards
    cursor.py    where a scan over all shards has come to

Owns: the public door (kio.frontdoor), which hashes, batches and orders; the connecting ends of the pipes. Nothing of it
outlives the process: when it ends, clients reconnect and the supervisor starts another.
Never does: touch a data directory, or know how a shard stores.
"""

if not __name__.startswith("kio."):
    raise ImportError("import kio.router, not router: the folders beside kio/ are its subpackages")
