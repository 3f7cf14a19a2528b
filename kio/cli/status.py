"""`kio status`: the daemon's processes and shards at this moment.

The tables show what an operator looks for first; --json is everything the daemon tells, as it tells it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kio.cli import options, output

EXAMPLE: Final = """\
kio status
kio status --json"""

MIB: Final = 1 << 20
_DAEMON_FIELDS: Final = (
    "version", "supervisor.uptime_s", "ports.native", "ports.http", "ports.resp", "ports.socket",
    "settings.data", "settings.sync", "router.connections", "router.requests", "router.in_flight",
)  # fmt: skip
_PROCESS_COLUMNS: Final = ("process", "pid", "cpu", "restarts", "rss_mib", "cpu_s", "state")
_SHARD_COLUMNS: Final = (
    "shard", "worker", "keys", "live_mib", "dead_mib", "amplification", "segments", "lsn", "checkpoint_age_s",
    "keydir_mib", "state",
)  # fmt: skip


def command(
    url: options.Url = options.DEFAULT_URL,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    json: options.Json = False,
) -> None:
    """Show the daemon's processes, and for each shard its keys, bytes, segments and state."""
    with options.connect(url, timeout) as db:
        stats = db.stats()
    if json:
        output.as_json(stats)
        return
    output.table("daemon", ("field", "value"), _daemon(stats))
    output.line("")
    output.table("processes", _PROCESS_COLUMNS, _processes(stats))
    output.line("")
    output.table("shards", _SHARD_COLUMNS, _shards(stats))
    for reason in _reasons(stats):
        output.line(reason)


def _daemon(stats: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """What is told once, under the names it has in --json."""
    for path in _DAEMON_FIELDS:
        found: Any = stats
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if found not in (None, ""):
            yield path, found
    fit = sum(shard.get("keys_fit") or 0 for shard in stats.get("shards", []))
    if fit:
        yield "shards.keys_fit", _count(fit)


def _processes(stats: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    named = [("supervisor", stats.get("supervisor", {})), ("router", stats.get("router", {}))]
    named += [(f"worker {worker.get('worker')}", worker) for worker in stats.get("workers", [])]
    for name, process in named:
        pid, cpu, restarts = (process.get(field) for field in ("pid", "cpu", "restarts"))
        cpu_s = process.get("cpu_s")
        used = None if cpu_s is None else f"{cpu_s:,.1f}"
        yield name, pid, cpu, restarts, _mib(process.get("rss_bytes")), used, process.get("state")


def _shards(stats: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for shard in stats.get("shards", []):
        live, dead, keydir = (_mib(shard.get(field)) for field in ("live_bytes", "dead_bytes", "keydir_bytes"))
        keys, segments, lsn = (_count(shard.get(field)) for field in ("keys", "segments", "lsn"))
        age, where, state = _seconds(shard.get("checkpoint_age_s")), shard.get("worker"), shard.get("state")
        amplification = shard.get("amplification")
        ratio = None if amplification is None else f"{amplification:.2f}"
        yield shard.get("shard"), where, keys, live, dead, ratio, segments, lsn, age, keydir, state


def _reasons(stats: Mapping[str, Any]) -> Iterator[str]:
    """Why a part does not serve, where it says."""
    parts = [("router", stats.get("router", {}))]
    parts += [(f"worker {worker.get('worker')}", worker) for worker in stats.get("workers", [])]
    parts += [(f"shard {shard.get('shard')}", shard) for shard in stats.get("shards", [])]
    for name, part in parts:
        if part.get("reason"):
            yield f"{name} is {part.get('state')}: {part['reason']}"


def _mib(size: int | None) -> str | None:
    return None if size is None else f"{size / MIB:,.1f}"


def _seconds(span: float | None) -> str | None:
    return None if span is None else f"{span:,.0f}"


def _count(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"
