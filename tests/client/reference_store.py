"""What the reference server keeps: single operations and atomics of kio.wire, written from its text, over a dict."""

from __future__ import annotations

import copy
import time
from typing import Any

from kio import wire
from kio.errors import BadRequest, KeyTooLarge, NotAnInteger, NumberOverflow, ValueTooLarge

NUMBERS = range(-(2**63), 2**63)
Reply = list[Any]


class ReferenceStore:
    """Keyspaces of keys.

    Attributes:
        keyspaces: keyspace -> key -> value.
        skipped_ms: added to the clock.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        """`limits` as the hello tells them."""
        self._limits = limits
        self.keyspaces: dict[int, dict[bytes, bytes]] = {}
        self.skipped_ms = 0
        #: (keyspace, key) -> [lsn, expire_at]
        self._versions: dict[tuple[int, bytes], list[int]] = {}
        self._lsn = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.skipped_ms

    def expire_at(self, keyspace: int, key: bytes) -> int:
        return self._versions.get((keyspace, key), [0, 0])[1]

    def present(self, keyspace: int) -> dict[bytes, bytes]:
        """The keyspace, without what has expired."""
        for key in list(self.keyspaces.setdefault(keyspace, {})):
            self._expire(keyspace, key)
        return self.keyspaces[keyspace]

    def get(self, keyspace: int, key: bytes) -> bytes | None:
        self._expire(keyspace, key)
        return self.keyspaces.setdefault(keyspace, {}).get(key)

    def _expire(self, keyspace: int, key: bytes) -> None:
        if 0 < self.expire_at(keyspace, key) <= self.now_ms():
            self.keyspaces.setdefault(keyspace, {}).pop(key, None)

    def fault(self, key: bytes, value: Any = b"") -> int:
        if len(key) > self._limits["key_bytes_max"]:
            return KeyTooLarge.code
        return ValueTooLarge.code if isinstance(value, bytes) and len(value) > self._limits["value_bytes_max"] else 0

    def atomic(self, keyspace: int, calls: list[list[Any]]) -> Reply:
        """What follows the id in the reply to an atomic."""
        before = copy.deepcopy((self.keyspaces, self._versions))
        results = []
        for place, (op, *rest) in enumerate(calls):
            status, *answer = self.execute(op, keyspace, *rest)
            if status != wire.STATUS_OK:
                self.keyspaces, self._versions = before
                if status == wire.STATUS_UNMET:
                    return [status, [place, answer[0]]]
                return [status, f"operation {place}: {answer[0]}", False]
            results += answer
        return [wire.STATUS_OK, results]

    def execute(self, op: int, keyspace: int, key: bytes, *rest: Any) -> Reply:
        """What follows the id in the reply to a single operation."""
        if code := self.fault(key, *rest[:1]):
            return [code, "", False]
        value = rest[0] if op in (wire.OP_SET, wire.OP_INCR, wire.OP_APPEND) else None
        options = list(rest[1:] if value is not None else rest) or [0]
        old = self.get(keyspace, key)
        data = self.keyspaces[keyspace]
        version = self._version(keyspace, key) if old is not None else None
        flags = options.pop(0)
        expire_at = self._expire_at(flags, options, version)
        if flags & wire.IF_VERSION and (version is None or version[:2] != options):
            return [wire.STATUS_UNMET, version]
        if (flags & wire.IF_ABSENT and version) or (flags & wire.IF_PRESENT and not version):
            return [wire.STATUS_UNMET, version]
        if op == wire.OP_GET:
            return [0, [old, *version] if version and flags & wire.WITH_VERSION else old]
        if op == wire.OP_EXISTS:
            return [0, old is not None]
        if op == wire.OP_TTL:
            return [0, version and (version[2] - self.now_ms() if version[2] else -1)]
        status, answer = self._write(op, data, key, value, old)
        if status == wire.STATUS_UNMET or (op == wire.OP_PERSIST and version and not version[2]):
            return [wire.STATUS_UNMET, version]
        if status != wire.STATUS_OK:
            return [status, "", False]
        if op in (wire.OP_INCR, wire.OP_APPEND) and version:
            expire_at = version[2]
        if answer is not False:
            self._lsn += 1
            self._versions[keyspace, key] = [self._lsn, expire_at]
        if flags & wire.WITH_OLD:
            return [0, old]
        return [0, self._version(keyspace, key) if flags & wire.WITH_VERSION and answer else answer]

    def _write(self, op: int, data: dict[bytes, bytes], key: bytes, value: Any, old: bytes | None) -> tuple[int, Any]:
        if op == wire.OP_INCR:
            text = b"0" if old is None else old
            try:
                before = int(text)
            except ValueError:
                return NotAnInteger.code, None
            if before not in NUMBERS or b"%d" % before != text:
                return NotAnInteger.code, None
            if before + value not in NUMBERS:
                return NumberOverflow.code, None
            data[key] = b"%d" % (before + value)
            return 0, before + value
        if op == wire.OP_APPEND:
            data[key] = (old or b"") + value
            return 0, len(data[key])
        if op == wire.OP_SET:
            data[key] = value
            return 0, True
        if op == wire.OP_DELETE:
            return 0, data.pop(key, None) is not None
        if op in (wire.OP_EXPIRE, wire.OP_PERSIST):
            return 0, old is not None
        return BadRequest.code, None

    def _version(self, keyspace: int, key: bytes) -> list[int]:
        return [3, *self._versions.get((keyspace, key), [0, 0])]

    def _expire_at(self, flags: int, options: list[int], version: list[int] | None) -> int:
        if flags & wire.TTL:
            return self.now_ms() + options.pop(0)
        if flags & wire.EXPIRE_AT:
            return options.pop(0)
        return version[2] if version and flags & wire.KEEP_TTL else 0
