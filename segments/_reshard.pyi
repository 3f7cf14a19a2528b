from kio.segments._engine import Engine

WINDOW_BYTES: int

class Dealer:
    records: int
    record_bytes: int
    def __init__(self, engine: Engine, shards: int, now_ms: int, *, window_bytes: int = ...) -> None: ...
    def deal(self, limit: int) -> list[tuple[int, bytes]]: ...
    def counts(self, keyspace: int) -> tuple[int, int]: ...
