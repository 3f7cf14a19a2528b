"""Real files go in while workers are killed, and come back byte for byte."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import Chance
from tests.cluster.daemon import FULL, ROOT, Daemon, environment

SOURCES = [Path("/usr/share"), Path("/usr/lib/python3")]
FILES = 60_000 if FULL else 2_500
BYTES = 4 << 30 if FULL else 100 << 20
VALUE_BYTES_MAX = 16 << 20
EVERY_S = 1.0 if FULL else 0.2
KILLS_MIN, KILLS_MAX = (3, 10_000) if FULL else (2, 5)
IMPORT_S = 600.0 if FULL else 60.0


def build_tree(target: Path) -> tuple[int, int]:
    """Hard links (copies on another disk) of regular files of this system under `target`; (files, bytes)."""
    files = size = 0
    for source in SOURCES:
        for directory, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = Path(directory, name)
                length = path.lstat().st_size
                if path.is_symlink() or not path.is_file() or length > VALUE_BYTES_MAX or not os.access(path, os.R_OK):
                    continue
                if files >= FILES or size + length > BYTES:
                    return files, size
                place = target / path.relative_to("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path, place)
                except OSError:
                    shutil.copyfile(path, place)
                files += 1
                size += length
    return files, size


def add_corner_cases(target: Path) -> None:
    """Names and sizes that a system's own files may lack."""
    corner = target / "corner cases"
    corner.mkdir()
    (corner / "empty").write_bytes(b"")
    (corner / "{brace} tag").write_bytes(b"x")
    (corner / "line\nfeed").write_bytes(b"\0\n")
    (corner / "grün").write_bytes(os.urandom(100))
    (Path(os.fsdecode(os.fsencode(corner) + b"/not utf-8 \xff\xfe"))).write_bytes(b"\xff")
    (corner / "several MiB").write_bytes(os.urandom(5 << 20))


@pytest.mark.stress
@pytest.mark.timeout(1200 if FULL else 120)
def test_a_tree_imported_while_workers_are_killed_comes_back_byte_for_byte(chance: Chance) -> None:
    with Daemon(workers=2) as daemon:
        tree = daemon.home / "tree"
        tree.mkdir()
        files, size = build_tree(tree)
        add_corner_cases(tree)
        with (daemon.home / "import").open("wb") as said:
            importing = subprocess.Popen(
                [sys.executable, "-m", "kio", "import", "--tree", str(tree)],
                cwd=ROOT,
                env=environment(KIO_URL=daemon.url),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            kills = kill_workers_while(daemon, importing)
        finally:
            importing.kill()
            importing.wait()
        output = (daemon.home / "import").read_text(errors="replace")[-2000:]
        assert importing.returncode == 0, (
            f"the import exited {importing.returncode}: {output}\nrepeat with: {chance.repeat}"
        )
        assert kills >= KILLS_MIN, f"only {kills} kills during the import of {files} files, {size >> 20} MiB"
        print(f"{files} files, {size >> 20} MiB, {kills} kills")
        back = daemon.home / "back"
        daemon.cli("export", "--tree", back, limit_s=IMPORT_S)
        compared = subprocess.run(["diff", "-r", tree, back], capture_output=True, timeout=IMPORT_S, check=False)
        assert compared.returncode == 0, compared.stdout.decode(errors="replace")[-2000:]
        assert int(daemon.cli("count").stdout) == files + 6


def kill_workers_while(daemon: Daemon, importing: subprocess.Popen[bytes]) -> int:
    """SIGKILL one worker after the other at every tick until the import has ended; how many.

    With the short tick a worker that is not serving yet is spared: killed before it serves each time, it never would.
    """
    kills = 0
    tick = time.monotonic()
    while importing.poll() is None:
        assert time.monotonic() < tick + IMPORT_S, "the import does not come to an end"
        try:
            importing.wait(EVERY_S)
        except subprocess.TimeoutExpired:
            is_serving = daemon.status()["workers"][kills % 2]["state"] == "serving"
            if kills < KILLS_MAX and (is_serving or FULL):
                os.kill(daemon.worker_pid(kills % 2), signal.SIGKILL)
                kills += 1
    return kills
