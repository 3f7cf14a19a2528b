"""The figures that kio has to reach through the daemon, from one Python client; alone on its machine."""

from __future__ import annotations

import pytest

from tests.measure import daemon

GET_MANY_KEYS_PER_S = 300_000
SET_MANY_KEYS_PER_S = 200_000


@pytest.mark.stress
@pytest.mark.alone
def test_one_client_reads_and_writes_batches_at_the_promised_rate() -> None:
    figures = daemon.run(rounds=5)
    assert figures["kio"]["get_many_keys_per_s"] > GET_MANY_KEYS_PER_S, figures
    assert figures["kio"]["set_many_keys_per_s"] > SET_MANY_KEYS_PER_S, figures
