from collections.abc import Iterable, Mapping
from typing import TypeAlias

from kio.segments._engine import Engine

_Bytes: TypeAlias = bytes | bytearray | memoryview

class Survivors:
    live_records: int
    live_bytes: int
    live_expiries: int
    kept_records: int
    kept_bytes: int
    has_hiders: bool
    def __init__(self, hints: _Bytes, mapping: object, end: int, slot: int, crc_seed: int) -> None: ...
    def mark(self, engine: Engine, budget: int) -> bool: ...
    def compare(
        self,
        neighbours: Iterable[tuple[_Bytes, object, int, int]],
        floors: Mapping[int, tuple[int, int]],
        unknown_lsn: int,
        now_ms: int,
    ) -> None: ...
    def mark_hiders(self, budget: int) -> bool: ...
    def copy(self, limit: int, crc_seed: int) -> bytes: ...
