"""What the router knows of the daemon, for INFO and CONFIG of RESP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kio import control

#: What Redis calls what `sync` says.
_FSYNC: Final = {"always": "always", "interval": "everysec", "os": "no"}


class DaemonFacts:
    """The facts (kio.frontdoor.resp.server.Facts).

    Args:
        configure: what the supervisor has told.
        stats: the router's own figures.
    """

    def __init__(self, configure: control.Message, stats: Callable[[], Mapping[str, Any]]) -> None:
        self.version: str = configure["server"]
        self._stats = stats
        self._bounds = {"tcp_port": configure["resp_port"], "max_connections": configure["max_connections"]}
        settings = configure["settings"]
        self.settings: Mapping[str, str] = {
            "maxclients": str(configure["max_connections"]),
            "port": str(configure["resp_port"]),
            "databases": "16",
            "appendonly": "yes",
            "appendfsync": _FSYNC[settings["sync"]],
            "save": "",
            "maxmemory": str(settings["max_memory_mib"] << 20),
            "maxmemory-policy": "noeviction",
            "proto-max-bulk-len": str(configure["max_value_bytes"]),
            "timeout": str(settings["idle_timeout_s"]),
            "tcp-keepalive": "60",
            "dir": settings["data"],
            "bind": settings["host"],
            "enable-debug-command": "yes" if settings["debug_commands"] else "no",
        }

    def figures(self) -> Mapping[str, Any]:
        """What the process counts."""
        return {**self._stats(), **self._bounds}
