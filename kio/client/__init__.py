r"""The client: how a Python program talks to a kio daemon.

    Client (blocking.py)    aio.Client          what a caller sees: the same methods, blocking or awaited
            \\                 /
             Calls (calls.py)                    what each method asks, and what it makes of the answer; the
                   |                             operations on one key are operations.py
             plans (plans.py)                    split, ask again, give up: generators that yield rounds of requests
            /                 \\
    Channel (channel.py)    Multiplexer (multiplexer.py)      a round over one connection: a window of frames, replies
            \\                 /
             Protocol (protocol.py)              bytes to replies and back; kio.wire describes them

Everything but the sockets is sans-I/O and shared by both clients. Beside it stand the options (options.py), what
callers may hand in (arguments.py), versions and times (records.py), deadlines and pauses (retry.py), what may be under
way (window.py), the connections of the threads (pool.py) or tasks (link.py), what values are (codecs.py), pipelines and
atomic batches (pipeline.py), the dict-like view (mapping.py), locks (locks.py) and results that are kept (caching.py).
`connect` stands in opening.py.

Never here: anything of the daemon. The client knows the protocol (kio.wire), the log and the ground below only.
"""

from kio.client.blocking import Client
from kio.client.opening import connect
from kio.client.records import Entry, Record, Version

__all__ = ["Client", "Entry", "Record", "Version", "connect"]
