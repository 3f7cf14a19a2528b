"""What the generator's loop asks of a protocol: requests as bytes, bytes as outcomes, a greeting.

A protocol's codec (resp.py, native.py) gives three things, none of which touches a socket:

    shape      one command as a list of parts in which None stands for each key; from it the Encoder makes requests
    Replies    bytes as they come, however they are cut -> one outcome for each command that they answer
    Greeting   what is said before the first command, and whether the other side speaks this protocol at all

The Encoder is fast where sizes are fixed: commands become %-templates once, a whole request is then one formatting.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from operator import getitem
from typing import Final, Protocol

from kio.bench.keys import key_of, key_template
from kio.bench.plan import INCR, KINDS, Plan
from kio.bench.sizes import parse_sizes
from kio.errors import KioError

#: Outcomes of a command, one byte each.
OK: Final = 0
FAILED: Final = 1
#: What a counter's key ends with: it stands beside the record of its id, whose value is no number.
COUNTER_SUFFIX: Final = b"#"
#: Templates up to this long are remembered, this many of them for a slot.
_TEMPLATE_BYTES_MAX: Final = 16 << 10
_TEMPLATES_MAX: Final = 256
#: 64 characters: what they spell cannot be compressed by more than a quarter, and holds no % and no line's end.
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

#: (kind, place of the command among those outstanding, lengths of its keys, its values) -> parts, None for a key.
Shape = Callable[[int, int, list[int], list[bytes]], list[bytes | None]]


class Tally:
    """What replies said beside their outcome, of all connections together. Counts are operations.

    It is told when a reply is whole, together with its outcome: a reply that is cut off counts nowhere.
    """

    __slots__ = ("errors", "failed", "missing")

    def __init__(self) -> None:
        self.missing = 0
        self.failed = 0
        self.errors: dict[str, int] = {}

    def fail(self, code: str, operations: int) -> None:
        """`operations` got an error of this code."""
        self.failed += operations
        self.errors[code] = self.errors.get(code, 0) + operations


class Replies(Protocol):
    """The replies of one connection."""

    #: What is wrong with the stream: bytes that are not this protocol, or what the other side says about the whole
    #: connection. Nothing more can be taken then; what came before it was.
    error: KioError | None

    def take(self, data: bytes) -> bytes:
        """One outcome (OK or FAILED) for each command whose reply `data` completes, in order."""


class Greeting(Protocol):
    """What opens a connection."""

    #: The bytes to send first.
    opening: bytes

    def take(self, data: bytes) -> bool:
        """Whether the other side has answered everything; it may be called with what comes until then.

        Raises:
            ConfigError: when the URL is at fault: another protocol, a password that is wrong or missing.
            ConnectionLost: when the other side takes nobody now.
        """


def values_of(plan: Plan) -> bytes:
    """The bytes that every value is the beginning of; the same for the same seed."""
    table = bytes(_ALPHABET[i % 64] for i in range(256))
    return random.Random(plan.seed).randbytes(parse_sizes(plan.value_bytes).bytes_max).translate(table)  # noqa: S311


class Encoder:
    """The requests of one plan, as bytes.

    A *slot* is a request's place among the `depth` that a connection may have outstanding; with the command's number in
    its request it tells commands of one connection apart.
    """

    def __init__(self, plan: Plan, shape: Shape) -> None:
        self._shape = shape
        self._key_of = key_of(plan)
        self._batch = plan.batch
        self._pipeline = plan.pipeline
        self._values = values_of(plan)
        template = key_template(plan)
        self._is_fixed = template is not None and parse_sizes(plan.value_bytes).is_fixed
        #: For each slot: what a request of these kinds is a formatting of.
        self._known: list[dict[bytes, bytes]] = [{} for _ in range(plan.depth)]
        #: For each slot and place: the templates of one command, by kind.
        self._rows: list[list[tuple[bytes, ...]]] = []
        if template is not None and self._is_fixed:
            self._rows = [
                [self._templates(slot * plan.pipeline + number, template, plan) for number in range(plan.pipeline)]
                for slot in range(plan.depth)
            ]

    def __call__(self, kinds: bytes, ids: array[int], sizes: array[int], slot: int) -> bytes:
        """The commands of one request, `batch` operations each; a kind that reads and writes back is a read here."""
        if not self._is_fixed:
            return self._from_parts(kinds, ids, sizes, slot)
        known = self._known[slot]
        template = known.get(kinds)
        if template is None:
            of_commands = kinds if self._batch == 1 else kinds[:: self._batch]
            template = b"".join(map(getitem, self._rows[slot], of_commands))
            if len(template) <= _TEMPLATE_BYTES_MAX and len(known) < _TEMPLATES_MAX:
                known[kinds] = template
        return template % tuple(ids)

    def _templates(self, place: int, key: bytes, plan: Plan) -> tuple[bytes, ...]:
        """One command of every kind, with `key` where a key goes and every other % doubled."""
        values = [self._values] * plan.batch
        lengths = [len(key % 0)] * plan.batch
        return tuple(
            b"".join(
                key if part is None else part.replace(b"%", b"%%")
                for part in self._shape(kind, place, _suffixed(kind, lengths), values)
            )
            for kind in range(len(KINDS))
        )

    def _from_parts(self, kinds: bytes, ids: array[int], sizes: array[int], slot: int) -> bytes:
        keys = [self._key_of(id_) for id_ in ids]
        values = self._values
        made: list[bytes] = []
        next_key = iter(keys).__next__
        batch = self._batch
        place = slot * self._pipeline
        for first in range(0, len(ids), batch):
            past = first + batch
            lengths = [len(key) for key in keys[first:past]]
            kind = kinds[first]
            parts = self._shape(kind, place, _suffixed(kind, lengths), [values[:size] for size in sizes[first:past]])
            made += [next_key() if part is None else part for part in parts]
            place += 1
        return b"".join(made)


def _suffixed(kind: int, lengths: list[int]) -> list[int]:
    """The lengths of the keys as they are sent: a counter's key has its suffix."""
    return [length + len(COUNTER_SUFFIX) for length in lengths] if kind == INCR else lengths
