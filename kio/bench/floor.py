"""The floor: the same plan against a server that does nothing, which shows what of a latency is the generator's own.

The no-op server is a process of its own that speaks the protocol of the measured one over loopback TCP and answers
every command at once. What it measures is the generator, the kernel's sockets and a reply of the right size; a server's
latency is what stands above that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from kio.bench.histogram import Histogram
from kio.bench.measurement import shortened
from kio.bench.plan import Plan
from kio.bench.run import Watch, measure
from kio.bench.sizes import parse_sizes
from kio.bench.targets import parse_target
from kio.errors import InternalError

#: Long enough for a p99, short enough that nobody turns it off.
FLOOR_S: Final = 2.0


def measure_floor(plan: Plan, *, watch: Watch | None = None, seconds: float = FLOOR_S) -> Histogram | None:
    """The corrected latencies of `plan` where the server takes no time.

    None when not even such a server answered anything.

    Raises:
        KeyboardInterrupt: when it was interrupted.
    """
    protocol = parse_target(plan.url).protocol
    with noop_server(protocol, round(parse_sizes(plan.value_bytes).mean())) as url:
        found = measure(replace(shortened(plan, seconds), url=url), watch=watch)
    if found.interrupted:
        raise KeyboardInterrupt
    return found.corrected if found.operations else None


@contextmanager
def noop_server(protocol: str, value_bytes: int) -> Iterator[str]:
    """The URL of a server that does nothing, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kio.bench.noop", "--protocol", protocol, "--value-bytes", str(value_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    with process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().decode().strip()
            if not port.isdigit():
                raise InternalError("the server that does nothing did not start; what it wrote stands above")
            yield f"{'kio' if protocol == 'native' else 'redis'}://127.0.0.1:{port}"
        finally:
            process.kill()
