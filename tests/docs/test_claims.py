"""What the documents say in tables and names agrees with the code; what is not run here is run where they say."""

from __future__ import annotations

import re
import shlex

import pytest

from kio import __version__, config, limits, wire
from kio.cli import exit_codes
from kio.segments import backup_file, checkpoint, format, identity, keyspaces, manifest
from tests.cluster.daemon import ROOT
from tests.docs import blocks

DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CHANGELOG.md", "deploy/README.md", "deploy/redis.md")
}
README, CHANGELOG = DOCUMENTS["README.md"], DOCUMENTS["CHANGELOG.md"]
#: Targets of the Makefile that .ci/run does not name, and the test that it runs instead.
TARGETS_BESIDE_CI = {"run": "tests/docs/test_make_run.py", "bench": "tests/measure/test_canonical.py"}


def section(heading: str) -> str:
    return README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the table in `text`, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_block_is_run_or_says_by_whom() -> None:
    for block in blocks.blocks(README):
        place = block.comment.removeprefix("run by: ")
        is_run = block.kind in ("console", "python")
        is_elsewhere = place != block.comment and (ROOT / place).is_file()
        is_layout = block.section == "The data directory" and block.kind == "text"
        assert is_run or is_elsewhere or is_layout, f"README.md:{block.line}"


def test_what_ci_is_said_to_run_it_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for block in blocks.blocks(README):
        if block.comment != "run by: .ci/run":
            continue
        for line in block.text.splitlines():
            words = shlex.split(line)
            if words[:2] == ["apt-get", "install"]:
                packages = re.search(r"^PACKAGES=\((.*)\)$", ci, re.MULTILINE)
                assert packages and set(words[2:]) <= set(packages[1].split())
            else:
                assert words[0] == "make", line
                beside = TARGETS_BESIDE_CI.get(words[1])
                assert (ROOT / beside).exists() if beside else f"\nmake {words[1]}\n" in ci, line


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    told = {int(code): meaning for code, meaning in rows(section("The command line"))}
    assert told == exit_codes.MEANINGS


def test_the_limits_are_those_of_the_code() -> None:
    told = {name.partition(",")[0]: (least, most) for name, least, most in rows(section("Limits"))}
    expected: dict[str, tuple[int | None, list[int]]] = {
        "key": (1, [limits.KEY_BYTES_MAX]),
        "value": (0, [limits.VALUE_BYTES_MAX, limits.VALUE_BYTES_CEILING]),
        "keyspaces": (None, [limits.KEYSPACES]),
        "shards": (1, [limits.SHARDS_MAX]),
        "segments per shard": (None, [limits.SEGMENTS_PER_SHARD_MAX]),
        "keys in one frame; clients split longer batches": (None, [limits.FRAME_KEYS_MAX]),
        "values of one shard in one reply": (None, [limits.REPLY_BYTES_MAX]),
        "client connections": (None, [limits.CONNECTIONS_MAX]),
        "requests in flight per connection": (None, [limits.CONNECTION_REQUESTS_MAX]),
        "operations in flight per shard": (None, [limits.SHARD_OPERATIONS_MAX]),
    }
    found = {
        name: (int(least) if least else None, [int(n.replace(",", "")) for n in re.findall(r"[0-9,]*[0-9]", most)])
        for name, (least, most) in told.items()
    }
    assert found == expected


def test_the_defaults_that_the_readme_names_are_the_defaults() -> None:
    told = re.findall(r"`(\w+)` \((\d+)\)", README)
    assert told
    for name, value in told:
        assert int(value) == config.BY_NAME[name].default, name


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`([\w./]+/[\w./]*)`", README)) - {"./data"}
    assert len(named) > 30
    missing = [name for name in sorted(named) if not (ROOT / name).exists()]
    assert missing == []


def test_the_reading_order_passes_every_part() -> None:
    order = section("Reading the code")
    folders = ["segments", "workers", "router", "replication", "tests"]
    folders += [f"kio/{name}" for name in ("frontdoor", "daemon", "client", "contrib", "cli", "bench")]
    assert [folder for folder in folders if f"`{folder}/" not in order] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    beside = (ROOT / name).parent
    missing = [to for to in re.findall(r"\]\(([^)#:]+)\)", DOCUMENTS[name]) if not (beside / to).exists()]
    assert missing == []


def test_the_changelog_names_the_version_and_its_formats() -> None:
    newest = CHANGELOG.partition("\n## ")[2].partition("\n## ")[0]
    assert newest.startswith(f"{__version__} ")
    told = {name: int(version) for name, version in rows(newest)}
    assert told == {
        "segment file": format.VERSION,
        "manifest": manifest.VERSION,
        "checkpoint": checkpoint.VERSION,
        "identity of a data directory": identity.FORMAT_VERSION,
        "map of keyspaces (`KEYSPACES`)": keyspaces.FORMAT_VERSION,
        "backup": backup_file.VERSION,
        "client protocol": wire.PROTOCOL_VERSION,
    }
