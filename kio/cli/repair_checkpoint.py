"""`kio repair checkpoint`: give up a checkpoint that is damaged, or that the records contradict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.cli import options, repairing

if TYPE_CHECKING:
    from kio.segments.repair import Plan, ShardFiles

EXAMPLE: Final = """\
kio repair checkpoint ./data --shard 0
kio repair checkpoint ./data --shard 0 --yes"""


def command(
    shard: repairing.Shard,
    directory: repairing.Directory = None,
    yes: repairing.Yes = False,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Give up a shard's checkpoint: the next start does without, and makes another.

    Nothing is lost with it, unless it is the only one that still knows of records that are gone. Exit with 0 when it is
    planned or done, with 1 when there is nothing to repair.
    """

    def plan(files: ShardFiles) -> Plan:
        from kio.segments.repair_segments import plan_checkpoint

        return plan_checkpoint(files)

    return repairing.run(plan, directory, shard, yes, config_file, json)
