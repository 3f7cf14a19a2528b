"""All functions that run in a shard: whoever imports this has them in REGISTER."""

from __future__ import annotations

from kio.commands import bitfield, bits, dump, expiry, inspection, strings
from kio.commands.state import REGISTER

__all__ = ["REGISTER", "bitfield", "bits", "dump", "expiry", "inspection", "strings"]
