"""How tests/golden/v2 was made, by the reference encoders and from fixed numbers: it is run by nobody but a test.

`make` gives the same bytes for ever: a format that no longer agrees with it is a new version, with its own directory.
Shard 0 was stopped cleanly after some of its keys had expired. Shard 1 was begun by version 1, whose segments stay as
they are, and was killed: its last segment is unsealed and ends in a torn record.
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
from kio.segments.format import CLEAR, COLLIDES, EXPIRY, HIDES, PUT, TOMBSTONE, Footer, Header, Record
from kio.segments.identity import NAME, DirectoryIdentity, _encode, shard_path

IDENTITY = DirectoryIdentity(bytes(range(50, 66)), 0xFEDC_BA98_7654_3210, 2)
#: 2001 and 2200: what expired long ago, and what does not.
PAST, FUTURE = 1_000_000_000_000, 7_258_118_400_000
#: The clock of shard 0 when it was stopped.
CLOCK = PAST + 5000

RECORDS: dict[int, list[list[Record]]] = {
    0: [
        [
            Record(1, 1, PUT, 0, b"hidden", b"an expired record hides it"),
            Record(2, 1, PUT, 0, b"plain", b"1"),
            Record(3, 1, PUT, 0, b"expired", b"x" * 99, EXPIRY, PAST + 3),
            Record(4, 1, PUT, 7, b"lasting", b"in keyspace 7", EXPIRY, FUTURE),
            Record(5, 1, PUT, 9, b"cleared", b"", EXPIRY, FUTURE + 1),
            Record(6, 1, PUT, 0, b"set again", b"", EXPIRY, PAST),
            Record(7, 1, PUT, 0, b"deleted", b"", EXPIRY, FUTURE),
        ],
        [
            Record(8, 1, PUT, 0, b"hidden", b"expired", HIDES | EXPIRY, PAST + 1),
            Record(9, 1, PUT, 0, b"set again", b"without a time", HIDES),
            Record(10, 1, TOMBSTONE, 0, b"deleted", b"", HIDES),
            Record(11, 1, CLEAR, 9, b"", b""),
            Record(12, 1, PUT, 0, b"lasting", bytes(range(256)) * 4, COLLIDES | EXPIRY, FUTURE - 1),
        ],
        [Record(13, 1, PUT, 0, b"no expiry", b"in this segment")],
    ],
    1: [
        [Record(1, 3, PUT, 0, b"of version 1", b"1"), Record(2, 3, PUT, 0, b"k", b"v1")],
        [Record(3, 4, PUT, 0, b"k", b"v2", HIDES | EXPIRY, PAST), Record(4, 4, PUT, 1, b"k", b"", EXPIRY, FUTURE)],
        [Record(5, 5, PUT, 0, b"unsealed", b"2", EXPIRY, FUTURE), Record(6, 5, PUT, 0, b"gone", b"", EXPIRY, PAST)],
    ],
}
#: (shard, segment) of version 1.
OLD = {(1, 1)}
UNSEALED = {(1, 3)}
#: (shard, keyspace) -> what a reader must find.
CONTENT: dict[tuple[int, int], dict[bytes, bytes]] = {
    (0, 0): {
        b"plain": b"1",
        b"set again": b"without a time",
        b"lasting": bytes(range(256)) * 4,
        b"no expiry": b"in this segment",
    },
    (0, 7): {b"lasting": b"in keyspace 7"},
    (0, 9): {},
    (1, 0): {b"of version 1": b"1", b"unsealed": b"2"},
    (1, 1): {b"k": b""},
}


def make(data: Path) -> None:
    """Write the directory to `data`."""
    data.mkdir()
    (data / NAME).write_bytes(_encode(IDENTITY))
    for shard, segments in RECORDS.items():
        path = shard_path(data, shard)
        path.mkdir()
        edits: list[dict[str, Any]] = [{"t": "close", "epoch": 1, "lsn": 0}, {"t": "next", "id": 1}]
        edits.append({"t": "open", "boot": ""})
        for number, records in enumerate(segments, 1):
            epoch = records[0].epoch
            salt = 0x9876_5432_10FE_DCBA * number % 2**64
            edits += [{"t": "epoch", "epoch": epoch}, {"t": "create", "id": number, "salt": salt, "epoch": epoch}]
            content, sealed = _segment(shard, number, salt, records)
            if (shard, number) in UNSEALED:
                content = content[: sealed["end"]] + content[64:90] + bytes(300)
            else:
                edits.append({"t": "sealing", "id": number, "end": sealed["end"], "lsn": sealed["lsn_max"]})
                edits.append(sealed)
            (path / f"{number:010d}.seg").write_bytes(content)
        if shard == 0:
            edits += [{"t": "clock", "ms": CLOCK}, {"t": "close", "epoch": 1, "lsn": 13}]
        (path / manifest.NAME).write_bytes(_manifest(shard, edits))


def _segment(shard: int, number: int, salt: int, records: list[Record]) -> tuple[bytes, dict[str, Any]]:
    """A sealed segment, and the edit that says so."""
    version = 1 if (shard, number) in OLD else 2
    seed = format.crc_seed(shard, number, salt)
    content = format.encode_header(Header(shard, number, IDENTITY.directory_id, salt, records[0].epoch), version)
    hints, expiries = [], []
    for record in records:
        encoded = format.encode_record(seed, record)
        hash = routed_hash(record.key, IDENTITY.seed, record.keyspace)
        order = 0 if record.kind == CLEAR else (hash << 32 | hash >> 32) % 2**64
        at, units, kind = len(content) // 8, len(encoded) // 8, record.kind | record.flags
        hints.append((order, record.lsn, record.epoch, at, units, len(record.key), kind, record.keyspace))
        if record.flags & EXPIRY:
            expiries.append((record.expiry, order >> 32, at, units, record.keyspace))
        content += encoded
    end = len(content)
    content_hash = hashlib.blake2b(content, digest_size=16).digest()
    hint_list = b"".join(format.HINT.pack(*hint) for hint in sorted(hints, key=lambda h: (h[0], h[2], h[1])))
    expiry_list = b"".join(format.EXPIRY_ENTRY.pack(*e) for e in sorted(expiries, key=lambda e: (e[0], e[2])))
    puts, tombstones = ([r.kind for r in records].count(kind) for kind in (PUT, TOMBSTONE))
    lsn_min, lsn_max, epoch = records[0].lsn, records[-1].lsn, records[-1].epoch
    footer = Footer(
        shard, number, salt, end, end, len(hints), len(expiries), puts, tombstones, end - 64, 0, lsn_min, lsn_max,
        epoch, crc32c(hint_list), content_hash, crc32c(expiry_list),
    )  # fmt: skip
    content += hint_list + expiry_list + format.encode_footer(footer, version)
    return content, {
        "t": "sealed", "id": number, "end": end, "size": len(content), "records": len(records), "lsn_min": lsn_min,
        "lsn_max": lsn_max, "epoch_max": epoch, "hash": content_hash, "damaged": False,
    }  # fmt: skip


def _manifest(shard: int, edits: list[dict[str, Any]]) -> bytes:
    head = manifest.HEADER.pack(manifest.MAGIC, 2, 0, shard, IDENTITY.directory_id)
    data = head + struct.pack("<I", crc32c(head))
    for sequence, edit in enumerate(edits, 1):
        payload = msgpack.packb(edit)
        crc = crc32c(struct.pack("<Q", sequence) + payload, len(payload))
        data += manifest.EDIT.pack(len(payload), crc, sequence) + payload
    return data
