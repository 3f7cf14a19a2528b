"""What commands make of a key's expiry, where the kernel's own expire, persist and ttl do not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kio.commands.state import REGISTER, REMOVED, Outcome, State
from kio.errors import BadRequest

#: NX: it has no expiry; XX: it has one; GT, LT: the new one is later, earlier (none is later than any).
CONDITIONS: Final = frozenset(("NX", "XX", "GT", "LT"))


@REGISTER.add
def expire_at(state: State | None, now_ms: int, expire_at_ms: int, conditions: Sequence[str]) -> Outcome:
    """Let the key expire at a time since 1970, where all conditions hold; whether that was done.

    A time that has passed, 0 and less among them, removes the key.
    """
    if not CONDITIONS.issuperset(conditions):
        raise BadRequest(f"there is no condition {' '.join(conditions)!r:.40}")
    if state is None:
        return Outcome(False)
    current = state.expire_at_ms
    holds = {
        "NX": not current,
        "XX": bool(current),
        "GT": bool(current) and expire_at_ms > current,
        "LT": not current or expire_at_ms < current,
    }
    if not all(holds[condition] for condition in conditions):
        return Outcome(False)
    if expire_at_ms <= now_ms:
        return Outcome(True, REMOVED)
    return Outcome(True, None if expire_at_ms == current else State(state.value, expire_at_ms))


@REGISTER.add
def expiry_time(state: State | None, now_ms: int) -> Outcome:
    """When the key expires, in ms since 1970; -1 never, None where it is absent."""
    if state is None:
        return Outcome(None)
    return Outcome(state.expire_at_ms or -1)
