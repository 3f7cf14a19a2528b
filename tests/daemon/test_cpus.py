"""How many workers, on which cores, with which shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from kio.daemon import cpus


def cgroup(root: Path, path: str, name: str, text: str) -> None:
    group = root / path
    group.mkdir(parents=True, exist_ok=True)
    (group / name).write_text(text)


def membership(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "membership"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", None), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("rubbish", None)],
)
def test_a_version_2_quota_counts_in_whole_cores(tmp_path: Path, quota: str, expected: int | None):
    cgroup(tmp_path, "system.slice/kio.service", "cpu.max", quota)
    assert cpus.quota_cpus(tmp_path, membership(tmp_path, "0::/system.slice/kio.service\n")) == expected


def test_the_tightest_quota_above_counts(tmp_path: Path):
    cgroup(tmp_path, "a", "cpu.max", "300000 100000")
    cgroup(tmp_path, "a/b", "cpu.max", "max 100000")
    cgroup(tmp_path, "a/b/c", "cpu.max", "500000 100000")
    assert cpus.quota_cpus(tmp_path, membership(tmp_path, "0::/a/b/c\n")) == 3


def test_a_version_1_quota_counts_too(tmp_path: Path):
    cgroup(tmp_path, "cpu/docker/x", "cpu.cfs_quota_us", "400000")
    cgroup(tmp_path, "cpu/docker/x", "cpu.cfs_period_us", "100000")
    cgroup(tmp_path, "cpu", "cpu.cfs_quota_us", "-1")
    text = "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n"
    assert cpus.quota_cpus(tmp_path, membership(tmp_path, text)) == 4


def test_without_cgroups_there_is_no_quota(tmp_path: Path):
    assert cpus.quota_cpus(tmp_path, tmp_path / "missing") is None
    assert cpus.quota_cpus(tmp_path, membership(tmp_path, "0::/../outside\n")) is None


def test_workers_are_as_many_as_asked_for_and_never_more_than_shards():
    assert cpus.pick_workers(0, cores=4) == 4
    assert cpus.pick_workers(6, cores=4) == 6
    assert cpus.pick_workers(6, cores=4, shards=2) == 2


def test_workers_get_cores_of_their_own_while_cores_last():
    assert cpus.place_workers(2, [3, 5, 7]) == [3, 5]
    assert cpus.place_workers(5, [3, 5]) == [3, 5, 3, 5, 3]


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (8, 3), (4, 4), (1024, 7)])
def test_every_shard_is_dealt_once_and_evenly(shards: int, workers: int):
    dealt = cpus.deal_shards(shards, workers)
    assert sorted(shard for hand in dealt for shard in hand) == list(range(shards))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
