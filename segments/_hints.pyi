from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from kio.segments._keydir import KeyDir

_Bytes: TypeAlias = bytes | bytearray | memoryview

class Scan(NamedTuple):
    hints: bytes
    end: int
    torn_bytes: int
    damaged: list[tuple[int, int]]
    records: int
    puts: int
    tombstones: int
    lsn_first: int
    lsn_min: int
    lsn_max: int
    epoch_max: int
    clears: list[tuple[int, int, int]]
    expiries: bytes

class Rebuilt(NamedTuple):
    keys: list[int]
    live_bytes: list[int]

def crc32c(data: _Bytes, seed: int = 0) -> int: ...
def crc32c_mapped(mapped: memoryview) -> int: ...
def hash_key(key: bytes, seed: int, keyspace: int = 0) -> int: ...
def scan(
    mapping: object,
    start: int,
    stop: int,
    crc_seed: int,
    seed: int,
    is_ordered: bool = True,
    epoch_max: int = 0xFFFFFFFF,
    data_end: int | None = None,
) -> Scan: ...
def specials(hints: _Bytes) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]: ...
def iterate(hints: _Bytes) -> Iterator[tuple[int, int, int, int]]: ...
def rebuild(
    keydir: KeyDir, sources: Sequence[tuple[int, _Bytes, object, bool]], floors: Mapping[int, tuple[int, int]]
) -> Rebuilt: ...
