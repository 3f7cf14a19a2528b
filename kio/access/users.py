"""Users: what each may do, and to which keys.

Rights are ordered, each holds those below it: read < write < admin. A user with prefixes may touch only keys that begin
with one of them, in every keyspace, and nothing that is about a whole keyspace; one without may touch all keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from kio import wire
from kio.access.passwords import Hashed

#: Who has not said a name. It may have no password: then it is who connects and does not authenticate.
DEFAULT_NAME: Final = "default"
NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
NAME_TEXT: Final = "1 to 64 of the characters A-Z a-z 0-9 _ . @ -"


class Right(IntEnum):
    """What a user may do; each holds those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    Attributes:
        name: see NAME.
        right: the highest that it has.
        prefixes: what its keys begin with; empty where it may touch all.
        password: what is stored of it; None where there is none, which only the default user may have.
    """

    name: str
    right: Right
    prefixes: tuple[bytes, ...] = ()
    password: Hashed | None = field(default=None, repr=False)

    def may(self, right: Right) -> bool:
        """Whether it has `right`."""
        return self.right >= right

    def may_touch(self, key: bytes) -> bool:
        """Whether it may touch `key`; for a scan, whether it may touch whatever begins with `key`."""
        return not self.prefixes or key.startswith(self.prefixes)

    @property
    def may_touch_all(self) -> bool:
        """Whether it may do what is about a whole keyspace."""
        return not self.prefixes

    def may_ask(self, op: int, prefix: bytes | None = None) -> bool:
        """Whether it may do an operation of the native protocol that has no key.

        Args:
            prefix: of the keys that a scan gives.
        """
        if not self.may(RIGHT_BY_OP.get(op, Right.ADMIN)):
            return False
        if prefix is not None:
            return self.may_touch(prefix)
        return self.may_touch_all or op not in WHOLE_KEYSPACE_OPS


#: Who comes in where no users are set up: everybody, as one who may do everything.
EVERYBODY: Final = User(DEFAULT_NAME, Right.ADMIN)

#: Operation of the native protocol -> the right it needs; hello and ping need none. What is not here needs ADMIN.
#: An atomic batch needs what its operations need: READ by itself.
RIGHT_BY_OP: Final[Mapping[int, Right]] = {
    wire.OP_GET: Right.READ,
    wire.OP_EXISTS: Right.READ,
    wire.OP_TTL: Right.READ,
    wire.OP_GET_MANY: Right.READ,
    wire.OP_EXISTS_MANY: Right.READ,
    wire.OP_COUNT: Right.READ,
    wire.OP_SCAN: Right.READ,
    wire.OP_STATS: Right.READ,
    wire.OP_ATOMIC: Right.READ,
    wire.OP_SET: Right.WRITE,
    wire.OP_DELETE: Right.WRITE,
    wire.OP_INCR: Right.WRITE,
    wire.OP_APPEND: Right.WRITE,
    wire.OP_EXPIRE: Right.WRITE,
    wire.OP_PERSIST: Right.WRITE,
    wire.OP_SET_MANY: Right.WRITE,
    wire.OP_DELETE_MANY: Right.WRITE,
    wire.OP_CLEAR: Right.ADMIN,
    wire.OP_SEAL: Right.ADMIN,
    wire.OP_COMPACT: Right.ADMIN,
}
#: What is about all keys of a keyspace: a user with prefixes may not. A scan it may, of a prefix it may touch.
WHOLE_KEYSPACE_OPS: Final = frozenset({wire.OP_COUNT, wire.OP_CLEAR})
