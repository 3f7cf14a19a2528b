"""Commands that are about the daemon: INFO, CONFIG, TIME and the like, as tools for Redis ask for them."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import msgpack

from kio import wire
from kio.clock import monotonic_s, wall_us
from kio.commands import ops
from kio.commands.arguments import integer, syntax_error, wrong_arity
from kio.commands.ops import Operation, Plan
from kio.commands.plans_keys import KEYSPACES
from kio.commands.replies import CommandError, Verbatim
from kio.frontdoor.resp.runner import Later, Runner
from kio.frontdoor.resp.sessions import Session
from kio.glob import Glob

#: What INFO calls itself: tools compare it to know what they may send.
REDIS_VERSION: Final = "7.2.0"
_SECTIONS: Final = (
    "server", "clients", "memory", "persistence", "stats", "replication", "cpu", "commandstats", "keyspace",
)  # fmt: skip
_BY_DEFAULT: Final = tuple(name for name in _SECTIONS if name != "commandstats")

Figures = Mapping[str, Any]
_Lines = dict[str, object]


class Facts(Protocol):
    """What is known of the daemon."""

    @property
    def version(self) -> str:
        """Kio's own version."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings that CONFIG GET tells: Redis's names for what kio has, and kio's own."""

    def figures(self) -> Figures:
        """What the process counts: connections, bytes_in, bytes_out, rss_bytes, cpu_s, tcp_port, max_connections."""


