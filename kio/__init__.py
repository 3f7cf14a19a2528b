"""kio: a sharded, durable key-value store daemon for data larger than RAM.

    kio serve: supervisor (kio.daemon)   starts, pins, watches and restarts the others; admin HTTP; never sees a key
        ├── router (kio.router)          one process: parses, hashes, scatters to shards, gathers replies in order
        └── worker (kio.workers)         one per core: owns its shards, each one log and one KeyDir (kio.segments)

Processes share no memory and no lock. Clients meet the router's front door (kio.frontdoor) with the protocol of
wire.py; the router and the workers exchange op batches (opbatch.py) over ZeroMQ pipes; the supervisor and its children
exchange control messages (control.py) over socket pairs. A key's hash (hashing.py) alone says which shard owns it.

Imports go down only, and `make check` holds it:

    cli, __main__                                       what a person types
    daemon | bench                                      the supervisor; the load generator, which shares nothing with it
    router | workers | replication                      the processes; they meet through messages, never by import
    segments                                            files; knows no socket, process or configuration
    frontdoor                                           sockets, frames, reply order, limits; knows no shard
    wire, opbatch, control, config, log, client, aio,   what they say to each other, and what says it; contrib is the
    contrib                                             client again, for web frameworks
    errors, limits, clock, hashing, glob                the ground

For a program that uses a daemon this module is the door:

    with kio.connect("kio://127.0.0.1:7400") as db:
        db.set("greeting", b"hello")

Its attributes are imported when they are first used: a worker, which imports this module too, carries no client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import kio.aio as aio
    import kio.errors as errors
    from kio.client import connect as connect
    from kio.errors import KioError as KioError

__version__ = "0.1.0"
__all__ = ["KioError", "__version__", "aio", "connect", "errors"]

#: attribute -> the module it stands in, and its name there ("" for the module itself).
_LAZY = {
    "connect": ("kio.client", "connect"),
    "aio": ("kio.aio", ""),
    "errors": ("kio.errors", ""),
    "KioError": ("kio.errors", "KioError"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
