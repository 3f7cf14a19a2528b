"""The file format: its bytes, its limits, and the kernel held against the reference."""

from __future__ import annotations

import doctest
import hashlib
import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.errors import Corrupt, FormatTooNew
from kio.hashing import routed_hash
from kio.segments import _hints, format, manifest
from kio.segments.check import check_directory
from kio.segments.format import Footer, Header, Record
from kio.segments.identity import NAME as IDENTITY_NAME
from kio.segments.identity import _encode, load
from kio.segments.manifest import Manifest
from kio.segments.sealed_json import checksum_of
from kio.segments.segment import RECORDS_START
from tests.segments.support import IDENTITY, SMALL, Driven, hash_of, key_of_hash
from tests.segments.test_recovery import records_of, segment_files

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)


def test_the_example_in_the_format_document_is_true() -> None:
    assert doctest.testmod(format).failed == 0
    assert doctest.testmod(format).attempted > 0


def test_a_header_has_the_documented_bytes() -> None:
    header = format.encode_header(Header(3, 5, bytes(range(16)), 0x1122334455667788, 9))
    expected = (
        b"KIOSEG\x1a\n" + bytes.fromhex("0200 0000 03000000 0500000000000000") + bytes(range(16))
        + bytes.fromhex("8877665544332211 09000000 0000000000000000")
    )  # fmt: skip
    assert header == expected + struct.pack("<I", _hints.crc32c(expected))
    assert len(header) == 64
    assert format.decode_header(header) == Header(3, 5, bytes(range(16)), 0x1122334455667788, 9)


def test_a_record_with_an_expiry_has_the_documented_bytes() -> None:
    record = format.encode_record(9, Record(7, 2, format.PUT, 4, b"some key", b"value", format.EXPIRY, 0x1122334455))
    body = bytes.fromhex("05000000 0700000000000000 02000000 0800 09 04 5544332211000000") + b"some keyvalue\0\0\0"
    assert record == struct.pack("<I", _hints.crc32c(body, 9)) + body


def test_a_record_has_the_documented_bytes() -> None:
    seed = format.crc_seed(1, 2, 3)
    assert seed == _hints.crc32c(bytes.fromhex("01000000 0200000000000000 0300000000000000"))
    record = format.encode_record(seed, Record(7, 2, format.TOMBSTONE, 4, b"some key", b"", format.HIDES))
    body = bytes.fromhex("00000000 0700000000000000 02000000 0800 82 04") + b"some key"
    assert record == struct.pack("<I", _hints.crc32c(body, seed)) + body


@pytest.mark.parametrize("value", ["", "00", "31323334 35363738 39"])
def test_crc32c_is_that_of_rfc_3720(value: str) -> None:
    data = bytes.fromhex(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert _hints.crc32c(data) == crc ^ 0xFFFFFFFF
    assert _hints.crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=100), st.integers(0, 100))
def test_a_checksum_can_be_continued_anywhere(data: bytes, cut: int) -> None:
    assert _hints.crc32c(data[cut:], _hints.crc32c(data[:cut])) == _hints.crc32c(data)


@given(
    record=st.builds(
        Record, U64, U32, st.just(format.PUT), st.integers(0, 255), st.binary(min_size=1, max_size=50),
        st.binary(max_size=50), st.sampled_from([0, format.COLLIDES, format.HIDES]), st.just(0),
    ),
    expiry=st.none() | U64,
    seed=U32, behind=st.binary(max_size=20), data=st.data(),
)  # fmt: skip
def test_a_record_is_read_back_as_it_was_written_and_no_bit_of_it_can_change(
    record: Record, expiry: int | None, seed: int, behind: bytes, data: st.DataObject
) -> None:
    if expiry is not None:
        record = record._replace(flags=record.flags | format.EXPIRY, expiry=expiry)
    encoded = format.encode_record(seed, record)
    assert len(encoded) % 8 == 0
    assert format.decode_record(encoded + behind, seed) == (record, len(encoded))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    flipped = bytearray(encoded)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt):
        format.decode_record(bytes(flipped), seed)
    with pytest.raises(Corrupt):
        format.decode_record(encoded, seed ^ 1)
    with pytest.raises(Corrupt):
        format.decode_record(encoded[: data.draw(st.integers(0, len(encoded) - 1))], seed)


