"""`kio` and `python -m kio`: hands the command line to kio.cli.

The CLI, and typer with it, is imported only when it runs: the daemon's processes start without it.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; exits with the codes that deploy/README.md lists."""
    from kio.cli import main as run

    run()


if __name__ == "__main__":
    main()
