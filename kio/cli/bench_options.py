"""The options of `kio bench` that make up its plan: one for each field that a person may want to set.

An option that is not given is None, so that a workload's own value holds: `--workload c` says which keys and how large,
and whatever stands beside it on the command line wins.
"""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final, NamedTuple

import typer

from kio.bench.plan import Plan

LOAD: Final = "Workload"
PACE: Final = "Pace"
SHAPE: Final = "Connections"


class PlanOption(NamedTuple):
    """An option that stands for the field of a plan of the same name."""

    field: str
    type: type
    metavar: str
    panel: str
    help: str

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        names = {"ttl_s": "ttl", "drain_s": "drain"}
        return "--" + names.get(self.field, self.field).replace("_", "-")


CATALOGUE: Final = (
    PlanOption("mix", str, "KIND=SHARE,...", LOAD, "Kinds read, update, insert, rmw, delete, incr, expire; sum 1."),
    PlanOption(
        "keys", str, "CHOOSER", LOAD, "uniform, zipf:THETA, latest:THETA or hotset:KEYS_SHARE:OPERATIONS_SHARE."
    ),
    PlanOption("records", int, "N", LOAD, "Keys that are there before the run."),
    PlanOption("key_bytes", str, "SIZES", LOAD, "N, LOW-HIGH, N:WEIGHT,... or pareto:SCALE:SHAPE."),
    PlanOption("value_bytes", str, "SIZES", LOAD, "The same of values."),
    PlanOption("ttl_s", float, "SECONDS", LOAD, "How long what an expire writes shall live."),
    PlanOption("prefix", str, "TEXT", LOAD, "What every key begins with."),
    PlanOption("seed", int, "N", LOAD, "The same seed gives the same operations."),
    PlanOption("rate", float, "PER_SECOND", PACE, "Operations a second of all connections; 0 is the closed loop."),
    PlanOption("arrivals", str, "constant|poisson", PACE, "How the times at which requests are due are spaced."),
    PlanOption("seconds", float, "SECONDS", PACE, "How long requests fall due."),
    PlanOption("count", int, "N", PACE, "End after N operations instead."),
    PlanOption("drain_s", float, "SECONDS", PACE, "How long the end waits for what is outstanding."),
    PlanOption("connections", int, "N", SHAPE, "Connections of all processes."),
    PlanOption("depth", int, "N", SHAPE, "Requests that one connection may have outstanding."),
    PlanOption("pipeline", int, "N", SHAPE, "Commands in one request, sent by one write."),
    PlanOption("batch", int, "KEYS", SHAPE, "Keys in one command: get_many and set_many, MGET and MSET."),
    PlanOption("processes", int, "N", SHAPE, "Generator processes."),
)


def parameters() -> list[inspect.Parameter]:
    """The options as typer reads them from a signature."""
    return [
        inspect.Parameter(
            option.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                option.type | None,
                typer.Option(
                    option.flag,
                    metavar=option.metavar,
                    help=option.help + _default(option.field),
                    rich_help_panel=option.panel,
                ),
            ],
        )
        for option in CATALOGUE
    ]


def _default(field: str) -> str:
    """What holds where neither the command line nor a workload says anything else."""
    default: Any = Plan.__dataclass_fields__[field].default
    return f" Default: {default:g}." if isinstance(default, int | float) else ""
