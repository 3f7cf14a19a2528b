"""A data directory damaged while the daemon was away: the right value or a typed error, never anything else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, run_cli, scaled, wait_until
from tests.cluster.probe import shard_tags
from tests.cluster.rawwire import CORRUPT, DIRECTORY_INVALID, GET, OK, SET, SET_MANY, SHARD_DOWN, Wire

KEYS = 3_000
#: Errors that say "the storage of this shard"; anything else would be a guess of the client's.
TYPED = {SHARD_DOWN, CORRUPT, DIRECTORY_INVALID}
SMALL_SEGMENTS = ["--segment-mib", "1"]


def value_of(number: int) -> bytes:
    return b"%d/" % number * (200 + number % 300)


def fill(daemon: Daemon, tags: list[bytes]) -> None:
    """KEYS keys under each tag, several segments of 1 MiB each."""
    with Wire(daemon.url) as wire:
        for tag in tags:
            for start in range(0, KEYS, 500):
                pairs = [p for n in range(start, start + 500) for p in (b"{%s}%d" % (tag, n), value_of(n))]
                wire.call(SET_MANY, 0, pairs)


def segment_files(data: Path, shard: int) -> list[Path]:
    """The large files of a shard, oldest first: with segments of 1 MiB these are its segments."""
    files = [p for p in (data / f"shard-{shard:04d}").iterdir() if p.is_file() and p.stat().st_size > 1 << 19]
    assert len(files) >= 2, f"shard {shard} holds {files}"
    return sorted(files)


def test_a_missing_segment_stops_its_shard_with_a_reason_and_no_other(chance: Chance) -> None:
    with Daemon(workers=2, shards=4, flags=SMALL_SEGMENTS) as daemon:
        tags = shard_tags(daemon)
        victim = chance.dice.choice(sorted(tags))
        fill(daemon, [tags[victim]])
        with Wire(daemon.url) as wire:
            for tag in tags.values():
                wire.call(SET, 0, b"{%s}other" % tag, b"there")
        daemon.stop()
        files = segment_files(daemon.data, victim)
        files[0].unlink()
        daemon.restart(await_ready=False)
        wait_until(
            lambda: all(s.get("state") == "serving" for n, s in daemon.shard_stats().items() if n != victim),
            10,
            "the other shards to serve",
            0.1,
        )
        with Wire(daemon.url) as wire:
            for shard, tag in tags.items():
                status, result, *_ = wire.request(GET, 0, b"{%s}other" % tag, deadline_ms=5_000)
                if shard == victim:
                    assert status in TYPED, f"shard {shard} lacks {files[0].name} and answered {status} {result!r}"
                else:
                    assert (status, result) == (OK, b"there"), (
                        f"shard {shard} is whole and answered {status} {result!r}"
                    )
                    assert wire.call(SET, 0, b"{%s}new" % tag, b"x") is True
            status, result, *_ = wire.request(SET, 0, b"{%s}new" % tags[victim], b"x", deadline_ms=5_000)
            assert status in TYPED, f"a write to the broken shard was answered {status} {result!r}"
        broken = daemon.shard_stats()[victim]
        assert broken["state"] == "failed", broken
        assert broken["reason"], broken


def test_a_damaged_manifest_stops_its_shard_with_a_reason_and_no_other(chance: Chance) -> None:
    with Daemon(workers=2, shards=4) as daemon:
        tags = shard_tags(daemon)
        victim = chance.dice.choice(sorted(tags))
        with Wire(daemon.url) as wire:
            for tag in tags.values():
                wire.call(SET, 0, b"{%s}k" % tag, b"v")
        daemon.stop()
        damage_manifest(daemon.data / f"shard-{victim:04d}", chance)
        checked = run_cli("check", "--data", daemon.data, check=False)
        assert checked.returncode == 65, checked.stdout.decode()
        daemon.restart(await_ready=False)
        wait_until(lambda: states(daemon) == dict.fromkeys(tags, "serving") | {victim: "failed"}, 10, "states", 0.1)
        with Wire(daemon.url) as wire:
            for shard, tag in tags.items():
                status, result, *_ = wire.request(GET, 0, b"{%s}k" % tag, deadline_ms=5_000)
                assert (status in TYPED) if shard == victim else ((status, result) == (OK, b"v")), (
                    shard,
                    status,
                    result,
                )
        assert daemon.http_get("/readyz")[0] == 503, "a daemon one of whose shards failed says that it is ready"


def states(daemon: Daemon) -> dict[int, str]:
    return {shard: stats["state"] for shard, stats in daemon.shard_stats().items()}


def damage_manifest(directory: Path, chance: Chance) -> None:
    """Flip one byte in the first half of the manifest, without the zeros at its end: behind that stand valid edits."""
    (path,) = [p for p in directory.iterdir() if "manifest" in p.name.lower()]
    content = bytearray(path.read_bytes())
    content[chance.dice.randrange(len(content.rstrip(b"\0")) // 2)] ^= 0x10
    path.write_bytes(content)


@scaled
@pytest.mark.timeout(600 if FULL else 60)
def test_flipped_bytes_in_sealed_segments_give_the_right_value_or_an_error(chance: Chance) -> None:
    with Daemon(workers=2, flags=SMALL_SEGMENTS) as daemon:
        tags = shard_tags(daemon)
        fill(daemon, list(tags.values()))
        expected = {(tag, n): value_of(n) for tag in tags.values() for n in range(KEYS)}
        daemon.stop()
        whole = daemon.data.rename(daemon.home / "whole")
        for _ in range(20 if FULL else 2):
            shutil.copytree(whole, daemon.data)
            flips = flip(daemon.data, list(tags), chance)
            daemon.restart()
            right, corrupt = read_all(daemon, expected, f"{flips}\nrepeat with: {chance.repeat}")
            print(f"{len(flips)} flips: {right} right, {corrupt} corrupt")
            assert corrupt <= len(flips), f"{flips} made {corrupt} keys unreadable"
            daemon.stop()
            shutil.rmtree(daemon.data)


def flip(data: Path, shards: list[int], chance: Chance) -> list[str]:
    """One flipped byte in some sealed segments of each shard; what was done, in words."""
    done = []
    for shard in shards:
        files = segment_files(data, shard)
        for path in chance.dice.sample(files[:-1], max(1, len(files) // 4)):
            at = chance.dice.randrange(path.stat().st_size)
            with path.open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0] ^ (1 << chance.dice.randrange(8))
                file.seek(at)
                file.write(bytes([byte]))
            done.append(f"{path.name} of shard {shard} at {at}")
    return done


def read_all(daemon: Daemon, expected: dict[tuple[bytes, int], bytes], what: str) -> tuple[int, int]:
    """(right, corrupt): how the keys were answered; any other answer is a failure."""
    right = corrupt = 0
    asked = list(expected)
    with Wire(daemon.url) as wire:
        answers = []
        for start in range(0, len(asked), 200):
            part = asked[start : start + 200]
            wire.send_all([(GET, 0, b"{%s}%d" % (tag, number)) for tag, number in part])
            answers += [wire.receive()[1:3] for _ in part]
        for ((tag, number), value), (status, result) in zip(expected.items(), answers, strict=True):
            if status == OK:
                assert result is not None, f"key {number} of {tag!r} is silently gone; flipped: {what}"
                assert result == value, f"key {number} of {tag!r} has a wrong value {result[:40]!r}; flipped: {what}"
                right += 1
            else:
                assert status == CORRUPT, f"key {number} of {tag!r} was answered {status} {result!r}; flipped: {what}"
                corrupt += 1
    return right, corrupt


def test_a_second_daemon_on_the_same_directory_is_refused_and_the_first_goes_on(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        pids = daemon.pids()
        second = run_cli(
            *("serve", "--data", daemon.data, "--port", "0", "--http-port", "0", "--resp-port", "0"),
            check=False,
            limit_s=15,
        )
        assert second.returncode == 73, second.stderr.decode()
        assert b"in use" in second.stderr, second.stderr.decode()
        assert daemon.pids() == pids
        with Wire(daemon.url) as wire:
            assert wire.call(SET, 0, b"k", b"v") is True
            assert wire.call(GET, 0, b"k") == b"v"


def test_a_daemon_whose_supervisor_was_killed_leaves_the_directory_free(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        with Wire(daemon.url) as wire:
            wire.call(SET, 0, b"k", b"v")
        daemon.kill_supervisor()
        daemon.restart()
        with Wire(daemon.url) as wire:
            assert wire.call(GET, 0, b"k") == b"v"


def test_a_sparse_copy_of_a_killed_daemons_directory_holds_all_of_it(chance: Chance) -> None:
    """A copy may turn zeros into holes: a last record that ends in zeros then reaches into the hole behind it."""
    with Daemon(workers=2, sync="os") as daemon:
        tags = shard_tags(daemon)
        with Wire(daemon.url) as wire:
            for tag in tags.values():
                wire.call(SET, 0, b"{%s}text" % tag, b"text")
                wire.call(SET, 0, b"{%s}zeros" % tag, b"\0" * (1 << 20))
        daemon.kill_everything()
        original = daemon.data.rename(daemon.home / "original")
        subprocess.run(["cp", "-r", "--sparse=always", original, daemon.data], check=True)
        daemon.restart()
        with Wire(daemon.url) as wire:
            for tag in tags.values():
                assert wire.call(GET, 0, b"{%s}text" % tag) == b"text"
                assert wire.call(GET, 0, b"{%s}zeros" % tag) == b"\0" * (1 << 20)
