"""kio answers as redis-server 7.0 does: random commands to both, every reply compared.

A failure prints the commands that it takes and how to repeat it. `SEED=n` tells one seed instead of the usual ones,
`COMMANDS=n` another length; `-s` shows how often each intended difference was met.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.resp.commands_at_random import sequence
from tests.resp.differential import check
from tests.resp.servers import Server, redis_server

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else [1, 2, 3]
COMMANDS = int(os.environ.get("COMMANDS", "3000"))
STRESS_COMMANDS = int(os.environ.get("COMMANDS", "200000"))
HERE = "tests/resp/test_differential.py"


@pytest.fixture(scope="module")
def second_redis() -> Iterator[Server]:
    with redis_server() as running:
        yield running


def repeat(test: str, seed: int, commands: int, *flags: str) -> str:
    return " ".join([f"SEED={seed} COMMANDS={commands} pytest", *flags, f"'{HERE}::{test}[{seed}]'"])


@pytest.mark.parametrize("seed", SEEDS)
def test_kio_answers_as_redis_does(redis: Server, kio: Server, seed: int) -> None:
    check(redis, kio, sequence(seed, COMMANDS), repeat("test_kio_answers_as_redis_does", seed, COMMANDS))


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS[:1])
def test_kio_answers_as_redis_does_for_long(redis: Server, kio: Server, seed: int) -> None:
    told = repeat("test_kio_answers_as_redis_does_for_long", seed, STRESS_COMMANDS, "-m stress")
    check(redis, kio, sequence(seed, STRESS_COMMANDS), told)


@pytest.mark.stress
@pytest.mark.parametrize("seed", SEEDS)
def test_redis_answers_as_redis_does(redis: Server, second_redis: Server, seed: int) -> None:
    told = repeat("test_redis_answers_as_redis_does", seed, COMMANDS, "-m stress")
    tally = check(redis, second_redis, sequence(seed, COMMANDS), told)
    assert not tally.excused
