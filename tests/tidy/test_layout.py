"""Where things stand, and what they are called."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.tidy.tree import LINKED, PACKAGE, ROOT, files, parsed, sources

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "deploy",
    "kio",
    "pyproject.toml",
    "replication",
    "requirements.lock",
    "router",
    "segments",
    "setup.py",
    "tests",
    "workers",
}
LINES_MAX = 500
#: Longer than LINES_MAX, and why that reads better than two files.
LONG = {
    "kio/frontdoor/_dispatch.pyx": "one state machine, from a client's bytes to a batch and back",
    "segments/_hints.pyx": "one pass over a segment's bytes, whoever asks: recovery, seal, check",
    "segments/_engine.pyx": "one hot path, from a batch to replies",
}
BAGS = {"base", "common", "core", "helpers", "manager", "misc", "shared", "utils", "util"}


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    assert {path.parts[0] for path in files()} == TOP_LEVEL


def test_the_four_folders_are_linked_into_the_package_by_relative_links_and_nothing_else_is_a_link() -> None:
    links = {str(path): str((ROOT / path).readlink()) for path in files() if (ROOT / path).is_symlink()}
    assert links == {f"kio/{name}": f"../{name}" for name in LINKED}


@pytest.mark.parametrize("name", LINKED)
def test_importing_a_folder_without_its_package_fails_and_names_the_right_import(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode != 0
    *_, message = done.stderr.splitlines()
    assert message.startswith("ImportError: ")
    assert f"kio.{name}" in message


def test_no_file_is_a_bag_of_unrelated_things() -> None:
    assert [path for path in files() if BAGS & {path.stem, *path.parts[:-1]}] == []


def test_compiled_sources_stand_only_where_the_kernel_is() -> None:
    kernel = {("segments",), ("kio", "frontdoor")}
    assert [path for path in sources(".pyx", under=(*PACKAGE, "tests")) if path.parts[:-1] not in kernel] == []


def test_every_module_opens_with_a_docstring() -> None:
    assert [path for path in sources(".py") if not ast.get_docstring(parsed(path))] == []


def test_every_compiled_module_opens_with_a_docstring() -> None:
    for path in sources(".pyx"):
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        first = next(line for line in lines if line and not line.startswith("#"))
        assert first.startswith(('"""', 'r"""')), path


def test_no_file_grows_past_what_can_be_read_at_once_unless_it_says_why() -> None:
    long = {
        str(path)
        for path in sources(".py", ".pyx", ".pxd", ".h", under=(*PACKAGE, "tests"))
        if len((ROOT / path).read_text(encoding="utf-8").splitlines()) > LINES_MAX
    }
    assert long <= set(LONG), f"longer than {LINES_MAX} lines: split it by mechanism, or add it to LONG with the reason"
    assert long >= set(LONG), "a file in LONG is short now: take it out"
