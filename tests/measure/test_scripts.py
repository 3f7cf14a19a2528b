"""The scripts that measure the storage engine, small: each runs to its end and fills its table. Bars are not judged."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kio import opbatch, wire
from kio.limits import MIB
from kio.segments._hints import hash_key
from kio.segments.format import FOOTER, HINT
from kio.segments.identity import create_or_load, shard_path
from kio.segments.options import StoreOptions
from kio.segments.store import Store
from tests.measure import amplification, backup, expiry, memory, processes, restart, servers, verdict
from tests.measure.expiry import Expected
from tests.measure.numbered import Model, Writer
from tests.measure.processes import Watched
from tests.measure.verdict import Figure

Main = Callable[[list[str]], int]


def table(main: Main, tmp_path: Path, capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float | None]:
    """The figures of a quick run, by name, after checking that it told its verdict and left nothing."""
    code = main(["--quick", "--json", "--dir", str(tmp_path), *arguments])
    told = json.loads(capfd.readouterr().out)
    assert code == (verdict.MISSED if any(row["verdict"] == "FAIL" for row in told["figures"]) else 0)
    assert os.listdir(tmp_path) == []
    return {row["name"]: row["value"] for row in told["figures"]}


@pytest.mark.stress
def test_overwrites_are_measured_in_room_and_in_bytes_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = table(amplification.main, tmp_path, capfd, "--part", "space")
    for keys in ("uniform", "zipf"):
        figures = {name.removeprefix(f"{keys} "): value for name, value in found.items()}
        record_bytes = 8 * -(-(24 + 16 + 1_000) // 8)
        assert figures["written_by_clients_mib"] * 2**20 == pytest.approx(48_000 * record_bytes, rel=0.01)
        assert figures["write_amplification"] > 1
        assert figures["write_amplification_records"] > 1
        assert figures["compactions"] > 0
        assert figures["disk_samples"] > 0
        assert figures["disk_excess_segments_of_a_shard"] < figures["disk_excess_segments_of_a_shard_with_overhead"]


@pytest.mark.stress
def test_reads_are_measured_beside_overwrites_compactions_and_checkpoints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = table(amplification.main, tmp_path, capfd, "--part", "latency")
    assert found["latency half_load_per_s"] > 0
    assert found["latency compaction compactions"] > 0
    assert found["latency checkpoint half_load_per_s"] > 0
    for name in amplification.BESIDE:
        assert found[f"latency {name} p999_us"] > 0
    # What stands beside the GETs is the checkpoints alone.
    assert "latency checkpoint p99_over_overwrites" not in found
    assert found["latency checkpoint compactions"] == 0
    for name in ("checkpoint_beside_overwrites", "checkpoint"):
        assert found[f"latency {name} checkpoints"] > 0
        assert 0 < found[f"latency {name} share_of_time_under_one"] <= 1


def test_only_the_checkpoints_that_were_seen_to_come_are_timed() -> None:
    shards = {0: {"checkpoints": 3, "checkpoint_ms_last": 900.0}, 1: {"checkpoints": 0, "checkpoint_ms_last": 0.0}}
    watched = SimpleNamespace(shards=lambda: shards)
    taken = amplification.Checkpoints(cast(Watched, watched))
    taken.look()
    assert taken.took_ms() is None
    shards[1] = {"checkpoints": 1, "checkpoint_ms_last": 20.0}
    taken.look()
    shards[0] = {"checkpoints": 4, "checkpoint_ms_last": 40.0}
    taken.look()
    taken.look()
    assert taken.took_ms() == 30.0


@pytest.mark.stress
@pytest.mark.parametrize("part", ["blocks", "interleaved"])
def test_keys_that_expire_are_seen_to_go(part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = table(expiry.main, tmp_path, capfd, "--part", part)
    assert found[f"{part} keys"] == 50_000
    assert found[f"{part} gone_from_count_s"] is not None
    assert found.get("blocks expired_too_early", 0) == 0


@pytest.mark.stress
def test_a_backup_under_writes_is_measured_and_compared_key_by_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = table(backup.main, tmp_path, capfd)
    assert found["keys_compared"] == 21_474
    assert found["keys_that_differ_from_the_model"] == 0
    assert found["keys_beyond_the_model"] == 0
    assert found["lsns_outside_of_what_was_written"] == 0
    assert found["backups"] >= 1
    assert found["writes_per_s_with_backup"] > 0
    assert found["rss_anon_mib_with_backup"] > 0


@pytest.mark.stress
def test_a_key_that_is_one_write_behind_its_model_is_found(tmp_path: Path) -> None:
    with servers.kio_daemon(tmp_path) as server:
        with Writer(server.url, b"t", 1_000, 100, tmp_path / "progress") as writer:
            while writer.progress.acked < 3_000:
                writer.check()
                time.sleep(0.01)
            writer.stop()
        writes = writer.progress.acked
        assert backup.compare(server.url, [writer.model], [writes]) == (0, 0)
        assert backup.compare(server.url, [writer.model], [writes + 1]) == (1, 0)
        assert backup.compare(server.url, [writer.model], [999]) == (1_000, 1)


@pytest.mark.stress
def test_starts_are_timed_after_kills_stops_and_overwrites_and_beside_redis(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = table(restart.main, tmp_path, capfd, "--overwrite", "2")
    assert found["keys"] == 20_016
    for name in ("killed_s_max", "stopped_s_max", "overwritten killed_s_max", "overwritten killed_over_killed"):
        assert found[name] > 0
    assert ("killed_over_redis" in found) == ("redis" in servers.available())


@pytest.mark.stress
def test_memory_and_descriptors_are_watched_over_overwrites(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = table(memory.main, tmp_path, capfd)
    assert found["overwrites"] == 100_000
    assert found["samples"] > 2
    for name in ("supervisor", "router", "worker 0", "worker 1"):
        assert found[f"{name} rss_anon_slope_bytes"] is not None
        assert found[f"{name} rss_anon_mib"] > 1
    assert found["worker 0 descriptors_of_segments"] >= 2


def test_the_last_write_of_each_key_is_known_after_any_number_of_writes() -> None:
    model = Model(b"t", keys=12, value_bytes=20)
    held: dict[bytes, bytes] = {}
    for writes in range(40):
        for index in range(12):
            last = model.last(index, writes)
            assert held.get(model.key(index)) == (None if last is None else model.value(last))
        key, value = model.write(writes)
        held[key] = value
    assert len(held) == 12
    assert {len(value) for value in held.values()} == {20}


def test_a_count_is_as_late_as_the_oldest_key_that_should_be_gone() -> None:
    expected = Expected(base=100)
    expected.add(10, sent=0.0, acked=1.0, ttl_s=5.0)
    expected.add(10, sent=1.0, acked=2.0, ttl_s=5.0)
    assert expected.late_s(120, asked=5.5) == 0.0  # the first batch may still live, if it was written at second 1
    assert expected.late_s(120, asked=6.5) == 0.5
    assert expected.late_s(115, asked=6.5) == 0.5
    assert expected.late_s(110, asked=6.5) == 0.0
    assert expected.late_s(101, asked=9.0) == 2.0
    assert expected.late_s(100, asked=60.0) == 0.0


def test_a_count_is_too_small_when_keys_are_missing_whose_time_has_not_come() -> None:
    expected = Expected(base=100)
    expected.add(10, sent=0.0, acked=1.0, ttl_s=5.0)
    expected.add(10, sent=1.0, acked=2.0, ttl_s=5.0)
    assert not expected.is_early(120, answered=4.0)
    assert expected.is_early(119, answered=4.0)
    assert not expected.is_early(110, answered=5.5)
    assert expected.is_early(109, answered=5.5)
    assert not expected.is_early(100, answered=6.5)
    assert expected.is_early(99, answered=60.0)


def test_a_bar_is_missed_by_more_and_by_what_could_not_be_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert Figure("a", 2.3, 2.3).verdict == "pass"
    assert Figure("a", 2.31, 2.3).verdict == "FAIL"
    assert Figure("a", None, 2.3).verdict == "FAIL"
    assert Figure("a", None).verdict == ""
    args = argparse.Namespace(json=False)
    assert verdict.show(args, [Figure("a", 2.3, 2.3), Figure("b", None)]) == 0
    assert verdict.show(args, [Figure("a", 2.3, 2.3), Figure("b", 3, 2)]) == verdict.MISSED
    assert capsys.readouterr().out.splitlines()[-1].split() == ["b", "3", "<=", "2", "FAIL"]


def test_a_file_with_two_names_takes_its_blocks_once(tmp_path: Path) -> None:
    (tmp_path / "a.seg").write_bytes(b"a" * 10_000)
    (tmp_path / "b.ckpt").write_bytes(b"b" * 4_096)
    (tmp_path / "c.seg").hardlink_to(tmp_path / "a.seg")
    size = (tmp_path / "a.seg").stat().st_blocks * 512
    assert processes.disk_bytes(tmp_path, ".seg") == size
    assert processes.disk_bytes(tmp_path) == size + (tmp_path / "b.ckpt").stat().st_blocks * 512


def test_what_stands_behind_the_records_of_a_sealed_segment_is_overhead(tmp_path: Path) -> None:
    identity, _ = create_or_load(tmp_path / "data", 1)
    path = shard_path(tmp_path / "data", 0)
    store = Store.open(path, identity, 0, StoreOptions(segment_bytes=MIB))
    key = b"key"
    operation = opbatch.Operation(wire.OP_SET, key, b"v" * 1_000, hash_key(key, identity.seed))
    store.execute(opbatch.encode_batch(0, 1, [operation]))
    assert processes.bare_bytes(path) == MIB
    assert processes.sealed_bytes(path) == 0
    store.close()
    ((blocks, end),) = processes.segments(path)
    assert end == processes.bare_bytes(path) == processes.sealed_bytes(path) < blocks
    assert end == next(path.glob("*.seg")).stat().st_size - HINT.size - FOOTER.size


def test_a_slope_is_that_of_the_line_nearest_to_all_points() -> None:
    assert processes.slope([(0, 5), (1, 7), (2, 9)]) == 2.0
    assert processes.slope([(0, 1), (1, 2), (2, 1)]) == 0.0
    assert processes.slope([(3, 1)]) == 0.0


def test_what_a_thread_that_samples_raises_is_not_lost() -> None:
    def look() -> None:
        raise RuntimeError("no such process")

    with pytest.raises(RuntimeError, match="no such process"), processes.sampling(look, 0.01):
        pass
