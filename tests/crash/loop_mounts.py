"""File systems in files, mounted for a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.daemon import wait_until


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root, to mount file systems"
    for tool in ("mkfs.ext4", "mount", "unshare"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return (
        ""
        if probe.returncode == 0 and Path("/dev/loop-control").exists()
        else "needs mount namespaces and loop devices"
    )


needs_mounts = pytest.mark.skipif(bool(_why_not()), reason=_why_not())


@contextmanager
def mounted(source: Path | str, at: Path, *flags: str) -> Iterator[Path]:
    """A file system, as long as the block runs: `mount FLAGS SOURCE AT`. Skips where that is not allowed."""
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *flags, source, at], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount {source} here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        # Killed processes may hold their files a little longer.
        wait_until(lambda: subprocess.run(["umount", at], check=False).returncode == 0, 10, f"umount {at}", 0.1)


def make_image(path: Path, size: int, *flags: str) -> Path:
    """A file of `size` bytes with an empty ext4 in it."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", *flags, path], check=True)
    return path
