"""A worker: one process, pinned to one core, that owns some shards.

    router ==ops==>  Pipes  -->  Shard 0 .. n  -->  Store (kio.segments)
    router <==rep==         <--  replies: at once, or parked until they are durable
                                   |        ^
                                   v jobs   | finished
                             helper threads: sync | seal, prepare
    supervisor <== control socket ==> WorkerLoop

Owns the stores of its shards and everything in them; nobody else opens those files. Never routes, never parses a
client's bytes, never waits for the router: a router that died or does not read leaves at most its own replies behind.

    shard.py    what one shard does with a batch, and when it wants a sync   (no socket, no thread, no clock of its own)
    jobs.py     the helper threads
    pipes.py    the pair of ZeroMQ sockets to the router
    loop.py     the one loop that joins them
    __main__.py start: die with the supervisor, pin, recover, loop

A worker is crash-safe at every instant: SIGKILL loses nothing that was acknowledged and durable, and what the kernel
holds of the rest survives the process.
"""

if not __name__.startswith("kio."):
    raise ImportError("import kio.workers, not workers: the folders beside kio/ are its subpackages")
