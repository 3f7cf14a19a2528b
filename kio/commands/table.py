"""All commands: what each is called, what arguments it takes, what it may, and what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from kio.commands import plans_bits as bits
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
    #: How often its plan yields: 2 where it needs answers first. The shards of its first moment's operations (all of
    #: them where one asks all) then do nothing for others until it is done; later moments have no other keys.
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

TABLE: Final[Mapping[str, Command]] = {command.name: command for command in (*_STRINGS, *_BITS)}
