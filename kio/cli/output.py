"""What a verb prints: the answer on stdout, messages on stderr, and how bytes look to a person and in JSON.

Answers are written as bytes and in UTF-8 whatever the locale, so that a pipe gets the same everywhere. Colour and
tables for people come from rich, which keeps to NO_COLOR and leaves colour out where the stream is not a terminal.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

#: How wide a table may get: no cell is ever folded or cut, a terminal that is too narrow wraps whole lines.
_TABLE_COLUMNS: Final = 10_000
_NUMBER: Final = re.compile(r"[0-9,.]*")


def write(data: bytes) -> None:
    """`data` to stdout as it is; it may wait in the buffer until the verb ends."""
    sys.stdout.buffer.write(data)


def line(text: str) -> None:
    """One line of the answer."""
    write(text.encode("utf-8", "backslashreplace") + b"\n")


def as_json(answer: Any) -> None:
    """The answer of a verb that was asked for --json: one document, indented on a terminal."""
    line(json.dumps(answer, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=_hex))


def message(text: str) -> None:
    """One line for the person, on stderr; never part of the answer."""
    print(f"kio: {text}", file=sys.stderr, flush=True)


def escape(data: bytes) -> str:
    r"""Bytes as a person reads them: printable UTF-8 as it is, a backslash doubled, every other byte as \xNN.

    >>> escape("naïve".encode()), escape(b"a\\b"), escape(b"\xff\n")
    ('naïve', 'a\\\\b', '\\xff\\x0a')
    """
    return "".join(map(_escape_character, data.decode("utf-8", "surrogateescape")))


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def in_json(name: str, data: bytes | None) -> dict[str, str | None]:
    r"""Bytes as the two fields they take in JSON: `name`, null where they are not UTF-8, and `name`_base64.

    >>> in_json("key", b"a")
    {'key': 'a', 'key_base64': 'YQ=='}
    >>> in_json("key", b"\xff"), in_json("value", None)
    ({'key': None, 'key_base64': '/w=='}, {'value': None, 'value_base64': None})
    """
    if data is None:
        return {name: None, f"{name}_base64": None}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {name: text, f"{name}_base64": base64.b64encode(data).decode("ascii")}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; columns that hold numbers only are right-aligned. None is an empty cell."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    made = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None)
    made.collapse_padding, made.pad_edge = True, False
    for i, column in enumerate(columns):
        is_numbers = all(_NUMBER.fullmatch(row[i]) for row in cells)
        made.add_column(column, justify="right" if is_numbers else "left", no_wrap=True)
    for row in cells:
        made.add_row(*map(Text, row))
    Console(file=sys.stdout, width=_TABLE_COLUMNS, highlight=False).print(made)


def _hex(value: object) -> str:
    """Bytes inside a statistic: an identity, read as hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} cannot stand in JSON")
