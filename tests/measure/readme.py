"""Writes the figures of README.md: what stands there was measured by this command, never typed.

    python -m tests.measure.readme [--kernel FILE] [--daemon FILE]

Each FILE is what `python -m tests.measure.kernel --json` or `python -m tests.measure.daemon --json` printed; without it
that bench is run now. Only the text between the two marks changes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: written by python -m tests.measure.readme -->\n", "<!-- end of figures -->\n"

DAEMON_ROWS = (
    ("get_many of {batch:,} keys, keys/s", "get_many_keys_per_s", 0),
    ("set_many of {batch:,} keys, keys/s", "set_many_keys_per_s", 0),
    ("server CPU, get_many, s per million keys", "get_many_cpu_s_per_million", 2),
    ("server CPU, set_many, s per million keys", "set_many_cpu_s_per_million", 2),
    ("single get, median µs", "get_us", 0),
    ("single set, median µs", "set_us", 0),
)
KERNEL_COLUMNS = {
    "keys": "keys",
    "sets_per_s": "sets/s",
    "gets_per_s": "gets/s",
    "keydir_bytes_per_key": "KeyDir, bytes a key",
    "rss_slope_bytes_per_key": "resident, bytes a key more",
    "longest_batch_us": "longest batch of 100 sets, µs",
}


def measured(bench: str) -> Any:
    """What a bench finds when it is run now."""
    command = [sys.executable, "-m", f"tests.measure.{bench}", "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def daemon_table(result: dict[str, Any]) -> str:
    """One Python client: kio beside redis, and the ratio; kio alone where redis was not there."""
    sides = [name for name in ("kio", "redis", "ratio") if name in result]

    def cell(side: str, figure: str, digits: int) -> str:
        return f"{result[side][figure]:,.{2 if side == 'ratio' else digits}f}"

    return table(
        ["one Python client", *sides],
        [
            [name.format(**result), *(cell(side, figure, digits) for side in sides)]
            for name, figure, digits in DAEMON_ROWS
        ],
    )


def kernel_table(result: dict[str, Any]) -> str:
    """One shard in process."""
    return table(
        list(KERNEL_COLUMNS.values()), [[f"{row[name]:,}" for name in KERNEL_COLUMNS] for row in result["table"]]
    )


def written(text: str, kernel: dict[str, Any], daemon: dict[str, Any]) -> str:
    """`text` with new figures between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    machine = f"Measured on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}."
    parts = (machine + "\n", daemon_table(daemon), kernel_table(kernel))
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", type=Path, metavar="FILE")
    parser.add_argument("--daemon", type=Path, metavar="FILE")
    args = parser.parse_args()
    kernel, daemon = (
        json.loads(file.read_text()) if file is not None else measured(bench)
        for bench, file in (("kernel", args.kernel), ("daemon", args.daemon))
    )
    README.write_text(written(README.read_text(encoding="utf-8"), kernel, daemon), encoding="utf-8")


if __name__ == "__main__":
    main()
