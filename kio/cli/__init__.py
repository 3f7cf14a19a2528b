"""The command line: one verb a file, the daemon reached through the client.

    main() ── app.py ──┬── serve                           kio.config, kio.daemon (in this process)
                       ├── status get set delete scan count ┐
                       ├── import export                    ┴ kio.client, over the wire
                       ├── backup                          kio.client and kio.segments: beside the daemon
                       ├── check restore log dump          kio.segments, offline
                       ├── repair record segment ...       kio.segments, offline, with --yes
                       ├── bench                           kio.bench, in processes of its own
                       └── config version

A verb module holds EXAMPLE (the end of its --help) and `command`, a function whose signature is its arguments and whose
result is its exit code (None is 0). What verbs share: options.py (options, the connection), output.py (stdout, stderr,
how keys look), exit_codes.py. import and export move records between a source and a target: tree_source.py and
tree_target.py, jsonl.py, csv_rows.py; loading.py writes to the daemon, transfer.py counts, progress.py shows. The
verbs of repair make a plan each, which repairing.py tells and carries out.

Owns: what a person or a script sees: stdout is the answer, stderr is progress and messages; exit codes; --json.
Never: knows the wire or the files of a shard; decides what an error means (errors.py does).

Importing this package costs nothing: typer, the client and rich are imported when they are used.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (default: this process's) and exit with its code (exit_codes.py)."""
    from kio.cli.app import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
