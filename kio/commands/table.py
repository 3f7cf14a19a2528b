"""All commands: what each is called, what arguments it takes, what it may, and what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from kio.commands import plans_bits as bits
from kio.commands import plans_dump as dumps
from kio.commands import plans_expiry as expiry
from kio.commands import plans_keys as keys
from kio.commands import plans_keyspace as keyspace
from kio.commands import plans_many as many
from kio.commands import plans_strings as strings
from kio.commands.replies import Implementation

Right = Literal["read", "write", "admin", "connection"]


class Command(NamedTuple):
    """One command."""

    name: str
    #: Arguments, its name among them; negative: so many or more.
    arity: int
    flags: tuple[str, ...]
    #: Where its keys stand among the arguments: from `first_key` to `last_key` (negative: from the end), every `step`.
    #: 0, 0, 0 where it has none, or where a number among the arguments says which (`movablekeys`).
    first_key: int
    last_key: int
    step: int
    right: Right
    group: str
    summary: str
    #: None: the front door does it itself.
    run: Implementation | None
    #: How often its plan yields at most: 2 or more where it needs answers first. The shards of its first moment's
    #: operations (all of them where one asks all) then do nothing for others until it is done; later moments have no
    #: other keys.
    #: 0: as often as it likes, and nothing is held.
    moments: int = 1


def _command(
    name: str,
    arity: int,
    flags: str,
    keys: tuple[int, int, int],
    group: str,
    summary: str,
    run: Implementation | None,
    *,
    right: Right | None = None,
    moments: int = 1,
) -> Command:
    words = tuple(flags.split())
    if right is None:
        right = "write" if "write" in words else "read"
    return Command(name, arity, words, *keys, right, group, summary, run, moments)


_ONE: Final = (1, 1, 1)
_ALL: Final = (1, -1, 1)
_TWO: Final = (1, 2, 1)
_PAIRS: Final = (1, -1, 2)
_NONE: Final = (0, 0, 0)
_READ: Final = "readonly fast"
_WRITE: Final = "write denyoom fast"
_SLOW_WRITE: Final = "write denyoom"

_STRINGS: Final = (
    _command("get", 2, _READ, _ONE, "string", "The value of a key.", strings.get),
    _command("set", -3, _SLOW_WRITE, _ONE, "string", "Store a value, on a condition or for a time.", strings.set_),
    _command("setnx", 3, _WRITE, _ONE, "string", "Store a value where the key is absent.", strings.setnx),
    _command("setex", 4, _SLOW_WRITE, _ONE, "string", "Store a value for some seconds.", strings.setex),
    _command("psetex", 4, _SLOW_WRITE, _ONE, "string", "Store a value for some milliseconds.", strings.setex),
    _command("getset", 3, _WRITE, _ONE, "string", "Store a value and answer the one before.", strings.getset),
    _command("getdel", 2, "write fast", _ONE, "string", "Remove a key and answer its value.", strings.getdel),
    _command("getex", -2, "write fast", _ONE, "string", "The value of a key, and another expiry.", strings.getex),
    _command("append", 3, _WRITE, _ONE, "string", "Put bytes behind a value.", strings.append),
    _command("strlen", 2, _READ, _ONE, "string", "The length of a value.", strings.strlen),
    _command("getrange", 4, "readonly", _ONE, "string", "A part of a value.", strings.getrange),
    _command("substr", 4, "readonly", _ONE, "string", "A part of a value; the old name of GETRANGE.", strings.getrange),
    _command("setrange", 4, _SLOW_WRITE, _ONE, "string", "Write over a part of a value.", strings.setrange),
    _command("incr", 2, _WRITE, _ONE, "string", "Add one to an integer.", strings.incr),
    _command("decr", 2, _WRITE, _ONE, "string", "Take one from an integer.", strings.decr),
    _command("incrby", 3, _WRITE, _ONE, "string", "Add to an integer.", strings.incrby),
    _command("decrby", 3, _WRITE, _ONE, "string", "Take from an integer.", strings.decrby),
    _command("incrbyfloat", 3, _WRITE, _ONE, "string", "Add to a number with a point.", strings.incrbyfloat),
    _command("digest", 2, _READ, _ONE, "string", "What tells a value from others, in few bytes.", strings.digest_),
    _command("delex", -2, "write fast", _ONE, "string", "Remove a key where a condition holds.", strings.delex),
)

_BITS: Final = (
    _command("getbit", 3, _READ, _ONE, "bitmap", "One bit of a value.", bits.getbit),
    _command("setbit", 4, _SLOW_WRITE, _ONE, "bitmap", "Write one bit of a value.", bits.setbit),
    _command("bitcount", -2, "readonly", _ONE, "bitmap", "How many bits are 1.", bits.bitcount),
    _command("bitpos", -3, "readonly", _ONE, "bitmap", "Where the first bit of a kind stands.", bits.bitpos),
    _command(
        "bitop",
        -4,
        _SLOW_WRITE,
        (2, -1, 1),
        "bitmap",
        "Combine the bits of values into another.",
        bits.bitop,
        moments=2,
    ),
    _command("bitfield", -2, _SLOW_WRITE, _ONE, "bitmap", "Integers of any width in a value.", bits.bitfield),
    _command("bitfield_ro", -2, _READ, _ONE, "bitmap", "Read integers of any width.", bits.bitfield_ro),
)

_MANY: Final = (
    _command("mget", -2, _READ, _ALL, "string", "The values of several keys.", many.mget),
    _command("mset", -3, _SLOW_WRITE, _PAIRS, "string", "Store several values.", many.mset),
    _command(
        "msetnx", -3, _SLOW_WRITE, _PAIRS, "string", "Store values if all keys are absent.", many.msetnx, moments=2
    ),
    _command(
        "msetex",
        -4,
        "write denyoom movablekeys",
        _NONE,
        "string",
        "Store several values, on a condition or for a time.",
        many.msetex,
        moments=2,
    ),
    _command("lcs", -3, "readonly", _TWO, "string", "The longest common subsequence of two values.", many.lcs),
)

_KEYS: Final = (
    _command("del", -2, "write", _ALL, "generic", "Remove keys.", keys.delete),
    _command("unlink", -2, "write fast", _ALL, "generic", "Remove keys; the same as DEL.", keys.delete),
    _command("exists", -2, _READ, _ALL, "generic", "How many of the keys are there.", keys.exists),
    _command("touch", -2, _READ, _ALL, "generic", "How many of the keys are there.", keys.exists),
    _command("type", 2, _READ, _ONE, "generic", "What a key holds.", keys.type_),
    _command("rename", 3, "write", _TWO, "generic", "Give a value another key.", keys.rename, moments=3),
    _command(
        "renamenx",
        3,
        "write fast",
        _TWO,
        "generic",
        "Give a value another key if that is absent.",
        keys.renamenx,
        moments=3,
    ),
    _command("copy", -3, _SLOW_WRITE, _TWO, "generic", "Store a value under another key too.", keys.copy, moments=2),
    _command("move", 3, "write fast", _ONE, "generic", "Take a key to another keyspace.", keys.move, moments=3),
    _command("expire", -3, "write fast", _ONE, "generic", "Let a key expire in some seconds.", expiry.expire),
    _command("pexpire", -3, "write fast", _ONE, "generic", "Let a key expire in some milliseconds.", expiry.expire),
    _command("expireat", -3, "write fast", _ONE, "generic", "Let a key expire at a time in seconds.", expiry.expire),
    _command("pexpireat", -3, "write fast", _ONE, "generic", "Let a key expire at a time in ms.", expiry.expire),
    _command("persist", 2, "write fast", _ONE, "generic", "Take a key's expiry away.", expiry.persist),
    _command("ttl", 2, _READ, _ONE, "generic", "The seconds a key has left.", expiry.ttl),
    _command("pttl", 2, _READ, _ONE, "generic", "The milliseconds a key has left.", expiry.pttl),
    _command("expiretime", 2, _READ, _ONE, "generic", "When a key expires, in seconds.", expiry.expiretime),
    _command("pexpiretime", 2, _READ, _ONE, "generic", "When a key expires, in ms.", expiry.pexpiretime),
    _command("dump", 2, "readonly", _ONE, "generic", "A value as bytes for RESTORE.", dumps.dump),
    _command("restore", -4, _SLOW_WRITE, _ONE, "generic", "Store what DUMP gave.", dumps.restore),
    _command("object", -2, "", _NONE, "generic", "What a value is made of.", dumps.object_),
    _command(
        "scan", -2, "readonly", _NONE, "generic", "Some of the keys, and where to go on.", keyspace.scan, moments=0
    ),
    _command("keys", 2, "readonly", _NONE, "generic", "All keys that match a pattern.", keyspace.keys, moments=0),
    _command("randomkey", 1, "readonly", _NONE, "generic", "Any key.", keyspace.randomkey, moments=0),
)

_ADMIN: Final = "admin noscript loading stale"
_SERVER: Final = (
    _command("dbsize", 1, _READ, _NONE, "server", "How many keys there are.", keyspace.dbsize),
    _command(
        "flushdb",
        -1,
        "write",
        _NONE,
        "server",
        "Remove all keys of the keyspace.",
        keyspace.flushdb,
        right="admin",
    ),
    _command(
        "flushall",
        -1,
        "write",
        _NONE,
        "server",
        "Remove all keys of all keyspaces.",
        keyspace.flushall,
        right="admin",
        moments=2,
    ),
    _command("swapdb", 3, "write fast", _NONE, "server", "Exchange the keys of two keyspaces.", None, right="admin"),
    _command("memory", -2, "", _NONE, "server", "The bytes that a key takes.", dumps.memory),
    _command("command", -1, "loading stale", _NONE, "server", "What commands there are.", None, right="connection"),
    _command("info", -1, "loading stale", _NONE, "server", "What the server is and does.", None),
    _command("config", -2, "", _NONE, "server", "Settings.", None, right="admin"),
    _command("time", 1, "loading stale fast", _NONE, "server", "The clock.", None, right="connection"),
    _command("lastsave", 1, "loading stale fast", _NONE, "server", "When the last checkpoint was taken.", None),
    _command(
        "save",
        1,
        "admin noscript no_async_loading no_multi",
        _NONE,
        "server",
        "Make all durable, and ask for a checkpoint.",
        None,
        right="admin",
    ),
    _command(
        "bgsave",
        -1,
        "admin noscript no_async_loading",
        _NONE,
        "server",
        "Ask for a checkpoint of all shards.",
        None,
        right="admin",
    ),
    _command("shutdown", -1, _ADMIN + " no_multi allow_busy", _NONE, "server", "End the daemon.", None, right="admin"),
    _command("latency", -2, "", _NONE, "server", "Latency events; kio keeps none.", None, right="admin"),
    _command("slowlog", -2, "", _NONE, "server", "Slow commands; kio keeps none.", None, right="admin"),
    _command("debug", -2, _ADMIN, _NONE, "server", "SLEEP, for tests of clients; off.", None, right="admin"),
    _command("function", -2, "", _NONE, "server", "There are none; FLUSH is answered OK.", None, right="admin"),
)

_BEFORE_AUTH: Final = "noscript loading stale fast no_auth allow_busy"
_DOOR: Final = "noscript loading stale fast allow_busy"
_CONNECTION: Final = tuple(
    _command(name, arity, flags, keys_at, group, summary, None, right="connection", moments=0 if name == "watch" else 1)
    for name, arity, flags, keys_at, group, summary in (
        ("ping", -1, "fast", _NONE, "connection", "PONG, or what was sent."),
        ("echo", 2, "loading stale fast", _NONE, "connection", "What was sent."),
        ("select", 2, "loading stale fast", _NONE, "connection", "Choose the keyspace."),
        ("auth", -2, _BEFORE_AUTH, _NONE, "connection", "Say who one is."),
        ("hello", -1, _BEFORE_AUTH, _NONE, "connection", "Choose the protocol's version."),
        ("quit", -1, _BEFORE_AUTH, _NONE, "connection", "Close the connection."),
        ("reset", 1, _BEFORE_AUTH, _NONE, "connection", "Make the connection as new."),
        ("client", -2, "", _NONE, "connection", "Names and facts of connections."),
        ("multi", 1, _DOOR, _NONE, "transactions", "Begin a transaction."),
        ("exec", 1, "noscript loading stale skip_slowlog", _NONE, "transactions", "Do what was queued."),
        ("discard", 1, _DOOR, _NONE, "transactions", "Forget what was queued."),
        ("watch", -2, _DOOR, _ALL, "transactions", "Let the transaction fail if a key changes."),
        ("unwatch", 1, _DOOR, _NONE, "transactions", "Forget what is watched."),
        ("wait", 3, "noscript", _NONE, "generic", "Wait until replicas have what was written."),
        ("waitaof", 4, "noscript", _NONE, "generic", "Wait until the disk has what was written."),
    )
)

TABLE: Final[Mapping[str, Command]] = {
    command.name: command for command in (*_STRINGS, *_MANY, *_BITS, *_KEYS, *_SERVER, *_CONNECTION)
}