class ServerCommands:
    """Them, for one front door.

    Args:
        runner: gets these as its own.
        facts: of the daemon.
    """

    def __init__(self, runner: Runner, facts: Facts) -> None:
        self._runner = runner
        self._facts = facts
        self._started_s = monotonic_s()
        self._run_id = os.urandom(20).hex()
        runner.own |= {
            "config": self._config,
            "info": self._info,
            "time": self._time,
            "lastsave": self._last_save,
            "save": self._save,
            "bgsave": self._save_in_background,
            "shutdown": self._shutdown,
            "latency": self._latency,
            "debug": self._debug,
            "function": self._function,
            "slowlog": self._slow_log,
            "wait": self._wait,
            "waitaof": self._wait_for_disk,
        }

    # ---- INFO ----

    def _info(self, session: Session, arguments: list[bytes]) -> Plan:
        asked = {each.decode("latin-1").lower() for each in arguments[1:]}
        if not asked or "default" in asked:
            asked |= set(_BY_DEFAULT)
        if asked & {"all", "everything"}:
            asked |= set(_SECTIONS)
        counts: list[Any] = []
        shards: list[Figures] = []
        if asked & {"keyspace", "persistence", "stats", "memory", "replication"}:
            stats, *counts = yield [
                Operation(wire.OP_STATS, shard=ops.ALL),
                *(ops.count(number) for number in range(KEYSPACES)),
            ]
            shards = [_unpacked(payload) for payload in stats]
        figures = self._facts.figures()
        makers: dict[str, Callable[[], _Lines]] = {
            "server": lambda: self._of_server(figures),
            "clients": lambda: self._of_clients(figures),
            "memory": lambda: _of_memory(figures, shards),
            "persistence": lambda: _of_persistence(shards),
            "stats": lambda: self._of_stats(figures, shards),
            "replication": lambda: _of_replication(self._run_id, shards),
            "cpu": lambda: {"used_cpu_sys": 0, "used_cpu_user": figures["cpu_s"]},
            "commandstats": lambda: {
                f"cmdstat_{name}": f"calls={calls}" for name, calls in sorted(self._runner.calls.items())
            },
            "keyspace": lambda: {
                f"db{number}": f"keys={keys},expires=0,avg_ttl=0" for number, keys in enumerate(counts) if keys
            },
        }
        sections = []
        for name in _SECTIONS:
            if name in asked:
                lines = "".join(f"{key}:{value}\r\n" for key, value in makers[name]().items())
                sections.append(f"# {name.capitalize()}\r\n{lines}")
        return Verbatim("\r\n".join(sections).encode())

    def _of_server(self, figures: Figures) -> _Lines:
        uptime = int(monotonic_s() - self._started_s)
        return {
            "redis_version": REDIS_VERSION,
            "kio_version": self._facts.version,
            "redis_mode": "standalone",
            "os": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
            "arch_bits": 64,
            "multiplexing_api": "epoll",
            "process_id": os.getpid(),
            "run_id": self._run_id,
            "tcp_port": figures["tcp_port"],
            "server_time_usec": wall_us(),
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86400,
            "hz": 10,
            "cluster_enabled": 0,
        }

    def _of_clients(self, figures: Figures) -> _Lines:
        return {
            "connected_clients": figures["connections"],
            "cluster_connections": 0,
            "maxclients": figures["max_connections"],
            "blocked_clients": 0,
        }

    def _of_stats(self, figures: Figures, shards: list[Figures]) -> _Lines:
        return {
            "total_commands_processed": figures["requests"],
            "total_net_input_bytes": figures["bytes_in"],
            "total_net_output_bytes": figures["bytes_out"],
            "expired_keys": _sum(shards, "expired"),
            "evicted_keys": 0,
            "keyspace_hits": _sum(shards, "hits"),
            "keyspace_misses": _sum(shards, "misses"),
        }

    # ---- CONFIG ----

    def _config(self, session: Session, arguments: list[bytes]) -> Any:
        name = arguments[1].lower()
        if name == b"get":
            globs = [Glob(each.lower()) for each in arguments[2:]]
            settings = self._facts.settings.items()
            return {
                key.encode(): value.encode()
                for key, value in settings
                if any(glob.matches(key.encode()) for glob in globs)
            }
        if name == b"set":
            if len(arguments) % 2:
                raise wrong_arity("config|set")
            return self._set(arguments[2:])
        if name == b"resetstat":
            self._runner.calls.clear()
            return "OK"
        if name == b"rewrite":
            raise CommandError("ERR The server is running without a config file")
        return [b"CONFIG GET <pattern> [<pattern> ...] | SET <setting> <value> ... | RESETSTAT | HELP"]

    def _set(self, pairs: list[bytes]) -> str:
        """Settings of kio are read when it starts. What tools set to what it is already is fine."""
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            name = key.lower().decode("latin-1")
            known = self._facts.settings.get(name)
            if known is None:
                raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            if known.encode() != value:
                raise CommandError(
                    f"ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
                )
        return "OK"

    # ---- the rest ----

    def _time(self, session: Session, arguments: list[bytes]) -> list[bytes]:
        now_us = wall_us()
        return [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]

    def _last_save(self, session: Session, arguments: list[bytes]) -> Plan:
        (stats,) = yield [Operation(wire.OP_STATS, shard=ops.ALL)]
        taken = [_unpacked(payload).get("checkpoint_at_ms", 0) for payload in stats]
        return min(taken, default=0) // 1000

    def _save(self, session: Session, arguments: list[bytes]) -> Plan:
        yield [Operation(wire.OP_CHECKPOINT, shard=ops.ALL), Operation(wire.OP_SYNC, shard=ops.ALL)]
        return "OK"

    def _save_in_background(self, session: Session, arguments: list[bytes]) -> Plan:
        if len(arguments) > 2 or (len(arguments) == 2 and arguments[1].upper() != b"SCHEDULE"):
            raise syntax_error()
        yield [Operation(wire.OP_CHECKPOINT, shard=ops.ALL)]
        return "Background saving started"

    def _shutdown(self, session: Session, arguments: list[bytes]) -> Any:
        for each in arguments[1:]:
            if each.upper() not in (b"SAVE", b"NOSAVE", b"NOW", b"FORCE", b"ABORT"):
                raise syntax_error()
        if b"ABORT" in (each.upper() for each in arguments[1:]):
            raise CommandError("ERR No shutdown in progress.")
        os.kill(os.getppid(), signal.SIGTERM)  # the supervisor's
        return "OK"

    def _latency(self, session: Session, arguments: list[bytes]) -> Any:
        replies: dict[bytes, Any] = {
            b"latest": [],
            b"history": [],
            b"reset": 0,
            b"histogram": {},
            b"doctor": Verbatim(b"kio keeps no latency events; `kio bench` measures latency from the outside.\n"),
        }
        return replies[arguments[1].lower()]

    def _debug(self, session: Session, arguments: list[bytes]) -> Any:
        if self._facts.settings["enable-debug-command"] != "yes":
            raise CommandError(
                "ERR DEBUG command not allowed. It is for tests of clients; the setting is debug_commands."
            )
        seconds = _seconds(arguments[2])
        return Later(partial(self._runner.stall, seconds)) if seconds else "OK"

    def _function(self, session: Session, arguments: list[bytes]) -> Any:
        replies: dict[bytes, Any] = {
            b"flush": "OK",
            b"list": [],
            b"stats": {b"running_script": None, b"engines": {}},
        }
        return replies[arguments[1].lower()]

    def _slow_log(self, session: Session, arguments: list[bytes]) -> Any:
        replies: dict[bytes, Any] = {b"get": [], b"len": 0, b"reset": "OK"}
        return replies[arguments[1].lower()]

    def _wait(self, session: Session, arguments: list[bytes]) -> int:
        integer(arguments[1])
        if integer(arguments[2], "ERR timeout is not an integer or out of range") < 0:
            raise CommandError("ERR timeout is negative")
        return 0

    def _wait_for_disk(self, session: Session, arguments: list[bytes]) -> Plan:
        local = integer(arguments[1])
        if not 0 <= local <= 1:
            raise CommandError("ERR value is out of range, value must between 0 and 1")
        if integer(arguments[2]) < 0:
            raise CommandError("ERR value is out of range, must be positive")
        if integer(arguments[3], "ERR timeout is not an integer or out of range") < 0:
            raise CommandError("ERR timeout is negative")
        if local:
            yield [Operation(wire.OP_SYNC, shard=ops.ALL)]
        return [local, 0]


