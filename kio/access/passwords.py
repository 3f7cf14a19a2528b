"""A password as it is stored: its scrypt hash, with the salt and the parameters that made it.

    scrypt$15$8$1$QUJDREVGR0hJSktMTU5PUA==$...      name $ log2(N) $ r $ p $ salt $ hash, the last two in base64

What is hashed is the password and a byte 0x01. One check takes 128 * N * r bytes of memory and time in proportion to
N * r * p: with the parameters of today 32 MiB and about 0.15 s of one core, on purpose. The parameters stand in the
text, so that they can rise: what is stored stays good, and `kio user password` stores anew. They are bounded when read:
a file cannot make a check take minutes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import Final, NamedTuple

from kio.errors import ConfigError
from kio.limits import MIB

#: A longer password is never right, and nothing is computed for it.
PASSWORD_BYTES_MAX: Final = 1_024
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
MEMORY_BYTES_MAX: Final = 128 * MIB

_STORED: Final = re.compile(
    r"scrypt\$([0-9]{1,2})\$([0-9]{1,2})\$([0-9]{1,2})\$([A-Za-z0-9+/=]{1,128})\$([A-Za-z0-9+/=]{1,128})"
)


class Cost(NamedTuple):
    """The parameters of scrypt."""

    log2_n: int = 15
    r: int = 8
    p: int = 1

    @property
    def memory_bytes(self) -> int:
        """What one check needs."""
        return 128 * self.r * ((1 << self.log2_n) + self.p + 2)

    @property
    def work(self) -> int:
        """How long one check takes, in no unit: for comparing."""
        return (1 << self.log2_n) * self.r * self.p


COST: Final = Cost()


class Hashed(NamedTuple):
    """What is stored of a password."""

    cost: Cost
    salt: bytes
    hash: bytes

    def __repr__(self) -> str:
        return f"<password hashed with {self.cost}>"

    def __str__(self) -> str:
        salt, hash = (base64.b64encode(part).decode("ascii") for part in (self.salt, self.hash))
        return f"scrypt${self.cost.log2_n}${self.cost.r}${self.cost.p}${salt}${hash}"

    def is_of(self, password: bytes) -> bool:
        """Whether it was made of `password`. Cost: see above; releases the interpreter's lock meanwhile."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost), self.hash)


def hashed(password: bytes, cost: Cost = COST) -> Hashed:
    """`password` as it is to be stored, with a new salt. Cost: that of one check."""
    salt = os.urandom(SALT_BYTES)
    return Hashed(cost, salt, _scrypt(password, salt, cost))


def parse(text: str) -> Hashed:
    """What `str` made of a Hashed.

    Raises:
        ConfigError: when it is something else, or would cost more than is allowed; the message does not hold `text`.
    """
    found = _STORED.fullmatch(text)
    if found is None:
        raise ConfigError('it is not what "kio user password" stores')
    cost = Cost(*map(int, found.groups()[:3]))
    if not (10 <= cost.log2_n <= 20 and 1 <= cost.r <= 16 and 1 <= cost.p <= 16):
        raise ConfigError(f"{cost} is out of range: log2_n is 10 to 20, r and p are 1 to 16")
    if cost.memory_bytes > MEMORY_BYTES_MAX:
        raise ConfigError(f"{cost} would take {cost.memory_bytes} bytes, more than {MEMORY_BYTES_MAX}")
    try:
        salt, hash = (base64.b64decode(part, validate=True) for part in found.groups()[3:])
    except binascii.Error:
        raise ConfigError("its salt or its hash is not base64") from None
    if len(salt) < 8 or len(hash) != HASH_BYTES:
        raise ConfigError(f"its salt has less than 8 bytes, or its hash not {HASH_BYTES}")
    return Hashed(cost, salt, hash)


def _scrypt(password: bytes, salt: bytes, cost: Cost) -> bytes:
    # A byte behind it, since HMAC, of which scrypt is made, does not see zero bytes at the end of its key.
    return hashlib.scrypt(
        password + b"\1",
        salt=salt,
        n=1 << cost.log2_n,
        r=cost.r,
        p=cost.p,
        maxmem=cost.memory_bytes + MIB,
        dklen=HASH_BYTES,
    )
