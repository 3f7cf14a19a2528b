"""JSON objects and records: which field is the key, and what stands for a value that is no JSON object.

A value that is no JSON object, or would come back as something else, is wrapped: an object with exactly the fields
`key` (or `key_base64` where the key is not UTF-8) and `value_base64`. So is the value of a record that expires: then
there is `expire_at` too, in seconds since 1970. import unwraps such an object wherever it meets one, so that what
export wrote comes back byte for byte. Keys are at least one byte, so an empty value is told from no value.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from kio.cli import output
from kio.limits import EXPIRE_AT_MS_MAX

KEY_BASE64: Final = "key_base64"
VALUE_BASE64: Final = "value_base64"
EXPIRE_AT: Final = "expire_at"

Fields = dict[str, Any]


def parse(data: bytes) -> Fields:
    """The object that `data` is.

    Raises:
        ValueError: when it is not UTF-8, not JSON, or not an object; the text says which.
    """
    try:
        found = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def key_of(fields: Fields, field: str) -> bytes:
    """The key that an object's `field` is: a text, or a whole number in decimal.

    Raises:
        ValueError: when the field is missing, empty, or something else.
    """
    if field not in fields:
        raise ValueError(f'there is no field "{field}"')
    found = fields[field]
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise ValueError(f'the field "{field}" is neither a text nor a whole number')
    try:
        return str(found).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f'the field "{field}" is not UTF-8') from None


def has_key(fields: Fields, field: str, key: bytes) -> bool:
    """Whether an import by `field` would give these fields this key."""
    try:
        return key_of(fields, field) == key
    except ValueError:
        return False


def wrap(key: bytes, value: bytes, expire_at: float | None = None) -> Fields:
    """The object that stands for a value that is none, or for a record that expires."""
    names = output.in_json("key", key)
    name = "key" if names["key"] is not None else KEY_BASE64
    fields: Fields = {name: names[name], VALUE_BASE64: base64.b64encode(value).decode("ascii")}
    return fields if expire_at is None else fields | {EXPIRE_AT: expire_at}


def is_wrapped(fields: Fields) -> bool:
    """Whether this is an object that `wrap` makes."""
    others = fields.keys() - {EXPIRE_AT}
    return others in ({"key", VALUE_BASE64}, {KEY_BASE64, VALUE_BASE64})


def unwrap(fields: Fields) -> tuple[bytes, bytes, float | None]:
    """The key, value and expiry that `wrap` was given.

    Raises:
        ValueError: when a field is not the base64 it should be, or the expiry no moment.
    """
    key = key_of(fields, "key") if "key" in fields else _decode(fields, KEY_BASE64)
    return key, _decode(fields, VALUE_BASE64), moment(fields.get(EXPIRE_AT))


def moment(found: object) -> float | None:
    """An expiry, None for none.

    Raises:
        ValueError: when it is not a number of seconds since 1970 that an expiry can be.
    """
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0.001 <= found <= EXPIRE_AT_MS_MAX / 1000:
        raise ValueError(f'the field "{EXPIRE_AT}" is not a number of seconds since 1970')
    return found


def _decode(fields: Fields, name: str) -> bytes:
    try:
        return base64.b64decode(fields[name], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f'the field "{name}" is not base64') from None
