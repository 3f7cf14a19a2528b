"""The generated parts of deploy/redis.md: the commands that there are, and what is meant to differ from Redis.

`python -m tests.docs.command_table` writes them between their marks; a test holds the page to what stands in
kio/commands/table.py and in tests/resp/differences.py.
"""

from __future__ import annotations

from typing import Final

from kio.commands.table import TABLE, Command
from tests.cluster.daemon import ROOT
from tests.resp.differences import DIFFERENCES

PAGE: Final = ROOT / "deploy" / "redis.md"
#: Groups of the table, in the order of the page, and what they are called there.
GROUPS: Final = {
    "string": "Strings",
    "bitmap": "Bits of strings",
    "generic": "Keys",
    "transactions": "Transactions",
    "connection": "The connection",
    "server": "The server",
}


def begin(part: str) -> str:
    return f"<!-- {part}: written by python -m tests.docs.command_table -->\n"


def end(part: str) -> str:
    return f"<!-- end of {part} -->\n"


def commands() -> str:
    """A table of all commands, group by group."""
    lines = ["| command | arguments | what it does | right |", "|---|---:|---|---|"]
    for group, title in GROUPS.items():
        lines.append(f"| **{title}** | | | |")
        lines += [_row(command) for command in TABLE.values() if command.group == group]
    return "\n".join(lines) + "\n"


def _row(command: Command) -> str:
    # The name itself is counted by the table, not here.
    least = abs(command.arity) - 1
    count = f"{least}" if command.arity > 0 else f"{least} or more"
    return f"| `{command.name.upper()}` | {count} | {command.summary.replace('|', chr(92) + '|')} | {command.right} |"


def differences() -> str:
    """A list of what the tests that compare both servers let pass."""
    reasons = dict.fromkeys(each.reason for each in DIFFERENCES)
    return "".join(
        f"* {reason[0].upper() if not reason.startswith('kio') else 'k'}{reason[1:]}.\n" for reason in reasons
    )


PARTS: Final = {"commands": commands, "differences": differences}


def written(page: str) -> str:
    """The page with its generated parts anew; what stands outside of their marks stays."""
    for part, make in PARTS.items():
        before, mark, rest = page.partition(begin(part))
        _, closing, after = rest.partition(end(part))
        assert mark and closing, f"{PAGE.name} has no marks for {part}"
        page = f"{before}{mark}\n{make()}\n{closing}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
