from collections.abc import Iterable
from typing import TypeAlias

from kio.segments._engine import Engine

_Bytes: TypeAlias = bytes | bytearray | memoryview

class Relocation:
    words: int
    def __init__(self, hints: _Bytes, slot: int, sources: Iterable[tuple[_Bytes, int]]) -> None: ...
    def run(self, engine: Engine, budget: int) -> bool: ...

def totals(engine: Engine, slots: int) -> tuple[int, int, list[int]]: ...
