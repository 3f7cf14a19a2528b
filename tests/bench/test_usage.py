"""What a server spends is that of its whole process tree, also of children that have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kio.bench.usage import Meter
from kio.errors import ConfigError

#: A parent whose child burns processor time, holds memory, says so, and ends when its stdin does.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import sys, time
held = bytearray(b"x") * (64 << 20)
while time.process_time() < 0.5:
    pass
print("done", flush=True)
sys.stdin.read()
'''])
child.wait()
print("reaped", flush=True)
sys.stdin.read()
"""


@contextmanager
def family() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.communicate()


def test_the_processor_time_and_memory_of_children_count() -> None:
    with family() as process:
        meter = Meter(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        used = meter.usage()
        assert used.pid == process.pid
        assert used.processes == 2
        assert used.cpu_s >= 0.4
        assert used.rss_bytes >= 64 << 20
        assert used.rss_bytes_max >= used.rss_bytes


def test_what_a_child_used_is_not_forgotten_when_it_ends() -> None:
    with family() as process:
        meter = Meter(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        meter.sample()
        process.stdin.close()
        process.stdin = None
        process.wait(10)
        used = meter.usage()
        assert used.cpu_s >= 0.4
        assert used.rss_bytes_max >= 64 << 20


def test_only_what_is_used_after_the_beginning_counts() -> None:
    with family() as process:
        assert process.stdout is not None
        process.stdout.readline()
        meter = Meter(process.pid)
        assert meter.usage().cpu_s < 0.2


def test_bytes_that_were_written_are_those_that_the_kernel_counted(tmp_path: Path) -> None:
    script = f"""
import os, sys
with open({str(tmp_path / "written")!r}, "wb") as file:
    sys.stdin.readline()
    file.write(bytes(8 << 20))
    os.fsync(file)
print(open("/proc/self/io").read().split("\\nwrite_bytes: ")[1].split()[0], flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        meter = Meter(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        counted = int(process.stdout.readline())
        used = meter.usage()
        process.communicate()
    assert used.written_bytes == counted


def test_a_process_that_is_not_there_is_one_clear_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(ConfigError, match=f"there is no process {process.pid} to watch"):
        Meter(process.pid)
    with pytest.raises(ConfigError, match="there is no process -1"):
        Meter(-1)
    assert Meter(os.getpid()).usage().processes >= 1
