"""Keys: the text that stands for a record's id, the same in every process and every run of a plan.

    bench:0000004711
    prefix, then the id in decimal, with as many zeros before it as the key's length asks for

Where lengths are distributed, a key's length follows from its id. A key holds no carriage return, no line feed and no
"*", so that it never looks like the framing of RESP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from kio.bench.plan import Plan
from kio.bench.sizes import parse_sizes
from kio.errors import ConfigError
from kio.limits import KEY_BYTES_MAX

#: Inserts a second of one process that a closed loop can never reach; how many ids it needs is not known before.
_CLOSED_LOOP_RATE_MAX: Final = 1_000_000
#: The load phase ends with a whole request, and so may write a few records more than the plan has.
LOAD_SURPLUS_MAX: Final = 1000
_FORBIDDEN: Final = "\r\n*"
_64_BITS: Final = (1 << 64) - 1


def ids_max(plan: Plan) -> int:
    """The plan, its load phase included, uses ids below this one."""
    inserts = 0
    if plan.mix.get("insert"):
        rate = plan.rate if plan.is_open_loop else _CLOSED_LOOP_RATE_MAX * plan.processes
        requests = math.ceil((plan.count or rate * plan.seconds) / plan.operations_per_request)
        # Whole requests, as many for each process, and each insert of one takes a place from the others too.
        inserts = math.ceil(requests / plan.processes) * plan.operations_per_request * plan.processes
    return plan.records + max(inserts, LOAD_SURPLUS_MAX)


def key_template(plan: Plan) -> bytes | None:
    """What `template % id` makes a key of; None where the length of keys is not fixed.

    Raises:
        ConfigError: as `key_of`.
    """
    sizes = parse_sizes(plan.key_bytes)
    for character in _FORBIDDEN:
        if character in plan.prefix:
            raise ConfigError(f"a key's prefix holds no {character!r}: {plan.prefix!r}")
    prefix = plan.prefix.encode()
    needed = len(prefix) + len(str(ids_max(plan) - 1))
    if sizes.bytes_min < needed:
        raise ConfigError(
            f'keys of {sizes.bytes_min} bytes do not hold prefix "{plan.prefix}" and ids up to {ids_max(plan) - 1}; '
            f"say at least --key-bytes {needed}, or a shorter --prefix"
        )
    if sizes.bytes_max > KEY_BYTES_MAX:
        raise ConfigError(f"a key has at most {KEY_BYTES_MAX} bytes, --key-bytes says up to {sizes.bytes_max}")
    if not sizes.is_fixed:
        return None
    return prefix.replace(b"%", b"%%") + b"%%0%dd" % (sizes.bytes_min - len(prefix))


def key_of(plan: Plan) -> Callable[[int], bytes]:
    """What gives the key of an id.

    Raises:
        ConfigError: when the shortest keys have no room for the prefix and the highest id, the longest are longer than
            a key may be, or the prefix holds what a key must not.
    """
    template = key_template(plan)
    if template is not None:
        return template.__mod__
    size_of = parse_sizes(plan.key_bytes).of
    prefix = plan.prefix.encode()

    def key(id: int) -> bytes:
        return prefix + b"%0*d" % (size_of(_mixed(id)) - len(prefix), id)

    return key


def _mixed(id: int) -> int:
    """A 64-bit hash of an id: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    id = (id + 0x9E3779B97F4A7C15) & _64_BITS
    id = ((id ^ (id >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    id = ((id ^ (id >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return id ^ (id >> 31)
