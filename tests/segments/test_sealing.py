"""The end of a sealed segment: hints, expiries, footer; and how the expiries of a log are found again."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from kio.errors import Corrupt
from kio.hashing import routed_hash
from kio.segments import _hints, format
from kio.segments.check import check_directory
from kio.segments.disk import DISK
from kio.segments.format import COLLIDES, EXPIRY, EXPIRY_ENTRY, HIDES, PUT, TOMBSTONE, Record
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode
from kio.segments.manifest import SegmentEntry
from kio.segments.sealing import hash_content, read_end, write_end
from kio.segments.segment import RECORDS_START
from tests.segments.support import IDENTITY, Driven
from tests.segments.test_recovery import ROOMY, damage, manifest_of, records_of, segment_files

SALT = 77
SEED = format.crc_seed(0, 3, SALT)


def expiring(lsn: int, key: bytes, expiry: int, value: bytes = b"", keyspace: int = 0, flags: int = 0) -> Record:
    return Record(lsn, 1, PUT, keyspace, key, value, flags | EXPIRY, expiry)


def expiries_of(records: list[tuple[int, Record]], end: int) -> bytes:
    """The list that format.py describes, made in Python from records and their offsets."""
    ends = [*(offset for offset, _ in records), end][1:]
    entries = []
    for (offset, record), behind in zip(records, ends, strict=True):
        if record.kind == PUT and record.flags & EXPIRY:
            order_high = routed_hash(record.key, IDENTITY.seed, record.keyspace) & 0xFFFFFFFF
            entries.append((record.expiry, offset // 8, order_high, (behind - offset) // 8, record.keyspace))
    return b"".join(
        EXPIRY_ENTRY.pack(expiry, order_high, at, units, keyspace)
        for expiry, at, order_high, units, keyspace in sorted(entries)
    )


def segment_of(records: list[Record]) -> tuple[bytes, list[tuple[int, Record]]]:
    """A segment file without an end, and its records with their offsets."""
    data = format.encode_header(format.Header(0, 3, IDENTITY.directory_id, SALT, 1))
    placed = []
    for record in records:
        placed.append((len(data), record))
        data += format.encode_record(SEED, record)
    return data, placed


def some_records() -> list[Record]:
    chance = random.Random(11)
    records = []
    for lsn in range(1, 300):
        key = b"key %d" % chance.randrange(60)
        fate = chance.random()
        if fate < 0.5:
            expiry = chance.choice([1, 1000, 1000, 2**48, chance.randrange(2**64)])
            value = bytes(chance.randrange(30))
            records.append(expiring(lsn, key, expiry, value, chance.choice([0, 200]), chance.choice([0, HIDES])))
        elif fate < 0.9:
            records.append(Record(lsn, 1, PUT, 0, key, b"v", chance.choice([0, COLLIDES])))
        else:
            records.append(Record(lsn, 1, TOMBSTONE, 0, key, b"", HIDES))
    return records


def write_segment(path: Path, records: list[Record]) -> SegmentEntry:
    """A sealed segment at `path`."""
    data, _ = segment_of(records)
    path.write_bytes(data + bytes(10_000))
    fd = DISK.open(path, writable=True)
    try:
        scan = _hints.scan(DISK.map(fd, len(data)), RECORDS_START, len(data), SEED, IDENTITY.seed)
        content_hash = hash_content(DISK, fd, len(data))
        entry = SegmentEntry(3, SALT, 1)
        return write_end(DISK, fd, 0, entry, len(data), scan, content_hash, 5, len(data) - RECORDS_START - 5)
    finally:
        DISK.close(fd)


@pytest.mark.parametrize("count", [0, 1, 299])
def test_a_scan_gives_the_expiries_of_puts_by_time(count: int) -> None:
    data, placed = segment_of(some_records()[:count])
    scan = _hints.scan(data + bytes(64), RECORDS_START, len(data) + 64, SEED, IDENTITY.seed)
    assert scan.records == count
    assert scan.expiries == expiries_of(placed, len(data))


def test_expiries_that_come_in_their_order_stay_in_it() -> None:
    data, placed = segment_of([expiring(lsn, b"k%d" % lsn, 1000 + lsn // 3) for lsn in range(1, 2000)])
    expiries = _hints.scan(data, RECORDS_START, len(data), SEED, IDENTITY.seed).expiries
    assert expiries == expiries_of(placed, len(data))
    assert [entry[2] for entry in EXPIRY_ENTRY.iter_unpack(expiries)] == [offset // 8 for offset, _ in placed]


@pytest.mark.parametrize("records", [some_records(), [Record(1, 1, PUT, 0, b"k", b"never expires")]])
def test_the_end_of_a_segment_is_read_back_as_it_was_written(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "segment"
    entry = write_segment(path, records)
    data, placed = segment_of(records)
    content = path.read_bytes()
    assert (entry.state, entry.end, entry.size) == ("sealed", len(data), len(content))
    assert (entry.records, entry.lsn_min, entry.lsn_max, entry.damaged) == (len(records), 1, len(records), False)
    assert entry.hash == hashlib.blake2b(data, digest_size=16).digest()
    fd = DISK.open(path)
    try:
        mapping = DISK.map(fd, entry.size)
        end = read_end(DISK, fd, mapping, 0, entry)
    finally:
        DISK.close(fd)
    assert content == data + bytes(end.hints) + bytes(end.expiries) + format.encode_footer(end.footer)
    assert bytes(end.expiries) == expiries_of(placed, len(data))
    assert bytes(end.hints) == _hints.scan(data, RECORDS_START, len(data), SEED, IDENTITY.seed).hints
    assert end.footer.live_bytes == 5
    assert end.footer.live_bytes + end.footer.dead_bytes == entry.end - RECORDS_START


def test_no_byte_behind_the_records_can_change_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    entry = write_segment(path, some_records()[:6])
    whole = path.read_bytes()
    assert entry.size > entry.end
    for at in range(entry.end, entry.size):
        damage(path, at, bytes([whole[at] ^ 0x10]))
        fd = DISK.open(path)
        try:
            with pytest.raises(Corrupt):
                read_end(DISK, fd, DISK.map(fd, entry.size), 0, entry)
        finally:
            DISK.close(fd)
        path.write_bytes(whole)


# ---- in a store ----


def append_records(driven: Driven, records: list[Record]) -> None:
    """Kill the store, and write `records` where its active segment ends; their LSNs and epochs follow its own."""
    lsn, end = driven.store.lsn, driven.store._engine.tail
    active = driven.store._chain.active
    driven.kill()
    data = b""
    for record in records:
        lsn += 1
        data += format.encode_record(active.crc_seed, record._replace(lsn=lsn, epoch=active.epoch))
    damage(active.path, end, data)


def store_with_expiries(tmp_path: Path) -> Driven:
    driven = Driven(tmp_path / "data" / "shard-0000", ROOMY)
    (tmp_path / "data" / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    driven.put(b"plain", b"1")
    append_records(driven, [expiring(0, b"key %d" % i, 2**50 - i, b"value %d" % i) for i in range(40)])
    return driven


def test_a_segment_is_sealed_with_its_expiries_and_check_finds_it_whole(tmp_path: Path) -> None:
    driven = store_with_expiries(tmp_path)
    driven.open()
    assert driven.get(b"key 7") == b"value 7"
    driven.restart()
    assert driven.items() == {b"plain": b"1"} | {b"key %d" % i: b"value %d" % i for i in range(40)}
    driven.store.close()
    report = check_directory(tmp_path / "data")
    assert report.faults == []
    (path,) = segment_files(driven.path)
    footer = format.decode_footer(path.read_bytes())
    assert (footer.hints, footer.expiries) == (41, 40)
    expiries = path.read_bytes()[footer.expiries_offset : -format.FOOTER.size]
    assert expiries == expiries_of(records_of(path), footer.end)


def test_expiries_that_are_not_those_of_the_records_are_a_fault_even_with_a_good_checksum(tmp_path: Path) -> None:
    driven = store_with_expiries(tmp_path).open()
    driven.store.close()
    (path,) = segment_files(driven.path)
    data = path.read_bytes()
    footer = format.decode_footer(data)
    expiries = bytearray(data[footer.expiries_offset : -format.FOOTER.size])
    expiries[0] ^= 1
    damage(path, footer.expiries_offset, bytes(expiries))
    kinds = [fault.kind for fault in check_directory(tmp_path / "data").faults]
    assert kinds == ["expiries"]
    damage(path, footer.size - format.FOOTER.size, format.encode_footer(
        footer._replace(expiries_crc=_hints.crc32c(expiries))
    ))  # fmt: skip
    assert [fault.message for fault in check_directory(tmp_path / "data").faults] == [
        "they are not those of the records"
    ]


def test_a_segment_whose_expiries_are_damaged_is_scanned_and_serves_all_it_holds(tmp_path: Path) -> None:
    driven = store_with_expiries(tmp_path).open()
    driven.store.close()
    (path,) = segment_files(driven.path)
    footer = format.decode_footer(path.read_bytes())
    damage(path, footer.expiries_offset + 3)
    driven.open()
    assert driven.get(b"key 39") == b"value 39"
    assert driven.count() == 41
    assert manifest_of(driven).state.segments[1].state == "sealed"
    driven.store.close()
