"""A shard that the disk has failed is opened for reading, and not one byte of it changes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from kio import opbatch, wire
from kio.errors import Corrupt, ShardReadOnly
from kio.hashing import routed_hash
from kio.segments.identity import DirectoryIdentity, create_or_load, shard_path
from kio.segments.options import StoreOptions
from kio.segments.store import Store

OPTIONS = StoreOptions(segment_bytes=64 << 10)


def execute(store: Store, identity: DirectoryIdentity, op: int, key: bytes, value: bytes = b"") -> opbatch.Reply:
    operation = opbatch.Operation(op, key, value, routed_hash(key, identity.seed))
    (reply,) = opbatch.decode_replies(store.execute(opbatch.encode_batch(0, 1, [operation])).replies)
    return reply


def content(directory: Path) -> dict[str, str]:
    files = (path for path in directory.iterdir() if path.name != "LOCK")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_store_that_the_disk_failed_reads_everything_and_changes_nothing(tmp_path: Path) -> None:
    identity, _ = create_or_load(tmp_path / "data", 1)
    path = shard_path(tmp_path / "data", 0)
    store = Store.open(path, identity, 0, OPTIONS)
    for i in range(2000):
        execute(store, identity, wire.OP_SET, b"key %d" % i, b"value %d" % i * 10)
    store.abandon()  # as a killed process leaves it: never sealed, and with a tail that was reserved ahead
    torn = max(path.glob("*.seg"))
    with torn.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"torn")
    before = content(path)

    store = Store.open(path, identity, 0, replace(OPTIONS, read_only_reason="a sync failed: EIO"))
    assert store.is_read_only
    assert store.stats()["reason"] == "a sync failed: EIO"
    assert store.stats()["keys"] == 2000
    for i in range(2000):
        assert execute(store, identity, wire.OP_GET, b"key %d" % i).payload == b"value %d" % i * 10
    for op in (wire.OP_SET, wire.OP_DELETE):
        assert execute(store, identity, op, b"key 1").status == ShardReadOnly.code
    assert execute(store, identity, wire.OP_CLEAR, b"").status == ShardReadOnly.code
    assert store.sync_job() is None
    assert store.background_job() is None
    store.close()
    assert content(path) == before

    store = Store.open(path, identity, 0, OPTIONS)
    assert not store.is_read_only
    assert execute(store, identity, wire.OP_SET, b"key 1", b"again").status == opbatch.DONE
    store.close()


def test_a_store_whose_damage_may_hide_records_says_so_in_its_figures(tmp_path: Path) -> None:
    identity, _ = create_or_load(tmp_path / "data", 1)
    path = shard_path(tmp_path / "data", 0)
    store = Store.open(path, identity, 0, OPTIONS)
    for i in range(3):
        execute(store, identity, wire.OP_SET, b"key %d" % i, bytes(100))
    assert store.stats()["reason"] == ""
    store.abandon()
    with min(path.glob("*.seg")).open("r+b") as file:
        file.seek(64 + 30)  # within the first record: the next ones are valid
        file.write(b"rot")
    store = Store.open(path, identity, 0, OPTIONS)
    assert "kio check --shard 0" in store.stats()["reason"]
    assert execute(store, identity, wire.OP_GET, b"key 2").payload == bytes(100)
    assert execute(store, identity, wire.OP_GET, b"key 0").status == Corrupt.code
    store.close()
