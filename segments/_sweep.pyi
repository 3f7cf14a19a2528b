from kio.segments._engine import Engine
from kio.segments._expiries import Expiries

def sweep(engine: Engine, slot: int, segment: int, source: Expiries, now_ms: int, budget_us: int) -> bool: ...
