"""Two generators in the same minute: redis-server measured by `kio bench` and by its own redis-benchmark.

Closed loops of 50 connections, with and without pipelines of 16, the same keys and values. They take turns, since the
machine is not the same from one minute to the next: each round has its own ratio, and the median of these counts.
"""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.bench import Server, bench, redis_server

pytestmark = [pytest.mark.stress, pytest.mark.alone, pytest.mark.timeout(600)]

RECORDS = 10_000
CONNECTIONS = 50
#: By pipeline. Where redis-server answers more than a million commands a second the generator is the slower of the two
#: on two cores, by up to a third.
TOLERANCE = {1: 0.15, 16: 0.15}
ROUNDS = 5
#: A busy machine may spoil one comparison.
TRIES = 3
ROUND_S = 2.0


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    if shutil.which("redis-benchmark") is None:
        pytest.skip("redis-benchmark is not installed")
    with redis_server() as server:
        shape = ("--records", str(RECORDS), "--value-bytes", "100", "--rate", "0", "--count", "100", "--no-floor")
        bench("--url", server.url, *shape)
        # Its keys have names of their own, and are there as well: a read that finds nothing is another measurement.
        by_redis_benchmark(server, "set", 16, 10 * RECORDS)
        yield server


def by_redis_benchmark(server: Server, test: str, pipeline: int, requests: int) -> float:
    host, port = server.url.removeprefix("redis://").split(":")
    command = ["redis-benchmark", "-h", host, "-p", port, "-t", test, "-c", str(CONNECTIONS), "-P", str(pipeline)]
    command += ["-n", str(requests), "-r", str(RECORDS), "-d", "100", "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (row,) = csv.DictReader(done.stdout.splitlines())
    return float(row["rps"])


def by_kio_bench(server: Server, kind: str, pipeline: int) -> float:
    load = ("--mix", f"{kind}=1", "--keys", "uniform", "--records", str(RECORDS), "--value-bytes", "100", "--no-load")
    shape = ("--connections", str(CONNECTIONS), "--pipeline", str(pipeline), "--no-floor")
    report = bench("--url", server.url, *load, *shape, "--rate", "0", "--seconds", str(ROUND_S))
    assert report["errors"] == {}
    return float(report["achieved"])


@pytest.mark.parametrize("pipeline", [1, 16])
@pytest.mark.parametrize(("test", "kind"), [("get", "read"), ("set", "update")])
def test_kio_bench_and_redis_benchmark_find_the_same_rate(redis: Server, test: str, kind: str, pipeline: int) -> None:
    requests = round(by_redis_benchmark(redis, test, pipeline, 50_000 * pipeline) * ROUND_S)
    for _ in range(TRIES):
        theirs, ours = [], []
        for _ in range(ROUNDS):
            theirs.append(by_redis_benchmark(redis, test, pipeline, requests))
            ours.append(by_kio_bench(redis, kind, pipeline))
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        print(
            f"{test}, pipeline {pipeline}: kio bench {statistics.median(ours):,.0f}/s, "
            f"redis-benchmark {statistics.median(theirs):,.0f}/s, ratio {ratio:.2f}"
        )
        if abs(ratio - 1) <= TOLERANCE[pipeline]:
            return
    pytest.fail(f"kio bench and redis-benchmark differ by more than {TOLERANCE[pipeline]:.0%} in {TRIES} tries")
