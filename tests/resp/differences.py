"""The intended differences between kio and redis-server 7.0, all of them: what stands not here is an error of kio.

An entry says why, and recognises itself by the command and both replies. It is as narrow as its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.resp.arguments_at_random import FAR_BELOW
from tests.resp.resp_codec import Array, Command, Error, Reply

#: Commands of Redis that kio does not have; those that the generator makes, and their families.
NOT_IN_KIO: Final = frozenset(
    b"LPUSH RPUSH LRANGE LPOP RPOP LLEN HSET HGET HGETALL SADD SMEMBERS SREM ZADD ZRANGE ZSCORE XADD XRANGE "
    b"EVAL EVALSHA FCALL SCRIPT FUNCTION PUBLISH SUBSCRIBE PSUBSCRIBE SSUBSCRIBE GEOADD PFADD PFCOUNT SORT".split()
)
KEY_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Difference:
    """One intended difference.

    Attributes:
        id: for the table.
        reason: why it is intended; ends up in the documentation.
        excuses: (command, redis' reply, kio's reply) -> whether this difference is the one that is meant.
        diverges: the servers may hold other data from then on, so both are emptied before the run goes on.
    """

    id: str
    reason: str
    excuses: Callable[[Command, Reply, Reply], bool]
    diverges: bool = True


def _name(words: Command) -> bytes:
    return words[0].upper() if words else b""


def _is_unknown(reply: Reply) -> bool:
    return isinstance(reply, Error) and reply.text.startswith((b"ERR unknown command", b"ERR unknown subcommand"))


def _same_code(redis: Reply, kio: Reply) -> bool:
    return isinstance(redis, Error) and isinstance(kio, Error) and redis.code == kio.code


def _empty_key(words: Command, _: Reply, kio: Reply) -> bool:
    return b"" in words[1:] and isinstance(kio, Error) and b"key" in kio.text.lower()


def _long_key(words: Command, _: Reply, kio: Reply) -> bool:
    return any(len(word) > KEY_MAX for word in words[1:]) and isinstance(kio, Error) and b"key" in kio.text.lower()


def _long_value(_: Command, redis: Reply, kio: Reply) -> bool:
    if not isinstance(kio, Error) or not isinstance(redis, Error):
        return False
    return b"maximum allowed size" in redis.text and b"value" in kio.text.lower()


def _absent(words: Command, _: Reply, kio: Reply) -> bool:
    return _name(words) in NOT_IN_KIO and _is_unknown(kio)


def _object_statistics(words: Command, _: Reply, kio: Reply) -> bool:
    is_asked = _name(words) == b"OBJECT" and words[1:2] and words[1].upper() in (b"FREQ", b"IDLETIME", b"REFCOUNT")
    return bool(is_asked) and isinstance(kio, Error)


def _payload(words: Command, redis: Reply, kio: Reply) -> bool:
    if _name(words) not in (b"DUMP", b"RESTORE"):
        return False
    return _is_unknown(kio) or (isinstance(redis, bytes) and isinstance(kio, bytes))


def _unknown_text(_: Command, redis: Reply, kio: Reply) -> bool:
    return _is_unknown(redis) and _is_unknown(kio)


def _encoding(words: Command, redis: Reply, kio: Reply) -> bool:
    is_asked = _name(words) == b"OBJECT" and len(words) == 3 and words[1].upper() == b"ENCODING"
    return is_asked and redis in (b"raw", b"embstr") and kio in (b"raw", b"embstr", b"int")


def _lcs_memory(words: Command, redis: Reply, kio: Reply) -> bool:
    is_redis_short = isinstance(redis, Error) and b"Insufficient memory" in redis.text
    is_kio_short = isinstance(kio, Error) and b"memory" in kio.text and not isinstance(redis, Error)
    return _name(words) == b"LCS" and (is_redis_short or is_kio_short)


def _bits_of_absent(words: Command, redis: Reply, kio: Reply) -> bool:
    return _name(words) in (b"BITCOUNT", b"BITPOS") and redis in (0, -1) and isinstance(kio, Error)


def _offset_beyond(words: Command, redis: Reply, kio: Reply) -> bool:
    if _name(words) not in (b"GETBIT", b"SETBIT", b"BITFIELD", b"BITFIELD_RO") or not isinstance(redis, Error):
        return False
    if b"bit offset" not in redis.text or not any(map(_is_beyond, words[2:])):
        return False
    # kio goes on to what is wrong with the words behind the offset, if anything is.
    return not isinstance(kio, Error) or b"bit offset" not in kio.text


def _is_beyond(word: bytes) -> bool:
    """Whether it may be an offset, or a number of fields of up to 64 bits, between the limits of the two."""
    digits = word.removeprefix(b"#")
    return digits.isdigit() and (1 << 27) // 64 <= int(digits) < 1 << 32


def _far_below(words: Command, redis: Reply, kio: Reply) -> bool:
    is_saturating = _name(words) == b"BITFIELD" and any(word.upper() == b"SAT" for word in words)
    return is_saturating and any(word in FAR_BELOW for word in words)


_TIMES: Final = frozenset((b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"))
_FAR: Final = 1 << 42


def _long_expiry(words: Command, redis: Reply, kio: Reply) -> bool:
    if isinstance(redis, Array) and isinstance(kio, Array) and len(redis.items) == len(kio.items):
        pairs = [(one, other) for one, other in zip(redis.items, kio.items, strict=True) if one != other]
        return _name(words) == b"EXEC" and all(_is_far(one) and _is_far(other) for one, other in pairs)
    return _name(words) in _TIMES and _is_far(redis) and _is_far(kio)


def _is_far(reply: Reply) -> bool:
    return isinstance(reply, int) and reply >= _FAR


DIFFERENCES: Final = (
    Difference(
        "bits-of-absent",
        "redis 7.0 does not look at the options of BITCOUNT and BITPOS where the key is absent; 7.2 and kio do",
        _bits_of_absent,
        diverges=False,
    ),
    Difference(
        "offset-beyond",
        "behind the longest value that there can be kio reads zeros, and a write is told that, not its offset",
        _offset_beyond,
    ),
    Difference(
        "far-below",
        "a field of BITFIELD that saturates takes about -2^63 for too small; redis-server takes it for too large",
        _far_below,
    ),
    Difference(
        "long-expiry",
        "a time beyond 140,000 years is taken for that by kio; redis-server has all 64 bits",
        _long_expiry,
        diverges=False,
    ),
    Difference("empty-key", "kio's keys have 1 to 65,535 bytes", _empty_key),
    Difference("long-key", "kio's keys have 1 to 65,535 bytes", _long_key),
    Difference(
        "long-value", "kio's values have 16 MiB at most by default; redis-server's limit is 512 MiB", _long_value
    ),
    Difference("absent-command", "kio keeps strings: no lists, sets, hashes, streams, scripts, pub/sub", _absent),
    Difference("object-statistics", "kio keeps no access statistics of a key", _object_statistics, diverges=False),
    Difference("dump-payload", "the payload of DUMP and RESTORE is each server's own format", _payload),
    Difference(
        "unknown-text",
        "an unknown command is told in other words from version to version",
        _unknown_text,
        diverges=False,
    ),
    Difference(
        "encoding-by-history",
        "kio derives OBJECT ENCODING from the value; redis-server also from how it came to be",
        _encoding,
        diverges=False,
    ),
    Difference("lcs-size", "each server has its own limit to the memory of LCS", _lcs_memory, diverges=False),
)


def excuse(words: Command, redis: Reply, kio: Reply) -> Difference | None:
    """The intended difference that this is, or None."""
    return next((each for each in DIFFERENCES if each.excuses(words, redis, kio)), None)


def table(used: Counter[str]) -> str:
    """How often each intended difference was met."""
    rows = [f"{used[each.id]:>8}  {each.id:<20} {each.reason}" for each in DIFFERENCES]
    return "\n".join(["   times  intended difference", *rows])
