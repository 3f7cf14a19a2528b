"""What the supervisor knows of the daemon, as plain data.

`topology` goes to the router, which answers clients' `stats` with it; `Snapshot` is what the admin door reads from its
own thread: made anew by the loop after each change, never altered afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kio.daemon.fleet import Fleet, Worker

#: What a shard's state is while its worker is in this one; "serving" workers tell themselves.
_STATE_OF_SHARDS: Final = {"starting": "recovering", "stopping": "stopping", "stopped": "stopping"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon at one moment.

    Attributes:
        topology: as `topology` makes it.
        shards: number -> the shard's last figures (control.py), with `worker` and the present `state` and `reason`.
        router: the router's last `stats`; empty before the first.
        told_at: when the oldest of these figures came (monotonic seconds); None while some are missing.
    """

    topology: Mapping[str, Any]
    shards: Mapping[int, Mapping[str, Any]]
    router: Mapping[str, Any]
    told_at: float | None

    def not_serving(self) -> list[dict[str, Any]]:
        """Each part that does not serve, with its state and reason; empty when the daemon is ready.

        A shard whose disk is full serves: who took its clients away would keep them from deleting.
        """
        parts: list[dict[str, Any]] = []
        router = self.topology["router"]
        if router["state"] != "serving":
            parts.append({"router": router["pid"], "state": router["state"], "reason": router["reason"]})
        for number, shard in self.shards.items():
            if shard["state"] not in ("serving", "full"):
                parts.append({"shard": number} | {name: shard[name] for name in ("worker", "state", "reason")})
        return parts


def shard_figures(fleet: Fleet) -> dict[int, dict[str, Any]]:
    """`Snapshot.shards` as it stands."""
    figures: dict[int, dict[str, Any]] = {}
    for worker in fleet.workers:
        for number in worker.shards:
            stats = dict(worker.shard_stats.get(number, {}))
            if worker.life.state != "serving":
                stats["state"] = _STATE_OF_SHARDS.get(worker.life.state, "down")
                stats["reason"] = worker.life.reason
            elif not worker.is_up and stats.get("state") == "serving":
                stats |= {"state": "down", "reason": "its worker is not connected to the router"}
            figures[number] = {"worker": worker.number, "state": "recovering", "reason": ""} | stats
    return dict(sorted(figures.items()))


def topology(
    fleet: Fleet, *, version: str, supervisor: Mapping[str, Any], ports: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The parts, their processes and states: what `kio status` shows of the daemon as a whole."""
    router = fleet.router
    return {
        "version": version,
        "supervisor": dict(supervisor),
        "router": {
            "pid": router.process.pid if router.process is not None else None,
            "restarts": router.life.restarts,
            "state": router.life.state,
            "reason": router.life.reason,
            "rss_bytes": router.told.get("rss_bytes"),
            "cpu_s": router.told.get("cpu_s"),
        },
        "workers": [_worker(worker) for worker in fleet.workers],
        "shards": {
            number: {name: figures[name] for name in ("worker", "state", "reason")}
            for number, figures in shard_figures(fleet).items()
        },
        "ports": dict(ports),
        "settings": dict(settings),
    }


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "worker": worker.number,
        "pid": worker.process.pid if worker.process is not None else None,
        "cpu": worker.cpu,
        "restarts": worker.life.restarts,
        "state": worker.life.state,
        "shards": list(worker.shards),
        "reason": worker.life.reason,
        "rss_bytes": worker.told.get("rss_bytes"),
        "cpu_s": worker.told.get("cpu_s"),
    }


def snapshot(fleet: Fleet, topology: Mapping[str, Any]) -> Snapshot:
    """The snapshot to publish now."""
    times = [child.told_at for child in fleet.children]
    known = [at for at in times if at is not None]
    return Snapshot(topology, shard_figures(fleet), fleet.router.told, min(known) if len(known) == len(times) else None)
