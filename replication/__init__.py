"""Replication: a replica is the same files, kept the same. Nothing of it is built yet; a daemon serves one machine.

What will live here:

    shipper     on the primary, one per peer: reads manifest edits, sealed segments and the live tail from the shard's
                files and sends them as one stream with LSNs, from wherever the peer says it is
    receiver    on the replica: verifies, stages, and hands what is whole to the worker that owns the shard

Will own: the peer protocol, and what each peer is known to hold.
Will never: write into a shard's directory (the worker does), decide who is primary, or read a client's request.
"""

if not __name__.startswith("kio."):
    raise ImportError("import kio.replication, not replication: the folders beside kio/ are its subpackages")
