"""The repairs of segments and of the checkpoint: plans for what check finds in them.

    record      the damaged records of a segment are given up; what is whole is copied into a new one
    segment     the segment is given up whole, as it is missing or hopeless
    checkpoint  the checkpoint is given up, and what only it still knows of

All three end the answers "Corrupt" for what the damage may have hidden: an older version of a key whose newest one is
lost is served from then on, unless the plan says that it stays away.

A segment that was never sealed is replaced together with those before it that were not sealed either: recovery demands
that their LSNs follow one another, and must not meet the hole.
"""

from __future__ import annotations

from typing import Final

from kio.segments import format
from kio.segments.check import Fault, examine_shard
from kio.segments.manifest import Manifest, SegmentEntry
from kio.segments.repair import Plan, Replacement, ShardFiles, announce, nothing_to_repair
from kio.segments.salvage import Salvaged, is_hidden, records_of_copy, salvage
from kio.segments.segment import segment_name

_MANIFEST_FIRST: Final = "the manifest is not to be trusted: use repair manifest first"
_PAGE: Final = bytes(4096)


def plan_record(files: ShardFiles, number: int) -> Plan:
    """Give up the damaged records of segment `number`.

    Raises:
        Corrupt, FormatTooNew: when the manifest cannot be used.
    """
    return _plan(files, number, keeps=True)


def plan_segment(files: ShardFiles, number: int) -> Plan:
    """Give up segment `number` whole.

    Raises:
        Corrupt, FormatTooNew: when the manifest cannot be used.
    """
    return _plan(files, number, keeps=False)


def plan_checkpoint(files: ShardFiles) -> Plan:
    """Give up the checkpoint.

    Raises:
        Corrupt, FormatTooNew: when the manifest cannot be used.
    """
    manifest = files.load_manifest()
    faults = examine_shard(files.root, files.identity, files.shard, files.disk).faults
    if any(fault.repair == "manifest" for fault in faults):
        return nothing_to_repair(files.shard, _MANIFEST_FIRST)
    wrong = _checkpoint_faults(faults)
    if not wrong:
        return nothing_to_repair(files.shard, "the checkpoint is whole, or there is none")
    plan = Plan(files.shard)
    plan.does.append(
        "take the checkpoint out of the manifest: the next start reads the lists of keys, and makes another"
    )
    _give_up_checkpoint(plan, wrong)
    if not plan.loses:
        plan.loses.append("nothing: the records say all that a checkpoint does")
    return plan.then(lambda: Replacement(files, manifest.state).install())


def _plan(files: ShardFiles, number: int, *, keeps: bool) -> Plan:
    manifest = files.load_manifest()
    target = manifest.state.segments.get(number)
    if target is None:
        return nothing_to_repair(files.shard, f"the manifest names no segment {number}; it may be repaired already")
    faults = examine_shard(files.root, files.identity, files.shard, files.disk).faults
    if any(fault.repair == "manifest" for fault in faults):
        return nothing_to_repair(files.shard, _MANIFEST_FIRST)
    own = [fault for fault in faults if fault.segment == number]
    if not own:
        return nothing_to_repair(files.shard, f"segment {number} has no fault")
    if keeps and all(fault.repair == "segment" for fault in own):
        return nothing_to_repair(files.shard, f"{own[0].message}: no record of it can be kept; use repair segment")
    plan = Plan(files.shard)
    plan.notes += [f"{fault.file}: {fault.message}" for fault in own if fault.file != segment_name(number)]
    replaced = [(entry, _read(files, manifest, entry)) for entry in _with_those_before(manifest, target)]
    copies: list[Salvaged] = []
    dropped: list[SegmentEntry] = []
    for entry, found in replaced:
        if found is not None and (keeps or entry is not target) and records_of_copy(found):
            copies.append(found)
            _describe_copy(plan, files, manifest, found)
        else:
            dropped.append(entry)
            _describe_dropped(plan, entry, found)
    last = max((found.scan.lsn_max for _, found in replaced if found is not None), default=0)
    before_next = _lsn_before_next(files, manifest, target)
    if before_next > max(last, target.lsn_max) and target not in dropped:
        _describe_gap(plan, target, last, before_next)
    lsn = max(manifest.state.lsn, last, before_next, *(e.lsn_max for e in manifest.state.segments.values()))
    plan.may_return.extend(_may_return(plan, replaced, dropped))
    _give_up_checkpoint(plan, _checkpoint_faults(faults))

    def act() -> None:
        entries = announce(manifest, len(copies))
        replacement = Replacement(files, manifest.state)
        for entry, _ in replaced:
            replacement.drop(entry.id)
        for entry, copy in zip(entries, copies, strict=True):
            del replacement.state.outputs[entry.id]
            replacement.add_copy(entry, copy)
        replacement.state.lsn = lsn
        replacement.install()

    return plan.then(act)


def _with_those_before(manifest: Manifest, target: SegmentEntry) -> list[SegmentEntry]:
    """The segment, and, where it was never sealed, those before it that were not sealed either."""
    if target.state == "sealed":
        return [target]
    entries = sorted(manifest.state.segments.values(), key=lambda entry: entry.id)
    return [entry for entry in entries if entry.id <= target.id and entry.state != "sealed"]


def _read(files: ShardFiles, manifest: Manifest, entry: SegmentEntry) -> Salvaged | None:
    path = files.path / segment_name(entry.id)
    epoch_max = max(manifest.state.epoch, entry.epoch)
    try:
        return salvage(files.disk, path, files.shard, files.identity.seed, entry, epoch_max)
    except FileNotFoundError:
        return None


