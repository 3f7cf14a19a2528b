"""The operator's manual on repair, tried as written: a real daemon, each symptom made, each command run in its order.

The manual's directory is replaced by the daemon's, `systemctl stop kio` and `start kio` by what they do to it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kio.segments import keyspaces
from kio.segments.keyspaces import KeyspaceMap
from tests.cluster.daemon import ROOT, Daemon, wait_until
from tests.cluster.rawwire import CORRUPT, GET, OK, SET, SET_MANY, SHARD_READ_ONLY, Wire
from tests.cluster.strace import SYNCS, Strace, needs_strace

DIRECTORY = "/var/lib/kio"
BACKUP = "/backup/kio"
MANUAL = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8").partition("\n## Repair\n")[2].partition("\n## ")[0]
KEYS = 3_000


def value_of(number: int) -> bytes:
    return b"%d/" % number * 120


def runbooks() -> dict[str, list[str]]:
    """The commands below each symptom."""
    parts = re.split(r"^### (.+)$", MANUAL, flags=re.MULTILINE)
    found = zip(parts[1::2], parts[2::2], strict=True)
    return {title: re.findall(r"^    (\S.*)$", text, re.MULTILINE) for title, text in found}


class Case(NamedTuple):
    """A symptom: how it is made, seen and gone; the exit codes that are not 0, by the place of their command."""

    make: Callable[[Daemon], None]
    is_seen: Callable[[Daemon], bool]
    codes: dict[int, int]
    is_readable: Callable[[int], bool]


def segment(daemon: Daemon) -> Path:
    return daemon.data / "shard-0000" / "0000000001.seg"


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0] ^ 0x10
        file.seek(at)
        file.write(bytes([byte]))


def offline(damage: Callable[[Daemon], None]) -> Callable[[Daemon], None]:
    """Damage done while the daemon is stopped."""

    def make(daemon: Daemon) -> None:
        daemon.stop()
        damage(daemon)
        daemon.restart(await_ready=False)

    return make


def answered(daemon: Daemon, number: int = 0) -> int:
    with Wire(daemon.url) as wire:
        return int(wire.request(GET, 0, b"key %d" % number, deadline_ms=2_000)[0])


def fail_syncs(daemon: Daemon) -> None:
    with (
        Wire(daemon.url) as wire,
        Strace([daemon.worker_pid(0)], "-e", f"trace={SYNCS}", "-e", f"inject={SYNCS}:error=EIO"),
    ):
        wire.request(SET, 0, b"new", b"2")
        wait_until(lambda: daemon.shard_stats()[0]["state"] == "read-only", 5, "the shard to be read-only", 0.05)


def refuses_writes(daemon: Daemon) -> bool:
    with Wire(daemon.url) as wire:
        is_told = "read-only" in daemon.cli("status", check=False).stdout.decode()
        return is_told and wire.request(SET, 0, b"later", b"3")[0] == SHARD_READ_ONLY


def lose_identity(daemon: Daemon) -> None:
    daemon.cli("backup", daemon.home / "backup")
    daemon.stop()
    spoil(daemon.data / "IDENTITY", 50)


def lose_keyspaces(daemon: Daemon) -> None:
    keyspaces.write(daemon.data, KeyspaceMap().swapped(3, 4))
    daemon.cli("backup", daemon.home / "backup")
    daemon.stop()
    (daemon.data / keyspaces.NAME).write_text("{")


CASES = {
    "A shard is read-only": Case(fail_syncs, refuses_writes, {}, lambda _: True),
    "Records are damaged": Case(
        offline(lambda daemon: spoil(segment(daemon), 64 + 24 + 20)),
        lambda daemon: answered(daemon) == CORRUPT,
        {1: 65},
        lambda number: number > 0,
    ),
    "A segment is missing": Case(
        offline(lambda daemon: segment(daemon).unlink()),
        lambda daemon: answered(daemon) == CORRUPT and daemon.shard_stats()[0]["state"] == "failed",
        {1: 65},
        lambda number: number > KEYS - 100,
    ),
    "The manifest is damaged or missing": Case(
        offline(lambda daemon: spoil(daemon.data / "shard-0000" / "MANIFEST", 50)),
        lambda daemon: answered(daemon) == CORRUPT and "manifest" in daemon.shard_stats()[0]["reason"],
        {1: 65},
        lambda _: True,
    ),
    "IDENTITY is damaged or missing": Case(
        lose_identity,
        lambda daemon: daemon.cli("serve", "--data", daemon.data, "--port", "0", check=False).returncode == 78,
        {},
        lambda _: True,
    ),
    "KEYSPACES is damaged": Case(
        lose_keyspaces,
        lambda daemon: daemon.cli("serve", "--data", daemon.data, "--port", "0", check=False).returncode == 78,
        {},
        lambda _: True,
    ),
    "The checkpoint is damaged": Case(
        offline(lambda daemon: None),
        lambda daemon: answered(daemon) == OK,
        {},
        lambda _: True,
    ),
}


def name_of(title: str) -> str:
    return title.partition(":")[0]


def slow(title: str) -> list[pytest.MarkDecorator]:
    """All but the first belong to the stress run: what they repair is tried without a daemon in tests/segments."""
    return [] if name_of(title) == "A shard is read-only" else [pytest.mark.stress]


def test_every_symptom_of_the_manual_has_its_case() -> None:
    assert [name_of(title) for title in runbooks()] == list(CASES)


@needs_strace
@pytest.mark.parametrize("title", [pytest.param(title, id=name_of(title), marks=slow(title)) for title in runbooks()])
def test_the_way_out_works_as_it_is_written(title: str) -> None:
    case = CASES[name_of(title)]
    commands = runbooks()[title]
    assert commands[0] == "systemctl stop kio"
    assert "systemctl start kio" in commands[-2:]
    with Daemon(workers=1, shards=1, flags=["--segment-mib", "1"]) as daemon:
        with Wire(daemon.url) as wire:
            for start in range(0, KEYS, 500):
                pairs = [part for n in range(start, start + 500) for part in (b"key %d" % n, value_of(n))]
                wire.call(SET_MANY, 0, pairs)
        case.make(daemon)
        wait_until(lambda: case.is_seen(daemon), 15, f"the symptom: {title}", 0.1)
        for place, command in enumerate(commands):
            if command == "systemctl stop kio":
                if daemon.is_running():
                    daemon.stop()
                if title.startswith("The checkpoint"):
                    spoil(next((daemon.data / "shard-0000").glob("*.ckpt")), 300)
            elif command == "systemctl start kio":
                daemon.restart(await_ready=True)
            else:
                real = command.replace(DIRECTORY, str(daemon.data)).replace(BACKUP, str(daemon.home / "backup"))
                words = shlex.split(real)
                if words[0] == "chown":
                    continue  # there is no user kio here
                if words[0] == "cp":
                    subprocess.run(words, check=True)
                    continue
                assert words[0] == "kio", command
                ran = daemon.cli(*words[1:], check=False)
                told = f"{command} exited {ran.returncode}: {ran.stdout.decode()} {ran.stderr.decode()}"
                assert ran.returncode == case.codes.get(place, 0), told
        with Wire(daemon.url) as wire:
            for number in range(KEYS):
                status, value, *_ = wire.request(GET, 0, b"key %d" % number)
                assert status == OK
                assert value == value_of(number) or (value is None and not case.is_readable(number)), number
            assert wire.call(SET, 0, b"after", b"x") is True
        assert daemon.shard_stats()[0]["reason"] == ""
