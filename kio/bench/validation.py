"""Whether a plan can be carried out, before anything is started: one clear line about the first thing that is wrong.

What only the target can tell (its URL, which operations it has) is not here: targets.py.
"""

from __future__ import annotations

import math
from typing import Final

from kio.bench.choosers import parse_chooser
from kio.bench.keys import key_of
from kio.bench.plan import KINDS, Plan
from kio.bench.sizes import parse_sizes
from kio.errors import ConfigError
from kio.limits import CONNECTIONS_MAX, FRAME_KEYS_MAX, MIB, VALUE_BYTES_CEILING

#: A field of Plan -> its least and its greatest value.
RANGES: Final[dict[str, tuple[float, float]]] = {
    "records": (0, 10**12),
    "count": (0, 10**12),
    "rate": (0, 10**7),
    "seconds": (0.001, 7 * 86_400),
    "ttl_s": (0.001, 10 * 365 * 86_400),
    "drain_s": (0, 3_600),
    "connections": (1, CONNECTIONS_MAX),
    "depth": (1, 1_024),
    "pipeline": (1, 10_000),
    "batch": (1, FRAME_KEYS_MAX),
    "processes": (1, 64),
}
#: A generator process holds its operations in memory, some 20 bytes each.
OPERATIONS_PER_PROCESS_MAX: Final = 50_000_000
#: Keys and values of one request, which is made as one piece; every slot of a connection may hold one.
REQUEST_BYTES_MAX: Final = 256 * MIB
#: Kinds that exist for several keys at once.
_BATCH_KINDS: Final = {"read", "update"}


def check(plan: Plan) -> None:
    """Return if the plan can be carried out.

    Raises:
        ConfigError: when it cannot; the message names the option.
    """
    _check_ranges(plan)
    _check_mix(plan.mix)
    parse_chooser(plan.keys)
    key_of(plan)
    _check_requests(plan)
    _check_pace(plan)


def _check_ranges(plan: Plan) -> None:
    for field, (least, most) in RANGES.items():
        value = getattr(plan, field)
        # Not "value < least", which is false for nan.
        if not least <= value <= most:
            raise ConfigError(f"{_flag(field)} is {value:g}; it can be {least:g} to {most:,}")


def _check_mix(mix: dict[str, float]) -> None:
    unknown = [kind for kind in mix if kind not in KINDS]
    if unknown:
        raise ConfigError(f'mix names "{unknown[0]}"; kinds are {", ".join(KINDS)}')
    for kind, share in mix.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"the share of {kind} in the mix is {share:g}; it can be 0 to 1")
    total = math.fsum(mix.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ConfigError(f"the shares of the mix add up to {total:g}, not to 1")


def _check_requests(plan: Plan) -> None:
    kinds = {kind for kind, share in plan.mix.items() if share}
    if not plan.records and kinds != {"insert"}:
        raise ConfigError("without --records there is nothing to choose from; only inserts need none")
    value_bytes = parse_sizes(plan.value_bytes).bytes_max
    if value_bytes > VALUE_BYTES_CEILING:
        raise ConfigError(
            f"values of up to {value_bytes} bytes are too large; a value has at most {VALUE_BYTES_CEILING}"
        )
    if plan.batch > 1 and kinds - _BATCH_KINDS:
        odd = ", ".join(sorted(kinds - _BATCH_KINDS))
        raise ConfigError(f"--batch is for reads and updates, the mix has {odd} too; say --batch 1, or use --pipeline")
    request_bytes = plan.operations_per_request * (parse_sizes(plan.key_bytes).bytes_max + value_bytes)
    if request_bytes > REQUEST_BYTES_MAX:
        raise ConfigError(
            f"one request is up to {request_bytes / MIB:,.0f} MiB, at most {REQUEST_BYTES_MAX // MIB} are possible; "
            "lower --pipeline or --batch, or the sizes"
        )


def _check_pace(plan: Plan) -> None:
    if plan.arrivals not in ("constant", "poisson"):
        raise ConfigError(f'--arrivals is "{plan.arrivals}"; it can be constant or poisson')
    if plan.processes > plan.connections:
        raise ConfigError(f"--processes {plan.processes} need a connection each, --connections says {plan.connections}")
    if not plan.is_open_loop:
        return
    operations = plan.count or plan.rate * plan.seconds
    if not plan.count and operations < plan.operations_per_request:
        raise ConfigError(
            f"at --rate {plan.rate:g} not one request of {plan.operations_per_request} operations is due in "
            f"{plan.seconds:g} s; say a higher --rate, or more --seconds"
        )
    if operations / plan.processes > OPERATIONS_PER_PROCESS_MAX:
        raise ConfigError(
            f"{operations:,.0f} operations are too many to prepare, a generator process can do with "
            f"{OPERATIONS_PER_PROCESS_MAX:,}; say fewer --seconds, or more --processes"
        )


def _flag(field: str) -> str:
    return "--" + field.removesuffix("_s").replace("_", "-")
