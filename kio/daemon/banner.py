"""The lines at start: the settings that hold, that all shards serve, and, for a person, what to try."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from kio import __version__, config, log
from kio.daemon.listeners import Doors
from kio.wire import DEFAULT_PORT

_log = log.Log(__name__)


def started(settings: config.Settings, doors: Doors, workers: int, shards: int, placed: Sequence[int]) -> None:
    """One line of what holds, with the ports that were really bound."""
    _log.info(
        "kio serve",
        version=__version__,
        pid=os.getpid(),
        data=settings.data,
        url=doors.url,
        resp=doors.resp_url,
        http=doors.http_url,
        socket=settings.socket or None,
        resp_socket=settings.resp_socket or None,
        workers=workers,
        shards=shards,
        cpus=",".join(map(str, placed)),
        sync=settings.sync,
        sync_interval_ms=settings.sync_interval_ms if settings.sync == "interval" else None,
        segment_mib=settings.segment_mib,
        max_value_bytes=settings.max_value_bytes,
    )


def ready(doors: Doors, shards: int, down: Sequence[int], took_s: float, check: str) -> None:
    """All shards serve, or, where some could not be opened, which do not and which command (`check`) tells why."""
    took_ms = round(took_s * 1000)
    url = doors.url
    if down:
        shown = ",".join(map(str, down))
        _log.error("kio serve: ready in part", url=url, shards=shards, down=shown, took_ms=took_ms, run=check)
        return
    _log.info("kio serve: ready", url=url, shards=shards, took_ms=took_ms)
    if is_for_a_person(sys.stderr, os.environ):
        sys.stderr.write(hints(url, doors.ports["resp"], program()))


def is_for_a_person(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether somebody reads along: on a terminal, or under `make run`."""
    return stream.isatty() or "MAKELEVEL" in environ


def program() -> str:
    """How to call the `kio` of this environment from this shell."""
    beside = Path(sys.executable).with_name("kio")
    found = shutil.which("kio")
    if found is not None and Path(found) == beside:
        return "kio"
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)


def hints(url: str, resp_port: int | str | None, kio: str) -> str:
    """Commands that work against the daemon at `url`, one of them with a Redis's tool at its other port."""
    option = "" if url == f"kio://127.0.0.1:{DEFAULT_PORT}" else f" --url {url}"
    host = urlsplit(url).hostname
    where = f"-p {resp_port}" if host == "127.0.0.1" else f"-h {host} -p {resp_port}"
    where += " --tls" if url.startswith("kios:") else ""
    commands = (
        f"{kio} set greeting hello{option}",
        f"{kio} get greeting{option}",
        f"redis-cli {where} GET greeting",
        f"{kio} import --tree /usr/share/doc{option}",
        f"{kio} count{option}",
        f"{kio} status{option}",
    )
    return "try, in another terminal:\n" + "".join(f"  {command}\n" for command in commands)
