"""The one hash of a key, and what its bits decide.

`key_hash` is XXH64 over the key's bytes, seeded by the data directory's seed and the keyspace. It is computed once,
where the request is parsed, and carried along. Its bits, which never overlap:

    bits 63..32   the shard: `shard_of`
    bits 31..23   the KeyDir page   (segments/_kernel.pyx)
    bits 22..3    the KeyDir tag
    bits  2..0    unused

A key that holds a `{tag}` (a brace pair with at least one byte between, first `{`, then the first `}` after it: the
rule of Redis Cluster) takes its shard from the hash of the tag alone, so that a caller can put keys together; page and
tag always come from the whole key: a request carries `routed_hash`, upper half from the tag, lower from the key.

The seed is random per data directory and stored in it with `ALGORITHM`; whoever changes a bit here changes that string.
The kernel computes the same in C (_xxh64.pxd); a test holds the two together.

`value_digest` is of values, for clients that compare them; nothing is stored or routed by it.
"""

from __future__ import annotations

from typing import Final

import xxhash

ALGORITHM: Final = "xxh64-1"
#: Added to the seed once for each keyspace: the golden ratio, so that neighbouring keyspaces do not look alike.
KEYSPACE_STEP: Final = 0x9E3779B97F4A7C15
_U64: Final = (1 << 64) - 1
_LOW: Final = (1 << 32) - 1


def key_hash(key: bytes, seed: int, keyspace: int = 0) -> int:
    """XXH64 of `key` in `keyspace` (0..255), as an unsigned 64-bit number."""
    return xxhash.xxh64_intdigest(key, (seed + keyspace * KEYSPACE_STEP) & _U64)


def hash_tag(key: bytes) -> bytes:
    """The part of `key` that chooses its shard: what stands in the first `{...}`, or the whole key.

    >>> hash_tag(b"user:{42}:name"), hash_tag(b"{}x"), hash_tag(b"plain")
    (b'42', b'{}x', b'plain')
    """
    start = key.find(b"{")
    if start < 0:
        return key
    end = key.find(b"}", start + 1)
    return key if end <= start + 1 else key[start + 1 : end]


def routed_hash(key: bytes, seed: int, keyspace: int = 0) -> int:
    """The hash a request carries: shard bits from the hash tag, page and tag bits from the whole key."""
    whole = key_hash(key, seed, keyspace)
    tag = hash_tag(key)
    return whole if tag is key else (key_hash(tag, seed, keyspace) & ~_LOW) | (whole & _LOW)


def shard_of(routed: int, shards: int) -> int:
    """The shard, 0 to `shards` - 1, of a key with this routed hash."""
    return ((routed >> 32) * shards) >> 32


def value_digest(value: bytes) -> bytes:
    """What tells one value from another in a few bytes: XXH3-64, as 16 lower-case hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(value).encode()
