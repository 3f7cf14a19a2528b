"""`kio repair segment`: give up a whole segment that is missing or hopeless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.cli import options, repairing

if TYPE_CHECKING:
    from kio.segments.repair import Plan, ShardFiles

EXAMPLE: Final = """\
kio repair segment ./data --shard 0 --segment 1
kio repair segment ./data --shard 0 --segment 1 --yes"""


def command(
    shard: repairing.Shard,
    segment: repairing.Segment,
    directory: repairing.Directory = None,
    yes: repairing.Yes = False,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Give up a segment that is missing or hopeless: the manifest forgets it, its file, if any, is set aside.

    Older versions of its keys may come back, deleted ones too. Where records of it can still be read, kio repair record
    keeps them. Exit with 0 when it is planned or done, with 1 when there is nothing to repair.
    """

    def plan(files: ShardFiles) -> Plan:
        from kio.segments.repair_segments import plan_segment

        return plan_segment(files, segment)

    return repairing.run(plan, directory, shard, yes, config_file, json)
