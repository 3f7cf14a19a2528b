"""Calls that have a better one in this project, imports that have their place, and text that has none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.tidy.tree import ROOT, files, module_name, parsed, sources


class Ban(NamedTuple):
    """Calls that are banned in the modules `within`, except in those named in `allowed` (prefixes of module names)."""

    calls: tuple[str, ...]
    instead: str
    allowed: tuple[str, ...] = ()
    within: str = "kio"


BANS = (
    Ban(("time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"), "kio.clock.wall_ms", ("kio.clock",)),
    Ban(
        (
            "open",
            "os.fsync",
            "os.fdatasync",
            "os.open",
            "os.rename",
            "os.replace",
            "os.remove",
            "os.unlink",
            "os.mkdir",
        ),
        "kio.segments.disk.Disk, so that faults can be injected under everything",
        ("kio.segments.disk",),
        within="kio.segments",
    ),
    Ban(("hash",), "kio.hashing.key_hash: Python's hash differs from process to process"),
    Ban(("eval", "exec", "compile"), "plain code: no byte of the network may become code"),
    Ban(("print",), "kio.log, or kio.cli.output", ("kio.cli",)),
    Ban(("os.fork", "os.system", "os.popen"), "subprocess with a list: spawn and exec, never fork after threads"),
    Ban(("logging.getLogger",), "kio.log.Log, whose lines cannot be forged", ("kio.log",)),
)
#: module -> (the modules that may import it, why not the others)
HOMES = {
    "typer": (("kio.cli",), "it costs 75 ms of every start"),
    "rich": (("kio.cli",), "it belongs to what a person sees"),
    "prometheus_client": (("kio.daemon",), "it costs 14 MiB in every process"),
    "zmq": (("kio.router", "kio.workers"), "the pipes join these two"),
    "psutil": (("kio.bench",), "the processes of others are its own; a daemon's ask /proc, which costs no import"),
    "matplotlib": (("kio.bench.plots",), "it is an extra, and takes a second"),
    "xxhash": (("kio.hashing", "kio.segments"), "there is one hash of a key"),
    "asyncio": (("kio.aio", "kio.client"), "the daemon's loops are plain epoll loops"),
    "pickle": (("kio.contrib.pickled",), "what it reads can run code"),
    "django": (("kio.contrib.django",), "it is for programs that have it"),
    "cachelib": (("kio.contrib.cachelib",), "it is for programs that have it"),
    "marshal": ((), "what it reads can crash the process"),
    "shelve": ((), "what it reads can run code"),
    "multiprocessing": ((), "its queues pickle, and it forks"),
}
#: Text that must stand nowhere; written so that this file does not hold it either.
STRAYS = (
    ("a package registry's host", r"pypi\.(org|io)|pythonhost" + r"ed|npmjs\.(com|org)|deb\.debian|proxy\.golang"),
    ("a path of somebody's machine", r"/(?:root|home)/[a-z.]|/wor[k]/"),
    ("a promise instead of code", r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
)


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _called(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def test_no_banned_call() -> None:
    found = [
        f"{path}:{line}: {call}: use {ban.instead}"
        for path in sources(".py")
        for ban in BANS
        if _within(module_name(path), (ban.within,)) and not _within(module_name(path), ban.allowed)
        for line, call in _called(parsed(path))
        if call in ban.calls
    ]
    assert found == []


def test_imports_stand_where_they_belong() -> None:
    found = [
        f"{path}:{line}: import {module}: {HOMES[module][1]}; only in {', '.join(HOMES[module][0]) or 'no module'}"
        for path in sources(".py")
        for line, module in _imported(parsed(path))
        if module in HOMES and not _within(module_name(path), HOMES[module][0])
    ]
    assert found == []


def test_the_kernel_reads_no_clock_and_opens_or_syncs_no_file() -> None:
    banned = re.compile(r"\b(?:time\.time|os\.open|os\.fsync|fdatasync|gettimeofday)\b")
    assert [path for path in sources(".pyx") if banned.search((ROOT / path).read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(("what", "pattern"), STRAYS, ids=[what for what, _ in STRAYS])
def test_no_stray_text_in_any_file(what: str, pattern: str) -> None:
    found = []
    for path in files():
        if (ROOT / path).is_symlink() or path.suffix in {".bin", ".kio"}:
            continue
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        found += [f"{path}: {match[0]}" for match in re.finditer(pattern, text)]
    assert found == [], what


def test_every_module_that_a_ban_names_exists() -> None:
    named = {name for ban in BANS for name in (*ban.allowed, ban.within)}
    named |= {name for homes, _ in HOMES.values() for name in homes}
    assert named - {module_name(path) for path in sources(".py")} == set()