@given(
    footer=st.tuples(U32, *[U64] * 4, U32, U32, *[U64] * 6, U32, U32, st.binary(min_size=16, max_size=16), U32),
)  # fmt: skip
def test_a_footer_is_read_back_as_it_was_written(footer: tuple[int | bytes, ...]) -> None:
    built = Footer(*footer)  # type: ignore[arg-type]
    encoded = format.encode_footer(built)
    assert len(encoded) == 136
    assert format.decode_footer(b"hints" + encoded) == built


@pytest.mark.parametrize("size", [0, 24, 4096])
def test_zeros_are_no_record(size: int) -> None:
    with pytest.raises(Corrupt):
        format.decode_record(bytes(size), 0)
    assert _hints.scan(bytes(max(size, 1)), 0, max(size, 1), 0, 0).records == 0


# ---- the kernel and the reference ----


def hints_of(records: list[tuple[int, Record]], ends: list[int]) -> bytes:
    """The hints that format.py describes, made in Python."""
    hints = []
    for (offset, record), end in zip(records, ends, strict=True):
        hash = routed_hash(record.key, IDENTITY.seed, record.keyspace)
        order = 0 if record.kind == format.CLEAR else (hash << 32 | hash >> 32) & (1 << 64) - 1
        hints.append((order, record.epoch, record.lsn, offset // 8, (end - offset) // 8, len(record.key), record))
    return b"".join(
        format.HINT.pack(order, lsn, epoch, at, units, length, record.kind | record.flags, record.keyspace)
        for order, epoch, lsn, at, units, length, record in sorted(hints, key=lambda hint: hint[:3])
    )


def test_what_the_engine_writes_is_what_the_reference_reads(tmp_path: Path) -> None:
    chance = random.Random(4)
    driven = Driven(tmp_path / "shard", SMALL)
    wanted: list[tuple[int, int, bytes, bytes]] = []
    for i in range(300):
        key, keyspace = b"{%d}key" % chance.randrange(40), chance.choice([0, 0, 3])
        fate = chance.random()
        if fate < 0.75:
            value = chance.randbytes(chance.choice([0, 1, 7, 8, 9, 200]))
            driven.put(key, value, keyspace)
            wanted.append((format.PUT, keyspace, key, value))
        elif fate < 0.97:
            if driven.delete(key, keyspace):
                wanted.append((format.TOMBSTONE, keyspace, key, b""))
        else:
            driven.clear(3)
            wanted.append((format.CLEAR, 3, b"", b""))
        if i % 50 == 49:
            driven.reopen()
    driven.run_jobs()
    driven.store.close()
    found: list[Record] = []
    sealed = Manifest.load(driven.path, 0, IDENTITY.directory_id).state.segments
    for path in segment_files(driven.path):
        data = path.read_bytes()
        header = format.decode_header(data)
        entry = sealed[header.segment]
        assert (header.shard, header.salt, header.epoch) == (0, entry.salt, entry.epoch)
        footer = format.decode_footer(data)
        records = records_of(path)
        ends = [offset for offset, _ in records[1:]] + [footer.end]
        hints = data[footer.hints_offset : footer.expiries_offset]
        assert hints == hints_of(records, ends)
        assert len(data) == footer.hints_offset + len(hints) + format.FOOTER.size == entry.size
        assert footer.hints_crc == _hints.crc32c(hints)
        assert footer.content_hash == entry.hash
        assert footer.content_hash == hashlib.blake2b(data[: footer.end], digest_size=16).digest()
        puts = [record for _, record in records if record.kind == format.PUT]
        assert (footer.puts, footer.hints) == (len(puts), len(records))
        assert footer.live_bytes + footer.dead_bytes == footer.end - RECORDS_START
        assert (footer.lsn_min, footer.lsn_max) == (records[0][1].lsn, records[-1][1].lsn)
        assert footer.epoch_max == max(record.epoch for _, record in records)
        found += [record for _, record in records]
    assert [(r.kind, r.keyspace, r.key, r.value) for r in found] == wanted
    assert [r.lsn for r in found] == list(range(1, len(wanted) + 1))
    assert [r.epoch for r in found] == sorted(r.epoch for r in found)


def test_flags_tell_what_was_there_when_a_record_came(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    first, second, third = (key_of_hash(hash_of(1, 2, bits), nth) for bits, nth in ((3, 0), (3, 1), (4, 0)))
    for key in (first, second, third, second, first):
        driven.put(key, b"")
    for key in (third, second, first):
        driven.delete(key)
    driven.put(second, b"")
    flags = [(record.key, record.flags) for _, record in records_of(segment_files(driven.path)[0])]
    collides, hides = format.COLLIDES, format.HIDES
    assert flags == [
        (first, 0), (second, collides), (third, collides), (second, collides | hides), (first, hides),
        (third, collides | hides), (second, collides | hides), (first, hides), (second, 0),
    ]  # fmt: skip


# ---- newer versions ----


def digests(data: Path) -> dict[str, str]:
    """SHA-256 of every file but the locks."""
    files = [path for path in data.rglob("*") if path.is_file() and path.name != "LOCK"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def whole_directory(data: Path) -> Driven:
    driven = Driven(data / "shard-0000", SMALL)
    (data / IDENTITY_NAME).write_bytes(_encode(IDENTITY))
    for i in range(10):
        driven.put(b"key %d" % i, bytes(150))
    driven.run_jobs()
    driven.put(b"unsealed", b"1")
    driven.kill()
    return driven


def newer_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:10] = struct.pack("<H", 3)
    content[60:64] = struct.pack("<I", _hints.crc32c(bytes(content[:60])))
    path.write_bytes(content)


def newer_footer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-128:-126] = struct.pack("<H", 3)
    content[-4:] = struct.pack("<I", _hints.crc32c(bytes(content[-136:-4])))
    path.write_bytes(content)


def newer_manifest(path: Path) -> None:
    content = bytearray((path.parent / manifest.NAME).read_bytes())
    content[8:10] = struct.pack("<H", 3)
    content[32:36] = struct.pack("<I", _hints.crc32c(bytes(content[:32])))
    (path.parent / manifest.NAME).write_bytes(content)


def newer_identity(path: Path) -> None:
    identity = path.parent.parent / IDENTITY_NAME
    fields = json.loads(identity.read_bytes())
    del fields["checksum"]
    fields |= {"format_version": 3, "a new field": 1}
    identity.write_text(json.dumps(fields | {"checksum": checksum_of(fields)}))


@pytest.mark.parametrize("make_newer", [newer_header, newer_footer, newer_manifest, newer_identity])
def test_a_newer_version_anywhere_is_refused_and_nothing_is_touched(tmp_path: Path, make_newer: object) -> None:
    driven = whole_directory(tmp_path / "data")
    make_newer(segment_files(driven.path)[0])  # type: ignore[operator]
    (driven.path / "0000000099.seg").write_bytes(bytes(100))
    with (driven.path / manifest.NAME).open("ab") as file:
        file.write(b"a torn edit")
    before = digests(tmp_path / "data")
    with pytest.raises(FormatTooNew, match="format version"):
        load(tmp_path / "data")
        driven.open()
    with pytest.raises(FormatTooNew, match="format version"):
        check_directory(tmp_path / "data")
    assert digests(tmp_path / "data") == before
