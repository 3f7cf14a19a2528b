"""`kio repair manifest`: write a shard's list of segments anew, where it is damaged or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kio.cli import options, repairing

if TYPE_CHECKING:
    from kio.segments.repair import Plan, ShardFiles

EXAMPLE: Final = """\
kio repair manifest ./data --shard 0
kio repair manifest ./data --shard 0 --yes"""


def command(
    shard: repairing.Shard,
    directory: repairing.Directory = None,
    yes: repairing.Yes = False,
    config_file: options.Config = None,
    json: options.Json = False,
) -> int:
    """Write a manifest anew that is damaged or missing, from what still reads of it and from the segments themselves.

    Where edits of it are lost, deleted keys and older values may come back; it says when. The damaged manifest is kept.
    Exit with 0 when it is planned or done, with 1 when there is nothing to repair.
    """

    def plan(files: ShardFiles) -> Plan:
        from kio.segments.repair_manifest import plan_manifest

        return plan_manifest(files)

    return repairing.run(plan, directory, shard, yes, config_file, json)
