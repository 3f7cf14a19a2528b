"""`kio repair record`: give up the damaged records of a segment, and keep the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.cli import options, repairing

if TYPE_CHECKING:
    from kio.segments.repair import Plan, ShardFiles

EXAMPLE: Final = """\
kio repair record ./data --shard 0 --segment 1
kio repair record ./data --shard 0 --segment 1 --yes"""


def command(
    shard: repairing.Shard,
    segment: repairing.Segment,
    directory: repairing.Directory = None,
    yes: repairing.Yes = False,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Give up what is damaged in a segment: its whole records are copied into a new one, the old file is set aside.

    An older version of a key whose newest record is lost is served afterwards, where it is not known whose record it
    was. Exit with 0 when it is planned or done, with 1 when there is nothing to repair.
    """

    def plan(files: ShardFiles) -> Plan:
        from kio.segments.repair_segments import plan_record

        return plan_record(files, segment)

    return repairing.run(plan, directory, shard, yes, config_file, json)
