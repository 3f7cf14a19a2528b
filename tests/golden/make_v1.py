"""How tests/golden/v1 was made, by the reference encoders and from fixed numbers: it is run by nobody but a test.

`make` gives the same bytes for ever: a format that no longer agrees with it is a new version, with its own directory.
Shard 0 was stopped cleanly, shard 1 was killed: its second segment is unsealed and ends in a torn record.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import msgpack

from kio.hashing import routed_hash
from kio.segments import format, manifest
from kio.segments._hints import crc32c
from kio.segments.format import CLEAR, COLLIDES, HIDES, PUT, TOMBSTONE, Footer, Header, Record
from kio.segments.identity import NAME, DirectoryIdentity, _encode, shard_path

IDENTITY = DirectoryIdentity(bytes(range(100, 116)), 0x0123_4567_89AB_CDEF, 2)

RECORDS: dict[int, list[list[Record]]] = {
    0: [
        [
            Record(1, 1, PUT, 0, b"first", b"overwritten later"),
            Record(2, 1, PUT, 0, b"empty", b""),
            Record(3, 1, PUT, 0, b"gone", b"deleted later"),
            Record(4, 1, PUT, 7, b"first", b"in keyspace 7"),
            Record(5, 1, PUT, 9, b"cleared", b"cleared later"),
        ],
        [
            Record(6, 1, PUT, 0, b"first", b"the newest value", HIDES),
            Record(7, 1, TOMBSTONE, 0, b"gone", b"", HIDES),
            Record(8, 1, CLEAR, 9, b"", b""),
            Record(9, 1, PUT, 0, b"{tag}key", bytes(range(256)) * 4),
            Record(10, 1, PUT, 0, b"\x00\xff" * 30, b"x" * 1000, COLLIDES),
        ],
    ],
    1: [
        [Record(1, 3, PUT, 0, b"sealed", b"1"), Record(2, 3, PUT, 0, b"again", b"old")],
        [Record(3, 4, PUT, 0, b"again", b"new", HIDES), Record(4, 4, PUT, 1, b"unsealed", b"2")],
    ],
}
#: (shard, keyspace) -> what a reader must find.
CONTENT: dict[tuple[int, int], dict[bytes, bytes]] = {
    (0, 0): {
        b"first": b"the newest value",
        b"empty": b"",
        b"{tag}key": bytes(range(256)) * 4,
        b"\x00\xff" * 30: b"x" * 1000,
    },
    (0, 7): {b"first": b"in keyspace 7"},
    (0, 9): {},
    (1, 0): {b"sealed": b"1", b"again": b"new"},
    (1, 1): {b"unsealed": b"2"},
}


def make(data: Path) -> None:
    """Write the directory to `data`."""
    data.mkdir()
    (data / NAME).write_bytes(_encode(IDENTITY))
    for shard, segments in RECORDS.items():
        path = shard_path(data, shard)
        path.mkdir()
        edits: list[dict[str, Any]] = [{"t": "close", "epoch": 1, "lsn": 0}, {"t": "next", "id": 1}, {"t": "open"}]
        for number, records in enumerate(segments, 1):
            epoch = records[0].epoch
            salt = 0xABCD_EF01_2345_6789 * number % 2**64
            edits += [{"t": "epoch", "epoch": epoch}, {"t": "create", "id": number, "salt": salt, "epoch": epoch}]
            is_sealed = (shard, number) != (1, 2)
            content, sealed = _segment(shard, number, salt, records)
            if is_sealed:
                edits.append({"t": "sealing", "id": number, "end": sealed["end"], "lsn": sealed["lsn_max"]})
                edits.append(sealed)
            else:
                content = content[: sealed["end"]] + content[64:90] + bytes(300)
            (path / f"{number:010d}.seg").write_bytes(content)
        if shard == 0:
            edits.append({"t": "close", "epoch": 1, "lsn": 10})
        (path / manifest.NAME).write_bytes(_manifest(shard, edits))


def _segment(shard: int, number: int, salt: int, records: list[Record]) -> tuple[bytes, dict[str, Any]]:
    """A sealed segment, and the edit that says so."""
    seed = format.crc_seed(shard, number, salt)
    content = format.encode_header(Header(shard, number, IDENTITY.directory_id, salt, records[0].epoch), version=1)
    hints = []
    for record in records:
        encoded = format.encode_record(seed, record)
        hash = routed_hash(record.key, IDENTITY.seed, record.keyspace)
        order = 0 if record.kind == CLEAR else (hash << 32 | hash >> 32) % 2**64
        at, units, kind = len(content) // 8, len(encoded) // 8, record.kind | record.flags
        hints.append((order, record.lsn, record.epoch, at, units, len(record.key), kind, record.keyspace))
        content += encoded
    packed = b"".join(format.HINT.pack(*hint) for hint in sorted(hints, key=lambda h: (h[0], h[2], h[1])))
    end = len(content)
    content_hash = hashlib.blake2b(content, digest_size=16).digest()
    puts, tombstones = ([r.kind for r in records].count(kind) for kind in (PUT, TOMBSTONE))
    lsn_min, lsn_max, epoch = records[0].lsn, records[-1].lsn, records[-1].epoch
    content += packed + format.encode_footer(
        Footer(
            shard, number, salt, end, end, len(hints), 0, puts, tombstones, end - 64, 0, lsn_min, lsn_max, epoch,
            crc32c(packed), content_hash, 0,
        ),
        version=1,
    )  # fmt: skip
    return content, {
        "t": "sealed", "id": number, "end": end, "size": len(content), "records": len(records), "lsn_min": lsn_min,
        "lsn_max": lsn_max, "epoch_max": epoch, "hash": content_hash, "damaged": False,
    }  # fmt: skip


def _manifest(shard: int, edits: list[dict[str, Any]]) -> bytes:
    head = manifest.HEADER.pack(manifest.MAGIC, 1, 0, shard, IDENTITY.directory_id)
    data = head + struct.pack("<I", crc32c(head))
    for sequence, edit in enumerate(edits, 1):
        payload = msgpack.packb(edit)
        crc = crc32c(struct.pack("<Q", sequence) + payload, len(payload))
        data += manifest.EDIT.pack(len(payload), crc, sequence) + payload
    return data
