"""`kio bench workloads`: what can be asked for by name."""

from __future__ import annotations

from typing import Any, Final

from kio.cli import options, output

EXAMPLE: Final = "kio bench workloads --json"


def command(json: options.Json = False) -> None:
    """List the workloads: what each is made of, where that comes from, and what was chosen here.

    Whatever a workload does not say is what "kio bench --help" tells, and each of its parts may be set with an option.
    """
    from kio.bench import workload

    if json:
        known = [
            {
                "name": one.name,
                "summary": one.summary,
                "plan": one.fields,
                "source": one.source,
                "choices": one.choices,
                "refused": None,
            }
            for one in workload.CATALOGUE.values()
        ]
        refused = [{"name": name, "refused": reason} for name, reason in workload.REFUSED.items()]
        output.as_json({"workloads": known + refused})
        return
    for one in workload.CATALOGUE.values():
        output.line(f"{one.name}: {one.summary}")
        for name, text in (("plan", _plan(one.fields)), ("source", one.source), ("chosen here", one.choices)):
            if text:
                output.line(f"    {name}: {text}")
    for name, reason in workload.REFUSED.items():
        output.line(f"{name}: refused: {reason}")


def _plan(fields: dict[str, Any]) -> str:
    """The fields as options would say them."""
    parts = []
    for field, value in fields.items():
        text = ",".join(f"{kind}={share:g}" for kind, share in value.items()) if isinstance(value, dict) else value
        parts.append(f"{field} {text}")
    return ", ".join(parts)
