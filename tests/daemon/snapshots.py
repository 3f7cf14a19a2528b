"""A daemon of two workers and three shards as the admin door sees it, without a daemon."""

from __future__ import annotations

from typing import Any

from kio.daemon.topology import Snapshot

SHARD: dict[str, Any] = {
    "worker": 0,
    "state": "serving",
    "reason": "",
    "keys": 11,
    "live_bytes": 1100,
    "dead_bytes": 40,
    "disk_bytes": 4096,
    "reserve_bytes": 2048,
    "compaction_arrears": 0.25,
    "segments": 2,
    "lsn": 17,
    "durable_lsn": 16,
    "epoch": 3,
    "keydir_bytes": 512,
    "keys_fit": 7000,
    "gets": 5,
    "hits": 4,
    "misses": 1,
    "sets": 13,
    "deletes": 2,
    "expired": 7,
    "errors": 1,
    "refused": 4,
    "bytes_read": 300,
    "bytes_written": 1200,
    "syncs": 6,
    "sync_ms_last": 2.5,
    "unsynced_bytes": 64,
    "checkpoint_lsn": 15,
    "checkpoint_bytes": 12480,
    "checkpoint_age_s": 7.5,
    "checkpoint_ms_last": 40.0,
    "checkpoints": 3,
    "checkpoint_fallbacks": 1,
    "amplification": 1.25,
    "compactions": 5,
    "compacted_bytes_read": 7000,
    "compacted_bytes_written": 7500,
    "segments_dropped": 9,
    "compaction_ms_last": 250.0,
    "compaction_at_ms": 1_700_000_000_500,
    "sync": "interval",
}
ROUTER: dict[str, Any] = {
    "connections": 3,
    "requests": 20,
    "bytes_in": 1000,
    "bytes_out": 2000,
    "in_flight": 1,
    "errors": {16: 2, 32: 1, 99: 1},
    "per_op": {1: 12, 18: 8},
}


def a_snapshot(router_state: str = "serving", **shard_2: Any) -> Snapshot:
    """Everything serves, unless `shard_2` says otherwise of the third shard."""
    child = {"pid": 4, "restarts": 2, "state": "serving", "reason": "", "rss_bytes": 1 << 20, "cpu_s": 1.5}
    topology = {
        "version": "1.2.3",
        "supervisor": {"pid": 1, "uptime_s": 9.5, "rss_bytes": 2 << 20, "cpu_s": 0.25},
        "router": child | {"state": router_state},
        "workers": [child | {"worker": 0, "shards": [0, 2]}, child | {"worker": 1, "shards": [1]}],
    }
    shards = {0: SHARD, 1: SHARD | {"worker": 1}, 2: SHARD | shard_2}
    return Snapshot(topology, shards, ROUTER, told_at=100.0)
