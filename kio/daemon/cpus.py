"""How many workers there are, and which core each of them gets.

The cores are those that this process may use (its affinity mask, which a cpuset narrows) and no more than its cgroup's
quota pays for: more workers than that would only take the processor from one another. Read once, at start.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


def allowed_cpus() -> list[int]:
    """The cores that this process may run on, in order."""
    return sorted(os.sched_getaffinity(0))


def quota_cpus(root: Path = CGROUP_ROOT, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """How many whole cores the cgroup's quota pays for, at least 1; None where there is no quota.

    Looks at this process's cgroup and every one above it, in version 2 (cpu.max) and version 1 (cpu.cfs_quota_us).
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, read = root, _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "cpu", _quota_v1
        else:
            continue
        group = base / path.lstrip("/")
        while True:
            quota = read(group)
            if quota is not None:
                quotas.append(quota)
            if group == base or base not in group.parents:
                break
            group = group.parent
    return max(1, math.floor(min(quotas))) if quotas else None


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None


def pick_workers(requested: int, cores: int, shards: int | None = None) -> int:
    """How many workers to run: as many as `requested` (0: one per core), and never more than there are shards."""
    workers = requested or cores
    return workers if shards is None else min(workers, shards)


def place_workers(workers: int, cpus: list[int]) -> list[int]:
    """The core of each worker: all different while cores last, then around again."""
    return [cpus[worker % len(cpus)] for worker in range(workers)]


def deal_shards(shards: int, workers: int) -> list[list[int]]:
    """The shards of each worker, dealt round, so that no worker has two more than another."""
    return [list(range(worker, shards, workers)) for worker in range(workers)]
