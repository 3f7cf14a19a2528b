"""The typer application, put together from the verbs, and the boundary where errors become exit codes.

Nothing leaves `run` but a number: every error is one line on stderr, `kio: <message>`, and its class's exit code. Set
KIO_DEBUG to see the traceback instead.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final

import typer
from typer.main import get_command

from kio.cli import exit_codes, output
from kio.errors import KioError

#: Verb -> its module in kio.cli. Only what the command line names is imported: a start costs a fifth of a second.
VERBS: Final[dict[str, str]] = {
    "serve": "serve",
    "status": "status",
    "get": "get",
    "set": "set_",
    "delete": "delete",
    "incr": "incr",
    "append": "append",
    "ttl": "ttl",
    "touch": "touch",
    "persist": "persist",
    "scan": "scan",
    "count": "count",
    "import": "import_",
    "export": "export",
    "compact": "compact",
    "check": "check",
    "backup": "backup",
    "restore": "restore",
    "reshard": "reshard",
    "version": "version",
}

#: The verbs of `kio repair`.
REPAIRS: Final = ("manifest", "record", "segment", "checkpoint")

REPAIR_HELP: Final = (
    "Give up what kio check finds damaged, so that the rest is served again. Each verb says what is lost, and changes "
    "nothing without --yes. A backup or a replica, where there is one, loses less."
)

#: The verbs of `kio user`.
USERS: Final = ("add", "list", "password", "remove")

#: What typer raises for wrong usage: the base of the only such class it exports.
UsageError: Final = typer.BadParameter.__mro__[1]


def _application(only: str = "") -> typer.Typer:
    """The application; where `only` is the name of a verb or a group, with nothing else, which is there much sooner."""
    app = typer.Typer(
        name="kio",
        help="kio: a sharded, durable key-value store daemon for data larger than RAM.",
        epilog=exit_codes.table(),
        rich_markup_mode="rich",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_nothing)
    for name, module in VERBS.items():
        if only in ("", name):
            _add(app, name, imported(module))
    for name, group in GROUPS.items():
        if only in ("", name):
            group(app)
    return app


def _nothing() -> None:
    # With a callback, an application of one verb is still a group.
    return


def imported(module: str) -> ModuleType:
    """The module of that name in kio.cli, with `command` and `EXAMPLE`."""
    return importlib.import_module(f"kio.cli.{module}")


def _config(app: typer.Typer) -> None:
    show = imported("config")
    settings = typer.Typer(help="Look at the daemon's settings.", no_args_is_help=True)
    _add(settings, "show", show)
    app.add_typer(settings, name="config", epilog=_example(show.EXAMPLE))


def _log(app: typer.Typer) -> None:
    dump = imported("log_dump")
    log = typer.Typer(help="Look into the log of a data directory.", no_args_is_help=True)
    _add(log, "dump", dump)
    app.add_typer(log, name="log", epilog=_example(dump.EXAMPLE))


def _repair(app: typer.Typer) -> None:
    repair = typer.Typer(help=REPAIR_HELP, no_args_is_help=True)
    for name in REPAIRS:
        _add(repair, name, imported(f"repair_{name}"))
    app.add_typer(repair, name="repair", epilog=_example(imported("repair_record").EXAMPLE))


def _user(app: typer.Typer) -> None:
    people = typer.Typer(help="Keep the file of users: who may connect, and do what.", no_args_is_help=True)
    for name in USERS:
        _add(people, name, imported(f"user_{name}"))
    app.add_typer(people, name="user", epilog=_example(imported("user_add").EXAMPLE))


def _bench(app: typer.Typer) -> None:
    # A verb by itself, with verbs below it: what it measures is not worth a word more on every command line.
    bench = imported("bench")
    measuring = typer.Typer()
    measuring.callback(invoke_without_command=True, help=_help(bench), epilog=_example(bench.EXAMPLE))(bench.command)
    for name in ("compare", "workloads"):
        _add(measuring, name, imported(f"bench_{name}"))
    app.add_typer(measuring, name="bench")


GROUPS: Final[dict[str, Callable[[typer.Typer], None]]] = {
    "config": _config,
    "log": _log,
    "repair": _repair,
    "user": _user,
    "bench": _bench,
}


def _add(app: typer.Typer, name: str, verb: ModuleType) -> None:
    app.command(name, help=_help(verb), epilog=_example(verb.EXAMPLE))(verb.command)


def _help(verb: ModuleType) -> str:
    """The docstring of its command, each paragraph one line."""
    paragraphs = inspect.cleandoc(verb.command.__doc__).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)


def _example(lines: str) -> str:
    return "Example:\n" + lines


def run(arguments: Sequence[str]) -> int:
    """Run `kio` with `arguments`; the exit code."""
    try:
        first = arguments[0] if arguments else ""
        command = get_command(_application(first if first in VERBS or first in GROUPS else ""))
        try:
            with command.make_context("kio", list(arguments)) as context:
                code = command.invoke(context)
            return code if isinstance(code, int) else exit_codes.DONE
        finally:
            sys.stdout.flush()
    except typer.Exit as ending:
        return ending.exit_code
    except BrokenPipeError:
        _forget_stdout()
        return exit_codes.BROKEN_PIPE
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Exception as error:
        if os.environ.get("KIO_DEBUG"):
            raise
        text, code = _explain(error)
        if text:
            output.message(text)
        return code


def _explain(error: Exception) -> tuple[str, int]:
    """What to tell the person, and the exit code."""
    if isinstance(error, KioError):
        return str(error), error.exit_code
    if isinstance(error, UsageError):
        return _usage(error), exit_codes.USAGE
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or error}", exit_codes.INPUT_OUTPUT
    return f"kio is at fault: {type(error).__name__}: {error}; KIO_DEBUG=1 shows where", exit_codes.INTERNAL


def _usage(error: Exception) -> str:
    """A usage error as one line; empty where the help was printed instead."""
    context = getattr(error, "ctx", None)
    text = str(getattr(error, "format_message", lambda: error)())
    if not text or type(error).__name__ == "NoArgsIsHelpError":
        return ""
    text = " ".join(text.split()).rstrip(".").removeprefix("Invalid value: ")
    path = context.command_path if context is not None else "kio"
    return f'{text[:1].lower()}{text[1:]}; see "{path} --help"'


def _forget_stdout() -> None:
    """Let what is still buffered for a reader that went away be lost in silence, also when the interpreter ends."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
