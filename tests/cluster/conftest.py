"""What the tests with real processes share: a seed, and the command that repeats a failure."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.strace import why_not


@dataclass(frozen=True)
class Chance:
    """The random choices of one test.

    Attributes:
        seed: from `SEED`, or new for each run.
        dice: seeded with it.
        repeat: the command that makes the same choices again; stands in every failure's report.
    """

    seed: int
    dice: random.Random
    repeat: str


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Chance:
    """Seeded choices, told in the report when the test fails."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 31))
    full = "FULL=1 " if os.environ.get("FULL") == "1" else ""
    repeat = f"{full}SEED={seed} pytest '{request.node.nodeid}'"
    request.node.user_properties.append(("repeat", repeat))
    return Chance(seed, random.Random(seed), repeat)


@pytest.fixture
def strace_works() -> None:
    """Skips where strace is missing or may not attach."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    repeat = dict(item.user_properties).get("repeat")
    if report.failed and repeat:
        report.sections.append(("repeat with", repeat))
    return report
