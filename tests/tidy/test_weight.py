"""What a start costs: heavy modules are loaded only by what uses them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "asyncio",
    "cachelib",
    "django",
    "matplotlib",
    "multiprocessing",
    "prometheus_client",
    "psutil",
    "rich",
    "typer",
    "zmq",
)


def heavy_after(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter holds after `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import kio", set()),
        ("import kio; kio.KioError", set()),
        ("import kio; kio.connect", set()),
        ("import kio; kio.aio", {"asyncio"}),
        ("import kio.client, kio.contrib", set()),
        ("import kio.__main__, kio.cli", set()),
        ("import kio.segments.store", set()),
        ("import kio.workers.__main__", {"zmq"}),
        ("import kio.router.__main__", {"zmq"}),
        ("import kio.bench.generator", set()),
        ("import kio.bench.plots", {"psutil"}),
    ],
)
def test_a_module_loads_nothing_heavy_that_it_does_not_need(code: str, needed: set[str]) -> None:
    # zmq imports asyncio for its own use.
    assert heavy_after(code) - needed - ({"asyncio"} if "zmq" in needed else set()) == set()


def test_importing_kio_imports_none_of_its_modules() -> None:
    script = "import sys, kio; print([name for name in sys.modules if name.startswith('kio.')])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
