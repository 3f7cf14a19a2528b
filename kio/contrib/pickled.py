"""The values of a cache: pickles, and integers as decimal text, which `incr` counts."""

from __future__ import annotations

import pickle
from typing import Any, Final

#: How the decimal text of an integer begins; a pickle begins with another byte.
_INTEGER: Final = frozenset(b"-0123456789")


class Pickled:
    """A codec."""

    name = "pickle"

    def encode(self, value: Any, /) -> bytes:
        """An int as text; a bool, as any other value, as its pickle."""
        return b"%d" % value if type(value) is int else pickle.dumps(value)

    def decode(self, data: bytes, /) -> Any:
        """The value."""
        return int(data) if data[:1] and data[0] in _INTEGER else pickle.loads(data)  # noqa: S301 - see the package
