"""Op batches and replies: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio import opbatch
from kio.errors import Corrupt, ProtocolError, ShardDown
from kio.opbatch import (
    BATCH_MAGIC,
    HEADER,
    MAYBE_APPLIED,
    REPLIES_MAGIC,
    Operation,
    Reply,
    decode_batch,
    decode_header,
    decode_replies,
    encode_batch,
    encode_replies,
)

U8, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
OPERATIONS = st.lists(
    st.builds(Operation, U8, st.binary(max_size=40), st.binary(max_size=40), U64, U8, U32, U32), max_size=8
)
REPLIES = st.lists(st.builds(Reply, U32, U8, st.binary(max_size=40)), max_size=8)


@given(operations=OPERATIONS, shard=U32, batch_id=U64)
def test_a_batch_is_read_back_as_it_was_written(operations: list[Operation], shard: int, batch_id: int) -> None:
    message = encode_batch(shard, batch_id, operations)
    assert decode_header(message, BATCH_MAGIC) == (shard, batch_id, len(operations))
    assert decode_batch(message) == operations


@given(replies=REPLIES, shard=U32, batch_id=U64)
def test_replies_are_read_back_as_they_were_written(replies: list[Reply], shard: int, batch_id: int) -> None:
    message = encode_replies(shard, batch_id, replies)
    assert decode_header(message, REPLIES_MAGIC) == (shard, batch_id, len(replies))
    assert decode_replies(message) == replies


@given(operations=OPERATIONS.filter(bool), data=st.data())
def test_a_batch_cut_anywhere_is_refused(operations: list[Operation], data: st.DataObject) -> None:
    message = encode_batch(0, 1, operations)
    with pytest.raises(ProtocolError):
        decode_batch(message[: data.draw(st.integers(0, len(message) - 1))])


@given(replies=REPLIES.filter(bool), data=st.data())
def test_replies_cut_anywhere_are_refused(replies: list[Reply], data: st.DataObject) -> None:
    message = encode_replies(0, 1, replies)
    with pytest.raises(ProtocolError):
        decode_replies(message[: data.draw(st.integers(0, len(message) - 1))])


@given(junk=st.binary(max_size=200), count=U32)
def test_junk_behind_a_valid_header_never_reads_past_its_end(junk: bytes, count: int) -> None:
    for magic, decode in ((BATCH_MAGIC, decode_batch), (REPLIES_MAGIC, decode_replies)):
        with suppress(ProtocolError):
            assert len(decode(HEADER.pack(magic, 0, 0, count, 0) + junk)) == count


def test_a_batch_is_not_taken_for_replies_nor_replies_for_a_batch() -> None:
    with pytest.raises(ProtocolError, match="not 31524f4b"):
        decode_replies(encode_batch(0, 0, []))
    with pytest.raises(ProtocolError, match="not 31424f4b"):
        decode_batch(encode_replies(0, 0, []))


def test_the_layout_is_the_documented_one() -> None:
    message = encode_batch(3, 5, [Operation(2, b"key", b"value", 0x1122334455667788, 9, 77)])
    assert message == (
        b"KOB1"
        + bytes([3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
        + bytes([2, 9, 3, 0, 5, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 77, 0, 0, 0, 0, 0, 0, 0])
        + b"keyvalue"
    )
    message = encode_replies(3, 5, [Reply(258, 1, b"value")])
    assert message == (
        b"KOR1"
        + bytes([3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
        + bytes([2, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0])
        + b"value"
    )


def test_a_reply_knows_its_error_and_whether_the_write_may_have_been_applied() -> None:
    assert Reply(0, opbatch.VALUE, b"v").error() is None
    down = Reply(0, ShardDown.code | MAYBE_APPLIED, b"").error()
    assert isinstance(down, ShardDown)
    assert down.maybe_applied
    assert str(down) == ShardDown.text
    corrupt = Reply(0, Corrupt.code, "segment 42 \N{EM DASH} broken".encode() + b"\xff").error()
    assert isinstance(corrupt, Corrupt)
    assert not corrupt.maybe_applied
    assert str(corrupt) == "segment 42 \N{EM DASH} broken\N{REPLACEMENT CHARACTER}"


def test_a_deadlines_clock_fits_its_field_and_is_never_the_number_that_means_none() -> None:
    assert 1 <= opbatch.monotonic_ms() < 2**32
