"""The fenced blocks of a Markdown document, and how each kind is run.

    ```console    commands after "$ ", continued after "> "; below each, what it writes to stdout and stderr. One that
                  fails must be followed by "$ echo $?", which shows its exit code
    ```python     a session with ">>>", as doctest reads one, or a script without
    ```text       shown only

"..." in shown output stands for anything. All blocks of a section share one directory and one set of Python variables,
in the order of the document. Above a fence a comment may stand that concerns its block:

    <!-- daemon: stopped -->       the daemon is stopped while the block runs
    <!-- run by: PLACE -->         not run here; PLACE is the file that does
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LIMIT_S: Final = 30.0
ELLIPSIS: Final = "..."


@dataclass(frozen=True)
class Block:
    """A fenced block: its section's heading, its kind, its text, and the comment above it ("" where there is none)."""

    section: str
    kind: str
    text: str
    comment: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a console block, and what is shown below it."""

    command: str
    shown: str


def blocks(document: str) -> Iterator[Block]:
    """All fenced blocks, in order; a section begins with a heading of the second level."""
    section, above = "", ""
    lines = iter(enumerate(document.splitlines(), 1))
    for number, line in lines:
        if line.startswith("## "):
            section = line[3:]
        if line.startswith("```"):
            body = []
            for _, inner in lines:
                if inner == "```":
                    break
                body.append(inner)
            comment = re.fullmatch(r"<!-- (.+) -->", above)
            yield Block(section, line[3:], "\n".join(body) + "\n", comment[1] if comment else "", number)
        if line.strip():
            above = line


def commands(text: str) -> list[Command]:
    """The commands of a console block."""
    found: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], ""))
            continue
        assert found, f"a console block begins with a command, not {line!r}"
        last = found.pop()
        if line.startswith("> ") and not last.shown:
            found.append(Command(f"{last.command}\n{line[2:]}", ""))
        else:
            found.append(Command(last.command, f"{last.shown}{line}\n"))
    return found


def run_console(text: str, directory: Path, environment: Mapping[str, str]) -> list[str]:
    """Run a console block in `directory`; what was wrong, a message each."""
    faults = []
    code = 0
    for item in commands(text):
        asks_code = item.command == "echo $?"
        if code and not asks_code:
            faults.append(f"the command before {item.command!r} exited {code}, and that is not shown")
        done = subprocess.run(
            ["sh", "-c", f"(exit {code})\n{item.command}" if asks_code else item.command],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
        code = done.returncode
        output = done.stdout.decode()
        if output and not output.endswith("\n"):
            output += "\n"  # a terminal shows the next prompt on a line of its own
        if not is_like(output, item.shown):
            faults.append(f"$ {item.command}\nshown:\n{item.shown}written:\n{output}")
    if code:
        faults.append(f"the last command exited {code}, and that is not shown")
    return faults


def run_python(text: str, name: str, variables: dict[str, Any]) -> list[str]:
    """Run a Python block in this process; what was wrong, a message each. A script's exception is not caught."""
    if ">>> " not in text:
        exec(compile(text, name, "exec"), variables)
        return []
    session = doctest.DocTestParser().get_doctest(text, variables, name, name, 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    told = io.StringIO()
    runner.run(session, out=told.write, clear_globs=False)
    variables.update(session.globs)
    return [told.getvalue()] if told.getvalue() else []


def is_like(output: str, shown: str) -> bool:
    """Whether `output` is what is shown; "..." stands for anything, and how wide a column is does not matter."""
    pattern = ".*".join(map(re.escape, tidied(shown).split(ELLIPSIS)))
    return re.fullmatch(pattern, tidied(output), re.DOTALL) is not None


def tidied(text: str) -> str:
    return "".join(re.sub(" +", " ", line).strip(" ") + "\n" for line in text.splitlines())


@contextlib.contextmanager
def programs(directory: Path) -> Iterator[Path]:
    """A directory with the `kio` and the `python3` of this environment, to stand first in PATH."""
    directory.mkdir()
    python = shlex.quote(sys.executable)
    for name, command in (("kio", f'{python} -m kio "$@"'), ("python3", f'{python} "$@"')):
        (directory / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (directory / name).chmod(0o755)
    yield directory
