"""A plan: everything that one run is made of, so that two runs of one plan do the same.

A plan is plain data. It crosses from the coordinator to its generator processes as JSON, and stands in every report.

Words:
    operation   touches one key
    command     what one reply answers: an operation, or a batch of `batch` of them (get_many, MGET)
    request     `pipeline` commands, due together and sent by one write
    depth       requests that one connection may have outstanding
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

#: Kinds of operation, in the order of their numbers in an operation stream.
KINDS: Final = ("read", "update", "insert", "rmw", "delete", "incr", "expire")
#: `expire` is a write whose key lives for `ttl_s`; `rmw` reads a key and writes it back.
READ, UPDATE, INSERT, RMW, DELETE, INCR, EXPIRE = range(len(KINDS))


@dataclass(frozen=True)
class Plan:
    """One run. Rates, counts and seconds are of the whole run, all processes together."""

    url: str
    #: What the run is called in tables: a workload's or preset's name, or "custom".
    workload: str = "custom"
    #: Kind to share; shares add up to 1.
    mix: dict[str, float] = field(default_factory=lambda: {"read": 1.0})
    #: Which keys: "uniform", "zipf:THETA", "latest:THETA", "hotset:KEYS_SHARE:OPERATIONS_SHARE".
    keys: str = "zipf:0.99"
    #: Keys 0 to records - 1 are there before the run; inserts add to them.
    records: int = 100_000
    #: Sizes: "N", "LOW-HIGH" (uniform), "N:WEIGHT,N:WEIGHT,..." or "pareto:SCALE:SHAPE" (generalised, ETC's).
    key_bytes: str = "16"
    value_bytes: str = "100"
    #: Seconds that an `expire` write lives.
    ttl_s: float = 60.0
    #: Operations a second; 0 is the closed loop: each connection sends as soon as it may.
    rate: float = 1000.0
    #: "constant" or "poisson".
    arrivals: str = "constant"
    #: The run ends after this long, or after `count` operations when that is not 0.
    seconds: float = 10.0
    count: int = 0
    connections: int = 50
    depth: int = 1
    pipeline: int = 1
    batch: int = 1
    processes: int = 1
    seed: int = 1
    #: Every key begins with it.
    prefix: str = "bench:"
    #: Seconds that the end of the run waits for what is outstanding.
    drain_s: float = 5.0

    @property
    def is_open_loop(self) -> bool:
        """Whether requests are due by a schedule."""
        return self.rate > 0

    @property
    def operations_per_request(self) -> int:
        """Operations that are due together."""
        return self.pipeline * self.batch

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Plan:
        """The plan that `as_dict` gave."""
        return cls(**fields)