def _seconds(text: bytes) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise CommandError("ERR timeout is not a number of seconds")
    return seconds


def _unpacked(payload: bytes) -> Figures:
    figures: Figures = msgpack.unpackb(payload, strict_map_key=False)
    return figures


def _sum(shards: list[Figures], name: str) -> int:
    return sum(int(shard.get(name, 0)) for shard in shards)


def _of_memory(figures: Figures, shards: list[Figures]) -> _Lines:
    used = _sum(shards, "memory_bytes") + int(figures["rss_bytes"])
    return {
        "used_memory": used,
        "used_memory_human": f"{used / (1 << 20):.2f}M",
        "used_memory_rss": used,
        "used_memory_peak": used,
        "maxmemory": _sum(shards, "max_memory_bytes"),
        "maxmemory_policy": "noeviction",
        "mem_fragmentation_ratio": "1.00",
        "mem_allocator": "libc",
    }


def _of_persistence(shards: list[Figures]) -> _Lines:
    taken = [int(shard.get("checkpoint_at_ms", 0)) for shard in shards]
    return {
        "loading": 0,
        "async_loading": 0,
        "rdb_changes_since_last_save": 0,
        "rdb_bgsave_in_progress": 0,
        "rdb_last_save_time": min(taken, default=0) // 1000,
        "rdb_last_bgsave_status": "ok",
        "aof_enabled": 1,
        "aof_rewrite_in_progress": 0,
        "aof_last_write_status": "ok",
        "kio_unsynced_bytes": _sum(shards, "unsynced_bytes"),
        "kio_live_bytes": _sum(shards, "live_bytes"),
        "kio_dead_bytes": _sum(shards, "dead_bytes"),
    }


def _of_replication(run_id: str, shards: list[Figures]) -> _Lines:
    return {
        "role": "master",
        "connected_slaves": 0,
        "master_replid": run_id,
        "master_repl_offset": _sum(shards, "lsn"),
    }
