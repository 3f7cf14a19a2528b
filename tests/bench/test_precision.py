"""How long the generator stays awake before a request is due."""

from __future__ import annotations

import pytest

from kio.bench.precision import SPIN_NS, spin_ns


@pytest.mark.parametrize(("rate", "awake_ns"), [(10, SPIN_NS), (1_000, SPIN_NS), (4_000, 25_000), (20_000, 5_000)])
def test_waiting_takes_a_tenth_of_a_core_at_the_most(rate: int, awake_ns: int) -> None:
    assert spin_ns(1e9 / rate) == awake_ns
