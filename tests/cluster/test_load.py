"""The load and its verdict, from end to end: a store that really loses acknowledged writes must not pass."""

from __future__ import annotations

import shutil

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import Daemon
from tests.cluster.load import Load


@pytest.mark.stress
def test_a_directory_set_back_to_an_earlier_state_does_not_pass(chance: Chance) -> None:
    """The plant: all files are replaced by older copies, each of them whole: only the newest writes are gone."""
    with Daemon(workers=2) as daemon:
        with Load(daemon, clients=2, seed=chance.seed) as load:
            load.await_acks(200)
            daemon.stop()
            earlier = daemon.home / "earlier"
            shutil.copytree(daemon.data, earlier)
            daemon.restart()
            load.await_acks(200)
        load.assert_nothing_lost(daemon, chance.repeat, acked_min=400)
        daemon.stop()
        shutil.rmtree(daemon.data)
        earlier.rename(daemon.data)
        daemon.restart()
        verdict = load.verdict(daemon.url)
        assert len(verdict.violations) > 10, verdict
        assert any("an older value" in violation for violation in verdict.violations), verdict
