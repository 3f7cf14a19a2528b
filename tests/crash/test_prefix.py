"""What a shard holds after SIGKILL is a prefix of what was sent to it: everything acknowledged, and no hole behind
that.

One thread per shard pipelines numbered writes over one connection; all processes are killed at a random moment; after
the start the numbers that are there must be 1 to m without a gap, m at least the last acknowledged.
"""

from __future__ import annotations

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, SYNC_MODES, Daemon, wait_until
from tests.cluster.probe import shard_tags
from tests.cluster.rawwire import COUNT, Wire
from tests.crash.numbered import Numbered, count_prefix

ROUNDS = 100 if FULL else 3


@pytest.mark.stress
@pytest.mark.timeout(1200 if FULL else 60)
@pytest.mark.parametrize("sync", SYNC_MODES)
def test_after_sigkill_each_shard_holds_a_prefix_of_what_was_sent_to_it(sync: str, chance: Chance) -> None:
    with Daemon(workers=2, sync=sync, flags=["--segment-mib", "1"]) as daemon:
        tags = shard_tags(daemon)
        total = 0
        for round_ in range(ROUNDS):
            writers = [Numbered(daemon.url, tag, round_) for tag in tags.values()]
            for writer in writers:
                writer.start()
            for writer in writers:
                goal = chance.dice.randint(20, 2_000)
                wait_until(lambda w=writer, g=goal: w.acked >= g or w.fault, 20, "acknowledged writes")  # type: ignore[misc]
            daemon.kill_everything()
            for writer in writers:
                writer.join(20)
                assert not writer.is_alive()
                assert not writer.fault, f"{writer.fault}\nrepeat with: {chance.repeat}"
            daemon.restart()
            with Wire(daemon.url) as wire:
                for writer in writers:
                    total += count_prefix(wire, writer.tag, round_, writer.sent, writer.acked, chance.repeat)
                assert wire.call(COUNT, 0) == total, f"keys of an earlier round are gone\nrepeat with: {chance.repeat}"
