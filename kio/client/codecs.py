"""Values that are more than bytes: what a client makes of them on their way in and out.

    bytes     as they are: bytes, bytearray, memoryview in, bytes out (what a client does unless told otherwise)
    str       UTF-8 text
    json      what JSON holds, as short as it goes: no NaN, no infinity
    msgpack   what msgpack holds: as JSON, and bytes; keys of maps may be anything that can be hashed

A codec of one's own is any object with `encode(value) -> bytes` and `decode(bytes) -> value`. A codec sees values only:
keys, `incr` and `append` stay bytes. Nothing here reads pickles: what a pickle holds can run code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import msgpack

from kio.client import arguments
from kio.client.arguments import Key
from kio.errors import NotDecodable


@runtime_checkable
class Codec(Protocol):
    """Values to bytes and back."""

    def encode(self, value: Any, /) -> bytes:
        """The bytes that stand for `value`; it raises what it likes where there are none."""

    def decode(self, data: bytes, /) -> Any:
        """The value that `data` stands for; it raises what it likes where there is none."""


class Text:
    """`str`."""

    name = "str"

    def encode(self, value: Any, /) -> bytes:
        """UTF-8."""
        if not isinstance(value, str):
            raise TypeError(f"the codec str takes str, not {type(value).__name__}")
        return value.encode()

    def decode(self, data: bytes, /) -> str:
        """The text."""
        return data.decode()


class Json:
    """`json`."""

    name = "json"

    def encode(self, value: Any, /) -> bytes:
        """JSON in UTF-8, without spaces."""
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def decode(self, data: bytes, /) -> Any:
        """What the JSON says."""
        return json.loads(data.decode())


class Msgpack:
    """`msgpack`."""

    name = "msgpack"

    def encode(self, value: Any, /) -> bytes:
        """One msgpack object."""
        data: bytes = msgpack.packb(value, use_bin_type=True)
        return data

    def decode(self, data: bytes, /) -> Any:
        """What the object holds; arrays come as lists."""
        return msgpack.unpackb(data, raw=False, strict_map_key=False)


#: name -> codec; None leaves values as they are.
CODECS: Final[dict[str, Codec | None]] = {"bytes": None, "str": Text(), "json": Json(), "msgpack": Msgpack()}


class Space(NamedTuple):
    """Where the keys of a client live, and what its values are."""

    keyspace: int
    codec: Codec | None = None

    def encoded(self, value: Any) -> bytes | bytearray | memoryview:
        """`value` as it is stored.

        Raises:
            TypeError: when it is not bytes-like and there is no codec, or the codec makes nothing bytes-like of it.
        """
        return arguments.value(value if self.codec is None else self.codec.encode(value))

    def decoded(self, key: Key, data: bytes, *, is_applied: bool = False) -> Any:
        """What `data`, the value of `key`, stands for; `is_applied` says that it was replaced or removed already.

        Raises:
            NotDecodable: when the codec makes nothing of it.
        """
        if self.codec is None:
            return data
        try:
            return self.codec.decode(data)
        except Exception as error:  # noqa: BLE001 - a codec may raise what it likes
            name = getattr(self.codec, "name", type(self.codec).__name__)
            why = f"the value of {key!r:.80} is not what the codec {name} takes: {type(error).__name__}"
        # Without its cause: what a decoder says, and what its traceback holds, may quote the value.
        raise NotDecodable(why, maybe_applied=is_applied)

    def reader(self, key: Key, *, is_applied: bool = False) -> Callable[[Any], Any] | None:
        """What makes the caller's result of a reply that is the value of `key` or None; None where nothing must."""
        if self.codec is None:
            return None
        return lambda data: None if data is None else self.decoded(key, data, is_applied=is_applied)
