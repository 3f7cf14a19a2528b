"""The cursor of a scan over all shards."""

from __future__ import annotations

import pytest

from kio.errors import BadRequest
from kio.router import cursor


@pytest.mark.parametrize(("shard", "within"), [(0, 0), (3, 1), (1_023, 2**64 - 1)])
def test_a_cursor_comes_back_as_it_went(shard: int, within: int) -> None:
    assert cursor.decode(cursor.encode(shard, within), 1_024) == (shard, within)


def test_an_empty_cursor_begins_with_the_first_shard() -> None:
    assert cursor.decode(b"", 4) == (0, 0)


@pytest.mark.parametrize(
    "wrong", [b"\x00", cursor.encode(4, 0), b"\x02" + cursor.encode(0, 0)[1:], cursor.encode(0, 0) + b"\x00"]
)
def test_what_is_no_cursor_of_this_daemon_is_a_bad_request(wrong: bytes) -> None:
    with pytest.raises(BadRequest, match="begin again"):
        cursor.decode(wrong, 4)
