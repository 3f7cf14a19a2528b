"""The files of the project, as git knows them: tracked, or new and not ignored."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
#: The four folders beside kio/ that are its subpackages.
LINKED: Final = ("replication", "router", "segments", "workers")
#: Where the package's sources stand, each once, by its real path.
PACKAGE: Final = ("kio", *LINKED)


@cache
def files() -> tuple[Path, ...]:
    """Every file and link of the project that exists, relative to its root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: what belongs to the project is not known", allow_module_level=True)
    paths = (Path(name) for name in sorted(set(listed.split("\0"))) if name)
    return tuple(path for path in paths if (ROOT / path).is_symlink() or (ROOT / path).exists())


def sources(*suffixes: str, under: tuple[str, ...] = PACKAGE) -> list[Path]:
    """The files with one of these suffixes below these folders; links are not followed."""
    return [path for path in files() if path.suffix in suffixes and path.parts[0] in under]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """The import name of a source: `segments/disk.py` is `kio.segments.disk`."""
    parts = path.with_suffix("").parts
    return ".".join(parts if parts[0] == "kio" else ("kio", *parts)).removesuffix(".__init__")
