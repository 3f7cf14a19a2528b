"""Scans that tell the expiry of each record."""

from __future__ import annotations

import struct
from pathlib import Path

import msgpack
import pytest

from kio import opbatch, wire
from kio.errors import BadRequest
from kio.segments.store import StoreOptions
from tests.segments.support import Driven, Time, operation
from tests.segments.test_sealing import append_records, expiring

ROOMY = StoreOptions(segment_bytes=1 << 20)


def scan(driven: Driven, what: int, limit: int = 10) -> list[object]:
    """All pages of a scan."""
    found: list[object] = []
    cursor = 0
    while True:
        arguments = opbatch.SCAN_ARGUMENTS.pack(cursor, limit, what)
        payload = driven.one(operation(wire.OP_SCAN, b"", arguments)).payload
        (cursor,) = struct.unpack_from("<Q", payload)
        found += msgpack.unpackb(payload[8:])
        if cursor == 0:
            return found


def test_each_key_is_followed_by_its_value_and_its_expiry(tmp_path: Path) -> None:
    time = Time()
    driven = Driven(tmp_path / "shard", ROOMY, clock=time.clock)
    driven.put(b"stays", b"x" * 300)
    times = {b"key %d" % i: time.wall_ms + 5_000 + i for i in range(300)}
    append_records(driven, [expiring(0, key, at, b"value of " + key) for key, at in times.items()])
    driven.open()
    found = scan(driven, wire.SCAN_RECORDS)
    records = dict(zip(found[0::3], zip(found[1::3], found[2::3], strict=True), strict=True))
    assert records == {key: (b"value of " + key, at) for key, at in times.items()} | {b"stays": (b"x" * 300, 0)}
    time.pass_by(5_100)
    gone = {key for key, at in times.items() if at <= time.wall_ms}
    assert gone
    assert set(scan(driven, wire.SCAN_RECORDS)[0::3]) == records.keys() - gone
    assert len(scan(driven, wire.SCAN_ITEMS)) == 2 * len(records.keys() - gone)
    assert set(scan(driven, wire.SCAN_KEYS)) == records.keys() - gone


@pytest.mark.parametrize("what", [3, 255])
def test_a_scan_of_something_else_is_a_bad_request(tmp_path: Path, what: int) -> None:
    driven = Driven(tmp_path / "shard", ROOMY)
    (reply,) = driven.replies(operation(wire.OP_SCAN, b"", opbatch.SCAN_ARGUMENTS.pack(0, 1, what)))
    assert isinstance(reply.error(), BadRequest)
