"""The catalogue of metrics: what /metrics prints, and nothing else.

Names follow Prometheus: base units, `_total` for what only rises. Counters of a shard begin at 0 when its worker
starts, those of clients when the router does; `rate()` and `increase()` know how to take that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, what kind it is, one sentence, and the labels that tell its series apart."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()


_SHARD: Final = ("shard",)
_CHILD: Final = ("child",)
_PROCESS: Final = ("process",)

CATALOGUE: Final[tuple[Metric, ...]] = (
    Metric("kio_build_info", "gauge", "The version that runs; always 1.", ("version",)),
    Metric("kio_uptime_seconds", "gauge", "How long the supervisor has been running."),
    Metric(
        "kio_figures_age_seconds", "gauge", "The age of the oldest figure on this page; absent while some is unknown."
    ),
    Metric("kio_ready", "gauge", "1 when the router and every shard serve, else 0."),
    # Processes: "supervisor", and its children "router", "worker 0" and so on.
    Metric("kio_restarts_total", "counter", "How often a child was started again.", _CHILD),
    Metric("kio_child_serving", "gauge", "1 when the child serves, else 0.", _CHILD),
    Metric("kio_resident_bytes", "gauge", "Resident memory of a process.", _PROCESS),
    Metric("kio_cpu_seconds_total", "counter", "Processor time that a process has used.", _PROCESS),
    # Clients, as the router sees them.
    Metric("kio_connections", "gauge", "Connections of clients that are open."),
    Metric("kio_requests_total", "counter", "Requests by operation.", ("operation",)),
    Metric("kio_requests_in_flight", "gauge", "Requests that are not answered yet."),
    Metric("kio_errors_total", "counter", "Errors in replies by the name of their class.", ("error",)),
    Metric("kio_received_bytes_total", "counter", "Bytes received from clients."),
    Metric("kio_sent_bytes_total", "counter", "Bytes sent to clients."),
    # Shards, as their workers see them.
    Metric("kio_shard_state", "gauge", "1 for the state that the shard is in, 0 for the others.", ("shard", "state")),
    Metric("kio_operations_total", "counter", "Operations that a shard has executed, by kind.", ("shard", "operation")),
    Metric("kio_hits_total", "counter", "Reads that found their key.", _SHARD),
    Metric("kio_misses_total", "counter", "Reads that did not find their key.", _SHARD),
    Metric("kio_expired_total", "counter", "Keys that are gone because their time had come.", _SHARD),
    Metric("kio_operation_errors_total", "counter", "Operations that a shard answered with an error.", _SHARD),
    Metric("kio_read_bytes_total", "counter", "Bytes of values that were read from a shard.", _SHARD),
    Metric("kio_written_bytes_total", "counter", "Bytes of records that were written to a shard.", _SHARD),
    Metric("kio_keys", "gauge", "Keys in the shard.", _SHARD),
    Metric("kio_live_bytes", "gauge", "Bytes of records that are the newest of their key.", _SHARD),
    Metric("kio_dead_bytes", "gauge", "Bytes of records that are overwritten, deleted or expired.", _SHARD),
    Metric("kio_disk_bytes", "gauge", "Bytes of the shard's segments.", _SHARD),
    Metric("kio_reserve_bytes", "gauge", "Bytes that are kept for compaction on a full disk.", _SHARD),
    Metric("kio_refused_total", "counter", "Writes that a shard refused since the disk was full.", _SHARD),
    Metric(
        "kio_compaction_arrears",
        "gauge",
        "How far compaction is behind the writes; above 0 they are slowed down.",
        _SHARD,
    ),
    Metric("kio_segments", "gauge", "Segments of the shard.", _SHARD),
    Metric("kio_keydir_bytes", "gauge", "Memory of the KeyDir.", _SHARD),
    Metric(
        "kio_keys_fit", "gauge", "About how many keys max_memory_mib lets the shard hold; 0 without a bound.", _SHARD
    ),
    Metric("kio_lsn", "gauge", "The LSN of the shard's newest record.", _SHARD),
    Metric("kio_durable_lsn", "gauge", "The LSN up to which the shard's log is on disk.", _SHARD),
    Metric("kio_epoch", "gauge", "The shard's epoch.", _SHARD),
    Metric("kio_unsynced_bytes", "gauge", "Bytes that are written and not yet on disk.", _SHARD),
    Metric("kio_syncs_total", "counter", "Syncs of the shard's log.", _SHARD),
    Metric("kio_sync_last_seconds", "gauge", "How long the shard's last sync took.", _SHARD),
    Metric("kio_space_amplification", "gauge", "Bytes of records per live byte.", _SHARD),
    Metric("kio_compactions_total", "counter", "Compactions of the shard.", _SHARD),
    Metric("kio_compacted_read_bytes_total", "counter", "Bytes of records that compactions have copied.", _SHARD),
    Metric("kio_compacted_written_bytes_total", "counter", "Bytes that compactions have written.", _SHARD),
    Metric("kio_segments_dropped_total", "counter", "Segments that compactions have removed.", _SHARD),
    Metric("kio_compaction_last_seconds", "gauge", "How long the shard's last compaction took.", _SHARD),
    Metric("kio_compaction_time_seconds", "gauge", "When it ended, in seconds since 1970; 0 without one.", _SHARD),
    Metric("kio_checkpoint_lsn", "gauge", "The LSN that the shard's checkpoint goes up to; 0 without one.", _SHARD),
    Metric("kio_checkpoint_bytes", "gauge", "Bytes of the shard's checkpoint.", _SHARD),
    Metric(
        "kio_checkpoint_age_seconds", "gauge", "The time since the shard's last checkpoint, or since its start.", _SHARD
    ),
    Metric("kio_checkpoint_last_seconds", "gauge", "How long the shard's last checkpoint took.", _SHARD),
    Metric("kio_checkpoints_total", "counter", "Checkpoints of the shard.", _SHARD),
    Metric(
        "kio_checkpoint_fallbacks_total",
        "counter",
        "Starts at which the shard's checkpoint could not be used, so that all its lists of keys were read.",
        _SHARD,
    ),
)

#: Every state that `kio_shard_state` knows.
SHARD_STATES: Final = ("serving", "full", "recovering", "read-only", "failed", "down", "stopping")
