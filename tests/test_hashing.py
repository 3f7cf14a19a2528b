"""One hash, the same in Python and C, and what its bits decide."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import msgpack
import pytest

from kio import opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from kio.hashing import KEYSPACE_STEP, hash_tag, key_hash, routed_hash, shard_of
from kio.segments._hints import hash_key

PRIME32 = 2_654_435_761
PRIME64 = 11_400_714_785_074_694_797
#: (length, seed, XXH64) over the buffer of xxHash's own sanity check.
OFFICIAL = [
    (0, 0, 0xEF46DB3751D8E999),
    (0, PRIME32, 0xAC75FDA2929B17EF),
    (1, 0, 0xE934A84ADB052768),
    (1, PRIME32, 0x5014607643A9B4C3),
    (4, 0, 0x9136A0DCA57457EE),
    (14, 0, 0x8282DCC4994E35C8),
    (14, PRIME32, 0xC3BD6BF63DEB6DF0),
    (222, 0, 0xB641AE8CB691C174),
    (222, PRIME32, 0x20CB8AB7AE10C14A),
]


def sanity_buffer(length: int) -> bytes:
    state, buffer = PRIME32, bytearray()
    for _ in range(length):
        buffer.append(state >> 56)
        state = state * PRIME64 % 2**64
    return bytes(buffer)


Hashes = Callable[[list[bytes], int, int], list[int]]


def in_the_front_door(keys: list[bytes], seed: int, keyspace: int) -> list[int]:
    """The hashes that the front door's kernel writes into the op batches for these keys."""
    door = Dispatch(1, seed)
    connection = door.open()
    door.feed(connection, wire.encode_frame([1, wire.OP_HELLO, 0, {"protocol": 1, "client": "test"}]), 1)
    (hello,) = door.take_events()
    door.greet(hello.handle, msgpack.packb({}), 2)
    door.feed(connection, wire.encode_frame([2, wire.OP_EXISTS_MANY, 0, keyspace, keys]), 1)
    return [o.hash for _, message in door.take_batches() for o in opbatch.decode_batch(message)]


def in_the_segments(keys: list[bytes], seed: int, keyspace: int) -> list[int]:
    """The hashes by which the segments' kernel finds these keys again."""
    return [hash_key(key, seed, keyspace) for key in keys]


in_c = pytest.mark.parametrize("hashes", [in_the_front_door, in_the_segments])


@pytest.mark.parametrize(("length", "seed", "expected"), OFFICIAL)
def test_it_is_the_published_xxh64(length: int, seed: int, expected: int) -> None:
    assert key_hash(sanity_buffer(length), seed) == expected


@in_c
@pytest.mark.parametrize("seed", [0, PRIME32])
def test_c_computes_the_published_xxh64_too(hashes: Hashes, seed: int) -> None:
    vectors = {length: expected for length, of, expected in OFFICIAL if of == seed and length}
    assert hashes([sanity_buffer(length) for length in vectors], seed, 0) == list(vectors.values())


@in_c
@pytest.mark.parametrize("keyspace", [0, 1, 255])
def test_c_and_python_agree_on_every_length_up_to_four_blocks_and_on_the_longest_key(
    hashes: Hashes, keyspace: int
) -> None:
    random.seed(keyspace)
    seed = random.getrandbits(64)
    keys = [random.randbytes(length) for length in (*range(1, 130), 255, 256, 1000, 65_535)]
    assert hashes(keys, seed, keyspace) == [routed_hash(key, seed, keyspace) for key in keys]


@in_c
def test_c_and_python_agree_on_which_part_of_a_key_chooses_its_shard(hashes: Hashes) -> None:
    keys = [bytes(letters) for length in range(1, 6) for letters in itertools.product(b"{}a", repeat=length)]
    assert hashes(keys, 7, 0) == [routed_hash(key, 7) for key in keys]


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"plain", b"plain"),
        (b"user:{42}:name", b"42"),
        (b"{42}", b"42"),
        (b"{a}{b}", b"a"),
        (b"{{a}}", b"{a"),
        (b"{}{b}", b"{}{b}"),
        (b"}a{b}", b"b"),
        (b"{open", b"{open"),
        (b"close}", b"close}"),
        (b"{", b"{"),
    ],
)
def test_the_tag_is_what_stands_in_the_first_braces_unless_it_is_empty(key: bytes, tag: bytes) -> None:
    assert hash_tag(key) == tag


def test_keys_with_one_tag_share_a_shard_but_not_their_page_and_tag_bits() -> None:
    hashes = [routed_hash(b"{cart}:%d" % i, 99) for i in range(1000)]
    assert len({shard_of(h, 1024) for h in hashes}) == 1
    assert len({h & 0xFFFFFFFF for h in hashes}) == 1000


def test_a_keyspace_is_another_seed() -> None:
    assert key_hash(b"k", 5, keyspace=3) == key_hash(b"k", (5 + 3 * KEYSPACE_STEP) % 2**64)
    assert len({key_hash(b"k", 5, keyspace=ks) for ks in range(256)}) == 256


def test_shards_are_cut_from_the_upper_half_in_equal_parts() -> None:
    assert shard_of(0, 8) == 0
    assert shard_of(2**64 - 1, 8) == 7
    assert [shard_of(part << 61, 8) for part in range(8)] == list(range(8))
    assert shard_of(0xFFFFFFFF, 1024) == 0, "the lower half has no say"


@pytest.mark.parametrize("shards", [2, 3, 8, 100])
def test_keys_spread_evenly_over_shards(shards: int) -> None:
    keys = 100_000
    counts = [0] * shards
    for i in range(keys):
        counts[shard_of(routed_hash(b"user:%d" % i, 42), shards)] += 1
    expected = keys / shards
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    # The 99.99 % quantile of chi-square, by Wilson and Hilferty.
    freedom = shards - 1
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3
