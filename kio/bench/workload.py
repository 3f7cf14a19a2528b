"""Workloads that can be asked for by name: YCSB's, and presets from published statistics of caches.

Each says where its figures come from, and what its source leaves open and was therefore chosen here. Sources:
  * YCSB: Cooper, Silberstein, Tam, Ramakrishnan and Sears, "Benchmarking Cloud Serving Systems with YCSB" (SoCC 2010),
    table 2; records of 1 KB, theta and workload F as in the workload files and the zipfian generator of its program.
  * Twitter: Yang, Yue and Rashmi, "A large scale analysis of hundreds of in-memory cache clusters at Twitter" (OSDI
    2020); its figures by cluster are the table stat/2020Mar.md of the traces, github.com/twitter/cache-trace (CC BY).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kio.bench.plan import KINDS, Plan
from kio.errors import ConfigError


@dataclass(frozen=True)
class Workload:
    """A part of a plan, with a name."""

    name: str
    summary: str
    #: Where the figures come from.
    source: str
    #: What the source does not say, or says otherwise.
    choices: str
    #: Fields of Plan.
    fields: dict[str, Any]


def _ycsb(name: str, summary: str, mix: dict[str, float], keys: str = "zipf:0.99", *, source: str = "") -> Workload:
    return Workload(
        name,
        summary,
        source or f"YCSB (SoCC 2010, table 2), workload {name.upper()}; theta and size of records as in its program",
        "zipf is over the records there are, not scrambled out of a larger range; a record is one value of 1,000 bytes "
        "and is written whole, where YCSB updates one of ten fields",
        {"mix": mix, "keys": keys, "value_bytes": "1000"},
    )


def _twitter(name: str, summary: str, cluster: int, figures: str, choices: str, **fields: Any) -> Workload:
    source = f"Twitter's cache cluster {cluster} (OSDI 2020, stat/2020Mar.md of the traces): {figures}"
    return Workload(
        name,
        summary,
        source,
        f"the number of records; every key and value has the mean size, of which alone the source tells; {choices}",
        fields,
    )


_ALL: Final = (
    _ycsb("a", "update heavy: half reads, half updates", {"read": 0.5, "update": 0.5}),
    _ycsb("b", "read mostly: 95 % reads, 5 % updates", {"read": 0.95, "update": 0.05}),
    _ycsb("c", "read only", {"read": 1.0}),
    _ycsb("d", "read latest: 95 % reads, 5 % inserts", {"read": 0.95, "insert": 0.05}, "latest:0.99"),
    _ycsb(
        "f",
        "read-modify-write: half reads, half reads that are written back",
        {"read": 0.5, "rmw": 0.5},
        source="YCSB, workload F of its program (workloads/workloadf), which the paper does not have",
    ),
    _twitter(
        "small-skewed",
        "small values, few keys get most of the reads",
        44,
        "keys of 25 bytes, values of 22, get 0.98 and add 0.01, zipf 1.4084, expiry after 30 days",
        "the hundredth of the operations that the source does not name is taken for writes, and all writes for "
        "updates; no expiry, as no run lasts 30 days",
        mix={"read": 0.98, "update": 0.02},
        keys="zipf:1.4084",
        key_bytes="25",
        value_bytes="22",
    ),
    _twitter(
        "large-expiring",
        "large values that live for seconds",
        37,
        "keys of 72 bytes, values of 20,134, get 0.63 and set 0.37, zipf 0.4251, expiry after 20 s of 0.91 of the sets",
        "every write expires after 20 s; loaded records do not expire until they are written",
        mix={"read": 0.63, "expire": 0.37},
        keys="zipf:0.4251",
        key_bytes="72",
        value_bytes="20134",
        ttl_s=20.0,
        records=5_000,
    ),
    _twitter(
        "write-heavy",
        "four writes for each read, hardly any key is hot",
        12,
        "keys of 44 bytes, values of 1,030, set 0.80 and get 0.20, zipf 0.3048, expiry after 300 s",
        "sets are updates of a fixed set of records, though 81 % of the source's keys are asked for only once; no "
        "expiry, so that servers without it can be measured",
        mix={"read": 0.2, "update": 0.8},
        keys="zipf:0.3048",
        key_bytes="44",
        value_bytes="1030",
    ),
    Workload("custom", "what the options say, and reads of zipf 0.99 where they say nothing", "", "", {}),
)
#: name -> workload
CATALOGUE: Final[Mapping[str, Workload]] = {workload.name: workload for workload in _ALL}
#: name -> why not
REFUSED: Final[Mapping[str, str]] = {
    "e": "workload e reads ranges of keys in their order, and kio has no ordered scans yet",
}


def plan(url: str, name: str, chosen: Mapping[str, Any]) -> Plan:
    """The plan of a workload with some of its fields chosen otherwise; what it is called says which.

    Args:
        url: what is measured.
        name: a key of CATALOGUE, in any case.
        chosen: fields of Plan; `mix` may be the text that `parse_mix` reads.

    Raises:
        ConfigError: when there is no such workload, or `mix` cannot be read; the rest is validation.py's to check.
    """
    name = name.lower()
    if name in REFUSED:
        raise ConfigError(f"{REFUSED[name]}; say one of {', '.join(CATALOGUE)}")
    if name not in CATALOGUE:
        raise ConfigError(f'there is no workload "{name}"; say one of {", ".join(CATALOGUE)}')
    own = CATALOGUE[name].fields
    given = dict(chosen)
    if isinstance(given.get("mix"), str):
        given["mix"] = parse_mix(given["mix"])
    changed = [field for field in own if field in given and given[field] != own[field]]
    title = f"{name}, other {' and '.join(changed)}" if changed else name
    return Plan(**{"url": url, "workload": title, **own, **given})


def parse_mix(text: str) -> dict[str, float]:
    """The mix that "read=0.5,update=0.5" describes.

    Raises:
        ConfigError: when it does not have that form, or names what is no kind of operation.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        kind, _, share = (piece.strip() for piece in part.partition("="))
        if kind not in KINDS or kind in mix:
            raise ConfigError(f'mix "{text}" is not KIND=SHARE,... with each kind once; kinds are {", ".join(KINDS)}')
        try:
            mix[kind] = float(share)
        except ValueError:
            raise ConfigError(f'mix "{text}": "{share}" is no share of {kind}; say for example {kind}=0.5') from None
    return mix
