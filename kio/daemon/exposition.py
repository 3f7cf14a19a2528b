"""What /metrics prints: a snapshot as Prometheus text, each metric of the catalogue and no other.

A registry of our own: the process-wide one would add the supervisor's own figures under names that are not in the
catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kio import errors, wire
from kio.daemon.topology import Snapshot
from kio.metrics import CATALOGUE, SHARD_STATES

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: metric -> the field of a shard's stats (control.py) that it shows, where it shows one as it is.
_SHARD_FIELDS: Final = {
    "kio_hits_total": "hits",
    "kio_misses_total": "misses",
    "kio_expired_total": "expired",
    "kio_operation_errors_total": "errors",
    "kio_read_bytes_total": "bytes_read",
    "kio_written_bytes_total": "bytes_written",
    "kio_keys": "keys",
    "kio_live_bytes": "live_bytes",
    "kio_dead_bytes": "dead_bytes",
    "kio_disk_bytes": "disk_bytes",
    "kio_reserve_bytes": "reserve_bytes",
    "kio_refused_total": "refused",
    "kio_compaction_arrears": "compaction_arrears",
    "kio_segments": "segments",
    "kio_keydir_bytes": "keydir_bytes",
    "kio_keys_fit": "keys_fit",
    "kio_lsn": "lsn",
    "kio_durable_lsn": "durable_lsn",
    "kio_epoch": "epoch",
    "kio_unsynced_bytes": "unsynced_bytes",
    "kio_syncs_total": "syncs",
    "kio_space_amplification": "amplification",
    "kio_compactions_total": "compactions",
    "kio_compacted_read_bytes_total": "compacted_bytes_read",
    "kio_compacted_written_bytes_total": "compacted_bytes_written",
    "kio_segments_dropped_total": "segments_dropped",
    "kio_checkpoint_lsn": "checkpoint_lsn",
    "kio_checkpoint_bytes": "checkpoint_bytes",
    "kio_checkpoint_age_seconds": "checkpoint_age_s",
    "kio_checkpoints_total": "checkpoints",
    "kio_checkpoint_fallbacks_total": "checkpoint_fallbacks",
}
_ROUTER_FIELDS: Final = {
    "kio_connections": "connections",
    "kio_requests_in_flight": "in_flight",
    "kio_received_bytes_total": "bytes_in",
    "kio_sent_bytes_total": "bytes_out",
}
_OPERATIONS: Final = {"get": "gets", "set": "sets", "delete": "deletes"}
_OPERATION_NAMES: Final = {
    value: name.removeprefix("OP_").lower()
    for name, value in vars(wire).items()
    if name.startswith("OP_") and name != "OP_MANY"
}


def render(snapshot: Snapshot, now: float) -> bytes:
    """The page for `snapshot`; `now` is the monotonic clock in seconds."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(snapshot, now))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot, now: float) -> None:
        self._snapshot = snapshot
        self._now = now

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            metric.name: (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                metric.name, metric.text, labels=metric.labels
            )
            for metric in CATALOGUE
        }
        for name, labels, value in _samples(self._snapshot, self._now):
            families[name].add_metric(labels, value)
        yield from families.values()


_Sample = tuple[str, list[str], float]


def _samples(snapshot: Snapshot, now: float) -> Iterator[_Sample]:
    topology = snapshot.topology
    yield "kio_build_info", [topology["version"]], 1
    yield "kio_uptime_seconds", [], topology["supervisor"]["uptime_s"]
    yield "kio_ready", [], not snapshot.not_serving()
    if snapshot.told_at is not None:
        yield "kio_figures_age_seconds", [], max(0.0, now - snapshot.told_at)
    yield from _process("supervisor", topology["supervisor"])
    yield from _child("router", topology["router"])
    for worker in topology["workers"]:
        yield from _child(f"worker {worker['worker']}", worker)
    yield from _router(snapshot.router)
    for number, shard in snapshot.shards.items():
        yield from _shard(str(number), shard)


def _child(name: str, facts: Mapping[str, Any]) -> Iterator[_Sample]:
    yield "kio_restarts_total", [name], facts["restarts"]
    yield "kio_child_serving", [name], facts["state"] == "serving"
    if facts["rss_bytes"] is not None:
        yield from _process(name, facts)


def _process(name: str, facts: Mapping[str, Any]) -> Iterator[_Sample]:
    yield "kio_resident_bytes", [name], facts["rss_bytes"]
    yield "kio_cpu_seconds_total", [name], facts["cpu_s"]


def _router(stats: Mapping[str, Any]) -> Iterator[_Sample]:
    for name, field in _ROUTER_FIELDS.items():
        if field in stats:
            yield name, [], stats[field]
    for operation, count in stats.get("per_op", {}).items():
        yield "kio_requests_total", [_OPERATION_NAMES.get(int(operation), str(operation))], count
    for code, count in stats.get("errors", {}).items():
        error = errors.BY_CODE.get(int(code))
        yield "kio_errors_total", [error.__name__ if error is not None else str(code)], count


def _shard(shard: str, stats: Mapping[str, Any]) -> Iterator[_Sample]:
    for state in SHARD_STATES:
        yield "kio_shard_state", [shard, state], stats["state"] == state
    for name, field in _SHARD_FIELDS.items():
        if field in stats:
            yield name, [shard], stats[field]
    for operation, field in _OPERATIONS.items():
        if field in stats:
            yield "kio_operations_total", [shard, operation], stats[field]
    if "sync_ms_last" in stats:
        yield "kio_sync_last_seconds", [shard], stats["sync_ms_last"] / 1000
    if "compaction_ms_last" in stats:
        yield "kio_compaction_last_seconds", [shard], stats["compaction_ms_last"] / 1000
        yield "kio_compaction_time_seconds", [shard], stats["compaction_at_ms"] / 1000
    if "checkpoint_ms_last" in stats:
        yield "kio_checkpoint_last_seconds", [shard], stats["checkpoint_ms_last"] / 1000
