"""Power cuts: what an ext4 file system holds at one moment is mounted elsewhere, and kio recovers there.

The data directory lies on a file system in an image, mounted with commit=60, so that it writes by itself almost nothing
that nobody asked for. At a random moment under load every process of kio is stopped and the image is copied: the copy
has what was synced, and loses the rest, names and lengths included, as the disk of a machine without power does. The
copy is opened by a second daemon that sees another boot id, as after a boot.

What must hold in the copy: each shard has a prefix of what was written to it, without a hole; with "always" everything
acknowledged, with "interval" everything that was acknowledged an interval and 100 ms before the cut.
"""

from __future__ import annotations

import subprocess
import time
import uuid
from pathlib import Path

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, Daemon, run_cli, wait_until
from tests.cluster.probe import shard_tags
from tests.cluster.rawwire import COUNT, DELETE_MANY, Wire
from tests.crash.loop_mounts import make_image, mounted, needs_mounts
from tests.crash.numbered import Numbered, count_prefix

CUTS = 100 if FULL else 5
IMAGE_BYTES = 2 << 30
#: Of sync = "interval", and how much later a write may be durable.
INTERVAL_S = 0.1
SLACK_S = 0.1
#: Keeps a round within a few MiB, and longer than an interval.
PAUSE_S = 0.005
FLAGS = ["--segment-mib", "1"]
BOOT_ID = "/proc/sys/kernel/random/boot_id"


pytestmark = [pytest.mark.stress, needs_mounts]


def another_boot(home: Path) -> list[str]:
    """A command that runs another in a namespace where the machine seems to have been booted anew."""
    boot = home / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    return ["unshare", "-m", "sh", "-c", f'mount --bind {boot} {BOOT_ID} && exec "$@"', "sh"]


class Cuts:
    """One daemon that runs on, and what its rounds of numbered writes have left for sure."""

    def __init__(self, daemon: Daemon, image: Path, home: Path, chance: Chance) -> None:
        self.daemon, self.image, self.home, self.chance = daemon, image, home, chance
        self.tags = shard_tags(daemon)
        with Wire(daemon.url) as wire:
            wire.call(DELETE_MANY, 0, [b"{%s}probe" % tag for tag in self.tags.values()])
        self.keys_before = 0

    def cut(self, round_: int) -> list[tuple[int, int]]:
        """One power cut: per shard, the writes that were acknowledged and those that are there."""
        writers = [Numbered(self.daemon.url, tag, round_, PAUSE_S) for tag in self.tags.values()]
        for writer in writers:
            writer.start()
        for writer in writers:
            goal = self.chance.dice.randint(20, 3_000)
            wait_until(lambda w=writer, g=goal: w.acked >= g or w.fault, 30, "acknowledged writes")  # type: ignore[misc]
        copy = self.home / "cut.img"
        moment = time.monotonic()
        with self.daemon.standing_still():
            time.sleep(0.05)  # what was answered before the stop arrives
            floors = [w.acked if self.daemon.sync == "always" else 0 for w in writers]
            subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        if self.daemon.sync == "interval":
            floors = [w.acked_before(moment - INTERVAL_S - SLACK_S) for w in writers]
        for writer in writers:
            writer.stop()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
            assert not writer.fault, writer.fault
        found = self._recover(copy, writers, floors)
        self.keys_before += sum(writer.acked for writer in writers)
        # Before the next cut all of this is durable, in whatever mode.
        wait_until(self._is_durable, 30, "everything to be durable", 0.05)
        return list(zip(floors, found, strict=True))

    def _recover(self, copy: Path, writers: list[Numbered], floors: list[int]) -> list[int]:
        repeat = self.chance.repeat
        with mounted(copy, self.home / "cut", "-o", "loop") as directory:
            with Daemon(
                directory / "data", sync=self.daemon.sync, wrapper=another_boot(self.home), flags=FLAGS
            ) as other:
                states = [stats["state"] for stats in other.shard_stats().values()]
                assert states == ["serving"] * len(writers), f"{states}\nrepeat with: {repeat}"
                with Wire(other.url) as wire:
                    found = [
                        count_prefix(wire, w.tag, w.round, w.sent, floor, repeat)
                        for w, floor in zip(writers, floors, strict=True)
                    ]
                    keys = wire.call(COUNT, 0)
                    if self.daemon.sync != "os":
                        assert keys == self.keys_before + sum(found), f"keys of an earlier round are gone\n{repeat}"
                other.stop()
            run_cli("check", "--data", directory / "data")
        copy.unlink()
        return found

    def _is_durable(self) -> bool:
        stats = self.daemon.shard_stats().values()
        return self.daemon.sync == "os" or all(s["durable_lsn"] == s["lsn"] for s in stats)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sync", ["always", "interval", "os"])
def test_a_power_cut_leaves_a_prefix_and_what_was_promised(sync: str, tmp_path: Path, chance: Chance) -> None:
    image = make_image(tmp_path / "image", IMAGE_BYTES)
    with (
        mounted(image, tmp_path / "live", "-o", "loop,commit=60") as directory,
        Daemon(directory / "data", sync=sync, flags=FLAGS) as daemon,
    ):
        cuts = Cuts(daemon, image, tmp_path, chance)
        outcomes = [each for round_ in range(CUTS) for each in cuts.cut(round_)]
    lost = sum(max(0, floor - found) for floor, found in outcomes)
    print(f"sync={sync}: {CUTS} cuts, {sum(found for _, found in outcomes)} writes there, {lost} promised ones lost")
    assert lost == 0
    assert sum(floor for floor, _ in outcomes) > 0 or sync == "os"
