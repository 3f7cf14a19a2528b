"""A power cut that kept a later page of the active segment and lost an earlier one: a hole ends the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from kio import opbatch, wire
from kio.errors import Corrupt
from kio.hashing import routed_hash
from kio.segments.disk import Disk
from kio.segments.identity import DirectoryIdentity, create_or_load, shard_path
from kio.segments.options import StoreOptions
from kio.segments.store import Store

OPTIONS = StoreOptions(segment_bytes=256 << 10)
PAGE = 4096
#: Header, key of 7 bytes, value of 200, up to a multiple of 8.
RECORD_BYTES = 232


class BootedDisk(Disk):
    """A disk of a machine in this boot."""

    def __init__(self, boot: str) -> None:
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


def execute(store: Store, identity: DirectoryIdentity, op: int, key: bytes, value: bytes = b"") -> opbatch.Reply:
    operation = opbatch.Operation(op, key, value, routed_hash(key, identity.seed))
    (reply,) = opbatch.decode_replies(store.execute(opbatch.encode_batch(0, 1, [operation])).replies)
    return reply


def shard_with_a_lost_page(tmp_path: Path, lost: bytes) -> tuple[Path, DirectoryIdentity]:
    """A shard of 200 records that was killed, and one page in the middle of its log."""
    identity, _ = create_or_load(tmp_path / "data", 1)
    path = shard_path(tmp_path / "data", 0)
    store = Store.open(path, identity, 0, OPTIONS, BootedDisk("first"))
    for i in range(200):
        execute(store, identity, wire.OP_SET, b"key %03d" % i, b"v" * 200)
    store.abandon()
    with min(path.glob("*.seg")).open("r+b") as file:
        file.seek(5 * PAGE)
        file.write(lost)
    return path, identity


@pytest.mark.parametrize("boot", ["second", ""])
def test_after_a_power_cut_a_hole_ends_the_log_and_what_is_before_it_is_served(tmp_path: Path, boot: str) -> None:
    path, identity = shard_with_a_lost_page(tmp_path, bytes(PAGE))
    for _ in range(2):  # once more, to see that the cut is whole
        store = Store.open(path, identity, 0, OPTIONS, BootedDisk(boot))
        assert store.stats()["reason"] == ""
        kept = store.stats()["keys"]
        assert kept == (5 * PAGE - 64) // RECORD_BYTES
        for i in range(200):
            reply = execute(store, identity, wire.OP_GET, b"key %03d" % i)
            assert reply.status == (opbatch.VALUE if i < kept else opbatch.ABSENT), i
        store.abandon()
    store = Store.open(path, identity, 0, OPTIONS, BootedDisk(boot))
    assert execute(store, identity, wire.OP_SET, b"key 199", b"again").status == opbatch.DONE
    store.close()


def test_in_the_same_boot_the_same_hole_is_corruption(tmp_path: Path) -> None:
    path, identity = shard_with_a_lost_page(tmp_path, bytes(PAGE))
    store = Store.open(path, identity, 0, OPTIONS, BootedDisk("first"))
    assert execute(store, identity, wire.OP_GET, b"key 000").status == Corrupt.code
    assert execute(store, identity, wire.OP_GET, b"key 199").status == opbatch.VALUE
    store.close()


def test_damage_that_is_no_lost_page_is_corruption_after_a_power_cut_too(tmp_path: Path) -> None:
    path, identity = shard_with_a_lost_page(tmp_path, b"rot" * 1000)
    store = Store.open(path, identity, 0, OPTIONS, BootedDisk("second"))
    assert execute(store, identity, wire.OP_GET, b"key 000").status == Corrupt.code
    assert execute(store, identity, wire.OP_GET, b"key 199").status == opbatch.VALUE
    store.close()
