"""The map of keyspaces: what clients call 1 may be what records call 7, in everything that reaches a shard."""

from __future__ import annotations

import pytest

from kio import hashing, opbatch, wire
from kio.frontdoor._dispatch import Dispatch
from kio.opbatch import Operation
from tests.frontdoor.backend import Shards
from tests.frontdoor.peer import SEED, Peer, turn
from tests.frontdoor.resp_peer import OK, SHARDS, RespDoor

SAME = bytes(range(256))


def swapped(first: int, second: int) -> bytes:
    places = bytearray(SAME)
    places[first], places[second] = second, first
    return bytes(places)


def sent(dispatch: Dispatch) -> list[tuple[int, Operation]]:
    """What has left for the shards: (shard, operation)."""
    return [(shard, operation) for shard, batch in dispatch.take_batches() for operation in opbatch.decode_batch(batch)]


@pytest.fixture
def dispatch() -> Dispatch:
    made = Dispatch(SHARDS, SEED)
    made.map_keyspaces(swapped(1, 7))
    return made


@pytest.mark.parametrize(("named", "stored"), [(1, 7), (7, 1), (0, 0), (255, 255)])
def test_a_key_has_the_hash_the_shard_and_the_keyspace_that_its_record_has(
    dispatch: Dispatch, named: int, stored: int
) -> None:
    peer = Peer(dispatch)
    for number in range(20):
        key = b"key %d" % number
        hash_ = hashing.routed_hash(key, SEED, stored)
        shard = hashing.shard_of(hash_, SHARDS)
        peer.send(1, wire.OP_SET, named, key, b"v")
        assert sent(dispatch) == [(shard, Operation(wire.OP_SET, key, b"v", hash_, stored))]
        assert (dispatch.shard_of(key, named), dispatch.hash_of(key, named)) == (shard, hash_)
    assert dispatch.stored_keyspace(named) == stored


def test_the_keys_of_a_batch_and_of_an_atomic_have_it_too(dispatch: Dispatch) -> None:
    peer = Peer(dispatch)
    peer.send(1, wire.OP_GET_MANY, 1, [b"a", b"b"])
    assert {(o.keyspace, o.hash) for _, o in sent(dispatch)} == {
        (7, hashing.routed_hash(key, SEED, 7)) for key in (b"a", b"b")
    }
    peer.send(2, wire.OP_ATOMIC, 1, [[wire.OP_SET, b"{t}a", b"v"], [wire.OP_GET, b"{t}b"]])
    ((shard, outer),) = sent(dispatch)
    hashes = [hashing.routed_hash(key, SEED, 7) for key in (b"{t}a", b"{t}b")]
    assert shard == hashing.shard_of(hashes[0], SHARDS)
    assert [(o.keyspace, o.hash) for o in opbatch.decode_batch(outer.value)] == [(7, hash_) for hash_ in hashes]


def test_what_is_for_all_shards_has_the_keyspace_of_the_records(dispatch: Dispatch) -> None:
    handle = dispatch.begin()
    for op in (wire.OP_COUNT, wire.OP_CLEAR, wire.OP_SCAN):
        dispatch.fan_out(handle, op, [0, 1], keyspace=1)
        assert [o.keyspace for _, o in sent(dispatch)] == [7, 7]
    dispatch.run(handle, [(wire.OP_COUNT, b"", 0, b"", 0, None), (wire.OP_COUNT, b"", 0, b"", 1, 7)], 1)
    assert [o.keyspace for _, o in sent(dispatch)] == [7, 1]
    dispatch.end(handle)


def test_a_group_of_writes_of_one_shard_has_it_inside() -> None:
    door = RespDoor()
    door.dispatch.map_keyspaces(swapped(0, 7))
    peer = door.peer()
    door.dispatch.tune(peer.id, slow=True)
    assert peer.ask(b"MSET", b"{t}a", b"1", b"{t}b", b"2") == OK
    assert {at for keys in door.shards.keys for at in keys} == {(7, b"{t}a"), (7, b"{t}b")}
    (shard,) = (shard for shard, keys in enumerate(door.shards.keys) if keys)
    assert shard == hashing.shard_of(hashing.routed_hash(b"{t}a", SEED, 7), SHARDS)


def test_what_was_queued_before_is_for_the_records_that_were_meant() -> None:
    dispatch = Dispatch(SHARDS, SEED)
    peer, shards = Peer(dispatch), Shards(SHARDS)
    peer.send(1, wire.OP_SET, 1, b"k", b"before")
    dispatch.map_keyspaces(swapped(1, 7))
    peer.send(2, wire.OP_SET, 1, b"k", b"behind")
    turn(dispatch, shards)
    assert {at: value for keys in shards.keys for at, value in keys.items()} == {
        (1, b"k"): b"before",
        (7, b"k"): b"behind",
    }


@pytest.mark.parametrize("places", [b"", SAME[:255], SAME + b"\0", bytes(256), SAME[:255] + b"\0"])
def test_a_map_that_is_not_each_keyspace_once_is_refused(places: bytes) -> None:
    dispatch = Dispatch(SHARDS, SEED)
    with pytest.raises(ValueError, match="each of the 256 once"):
        dispatch.map_keyspaces(places)
    assert [dispatch.stored_keyspace(number) for number in range(256)] == list(SAME)
