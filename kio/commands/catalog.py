"""All commands: those on keys (table.py), and those about a connection or the daemon, which the front door runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kio.commands.table import TABLE, Command, Right


def _own(name: str, arity: int, flags: str, group: str, summary: str, right: Right = "connection") -> Command:
    return Command(name, arity, tuple(flags.split()), 0, 0, 0, right, group, summary, None)


_FAST: Final = "fast loading stale"
_ADMIN: Final = "admin loading stale"

_CONNECTION: Final = (
    _own("ping", -1, "fast", "connection", "Whether the daemon is there."),
    _own("echo", 2, _FAST, "connection", "What was sent."),
    _own("hello", -1, _FAST + " no_auth", "connection", "Who speaks, and in which version of RESP."),
    _own("auth", -2, _FAST + " no_auth", "connection", "Say who it is, and prove it."),
    _own("select", 2, _FAST, "connection", "Choose one of the keyspaces 0 to 15."),
    _own("quit", -1, _FAST + " no_auth", "connection", "End the connection."),
    _own("reset", 1, _FAST + " no_auth", "connection", "Begin the connection anew."),
    _own("client", -2, "loading stale", "connection", "About this connection and the others."),
)
_TRANSACTIONS: Final = (
    _own("multi", 1, _FAST, "transactions", "Keep the commands that follow until EXEC."),
    _own("exec", 1, "loading stale", "transactions", "Run what was kept since MULTI, as one."),
    _own("discard", 1, _FAST, "transactions", "Forget what was kept since MULTI."),
    _own(
        "watch", -2, _FAST, "transactions", "Let EXEC do nothing when one of these keys has changed.", "read"
    )._replace(first_key=1, last_key=-1, step=1, moments=0),
    _own("unwatch", 1, _FAST, "transactions", "Let EXEC depend on no key."),
)
_SERVER: Final = (
    _own("command", -1, "loading stale", "server", "What commands there are."),
    _own("config", -2, _ADMIN, "server", "Settings, as tools for Redis ask for them.", "admin"),
    _own("info", -1, "loading stale", "server", "Figures of the daemon, as tools for Redis read them.", "read"),
    _own("time", 1, _FAST, "server", "The wall clock."),
    _own("lastsave", 1, _FAST, "server", "When the last checkpoint was taken.", "read"),
    _own("save", 1, "admin", "server", "Take a checkpoint of all shards.", "admin"),
    _own("bgsave", -1, "admin", "server", "Ask for a checkpoint of all shards.", "admin"),
    _own("shutdown", -1, _ADMIN, "server", "End the daemon.", "admin"),
    _own("latency", -2, _ADMIN, "server", "Latency events; kio keeps none.", "admin"),
    _own("debug", -2, _ADMIN, "server", "For tests; off unless the daemon was told otherwise.", "admin"),
    _own("function", -2, "noscript", "server", "There are no functions; FLUSH is answered OK.", "write"),
    _own("slowlog", -2, _ADMIN, "server", "Slow commands; kio keeps none.", "admin"),
    _own("wait", 3, "blocking", "server", "How many replicas have all writes of this connection."),
    _own("waitaof", 4, "blocking", "server", "Wait until all writes of this connection are on the disk.", "write"),
)

#: By name, in lower case.
COMMANDS: Final[Mapping[str, Command]] = {
    **TABLE,
    **{command.name: command for command in (*_CONNECTION, *_TRANSACTIONS, *_SERVER)},
}