def _lsn_before_next(files: ShardFiles, manifest: Manifest, target: SegmentEntry) -> int:
    """The LSN that the segment behind one that was never sealed must follow on; 0 when that is none."""
    if target.state == "sealed":
        return 0
    for entry in sorted(manifest.state.segments.values(), key=lambda entry: entry.id):
        if entry.id > target.id and not entry.compacted:
            following = _read(files, manifest, entry) if entry.state != "sealed" else None
            first = entry.lsn_min if following is None else following.scan.lsn_first
            if first:
                return first - 1
    return 0


def _describe_copy(plan: Plan, files: ShardFiles, manifest: Manifest, found: Salvaged) -> None:
    entry = found.entry
    plan.does.append(
        f"copy the {found.scan.records} valid records of segment {entry.id} into a new segment, "
        f"set {segment_name(entry.id)} aside"
    )
    plan.aside.append(f"{segment_name(entry.id)}.aside")
    plan.records_kept += found.scan.records
    plan.lost += found.lost
    if found.records_lost is None or plan.records_lost is None:
        plan.records_lost = None
    else:
        plan.records_lost += found.records_lost
    _describe_unreadable(plan, found)
    if found.lost or entry.damaged:
        count = "an unknown number of" if found.records_lost is None else str(found.records_lost)
        between = f" between LSN {found.scan.lsn_min} and {max(entry.lsn_max, found.scan.lsn_max)}"
        plan.loses.append(f"{count} records of segment {entry.id}{between}, in {found.bytes_lost} bytes")
    hole = _hole(files, manifest, found)
    if hole is not None:
        plan.notes.append(
            f"a power cut may have done this: then a start without a repair cuts the log at offset {hole} of segment "
            f"{entry.id}, as what stands behind it was never acknowledged as durable"
        )


def _describe_unreadable(plan: Plan, found: Salvaged) -> None:
    if found.unreadable_bytes:
        segment = found.entry.id
        plan.loses.append(f"{found.unreadable_bytes} bytes of segment {segment} that the disk does not deliver")


def _describe_gap(plan: Plan, target: SegmentEntry, last: int, before_next: int) -> None:
    plan.has_gap = True
    plan.loses.append(f"{before_next - last} records behind segment {target.id}: LSN {last + 1} to {before_next}")
    if plan.records_lost is not None:
        plan.records_lost += before_next - last
    plan.notes.append(
        "without a repair, a start sets the segments behind this gap aside where the manifest does not know that their "
        "records were durable"
    )


def _describe_dropped(plan: Plan, entry: SegmentEntry, found: Salvaged | None) -> None:
    name = segment_name(entry.id)
    plan.does.append(f"take segment {entry.id} out of the manifest" + (f", set {name} aside" if found else ""))
    if found is not None:
        plan.aside.append(f"{name}.aside")
        _describe_unreadable(plan, found)
    had = entry.records if entry.state == "sealed" else None
    plan.records_lost = None if had is None or plan.records_lost is None else plan.records_lost + had
    told = f"all records of segment {entry.id}"
    if had is not None:
        told += f": {had}, LSN {entry.lsn_min} to {entry.lsn_max}, {entry.end} bytes"
    plan.loses.append(told)
    if found is not None and found.scan.records:
        plan.notes.append(f'{found.scan.records} of them can be read: "kio repair record" keeps these')


def _may_return(
    plan: Plan, replaced: list[tuple[SegmentEntry, Salvaged | None]], dropped: list[SegmentEntry]
) -> list[str]:
    is_unknown = any(not is_hidden(lost) and lost.kind != format.CLEAR for lost in plan.lost)
    was_damaged = any(entry.damaged for entry, _ in replaced)
    if not (is_unknown or was_damaged or dropped or plan.has_gap):
        return []
    told = ["an older version of each key whose newest record is among the lost, deleted keys too; some only later"]
    # The clears of sealed segments are in the manifest.
    if any(entry.state != "sealed" and (found is None or found.lost or entry in dropped) for entry, found in replaced):
        told.append("the keys of a keyspace that was cleared, if that clear is among the lost")
    return told


def _hole(files: ShardFiles, manifest: Manifest, found: Salvaged) -> int | None:
    """Where recovery would see a hole of a power cut (recovery.py), in a segment that was never sealed."""
    if found.entry.end or found.entry.state == "sealed" or manifest.state.boot == files.disk.boot_id():
        return None
    for offset, size in sorted(found.scan.damaged):
        first = offset + -offset % len(_PAGE)
        for at in range(first, offset + size - len(_PAGE) + 1, len(_PAGE)):
            if found.data[at : at + len(_PAGE)] == _PAGE:
                return offset
    return None


def _checkpoint_faults(faults: list[Fault]) -> list[Fault]:
    return [fault for fault in faults if fault.kind == "checkpoint"]


def _give_up_checkpoint(plan: Plan, wrong: list[Fault]) -> None:
    """The checkpoint goes with every repair; where it is the only witness of lost records, that has to be said."""
    for fault in wrong:
        if "durable records are missing" in fault.message:
            plan.loses.append(f"what the checkpoint knows of records that are gone: {fault.message}")
            plan.may_return.append("older versions of the keys of these records, deleted keys too")
            plan.records_lost = None
        else:
            plan.notes.append(f"{fault.file}: {fault.message}")
