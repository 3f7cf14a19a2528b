"""The codec of these tests: nothing is lost on the way, and what is no RESP is refused."""

from __future__ import annotations

import pytest

from tests.resp.resp_codec import (
    NULL,
    NULL_ARRAY,
    NULL_BULK,
    Array,
    Attributed,
    BigNumber,
    Boolean,
    BulkError,
    Decoder,
    Double,
    Error,
    Malformed,
    Map,
    Push,
    Reply,
    Set,
    Simple,
    Verbatim,
    command,
    encode,
)

EXAMPLES: tuple[tuple[bytes, Reply], ...] = (
    (b"+OK\r\n", Simple(b"OK")),
    (b"-ERR no\r\n", Error(b"ERR no")),
    (b":-9223372036854775808\r\n", -(2**63)),
    (b"$0\r\n\r\n", b""),
    (b"$4\r\n\r\n\0\xff\r\n", b"\r\n\0\xff"),
    (b"$-1\r\n", NULL_BULK),
    (b"*-1\r\n", NULL_ARRAY),
    (b"_\r\n", NULL),
    (b"*0\r\n", Array(())),
    (b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", Array((b"a", Array((1,))))),
    (b"#t\r\n", Boolean(True)),
    (b",1.5\r\n", Double(b"1.5")),
    (b",-inf\r\n", Double(b"-inf")),
    (b"(123456789012345678901234567890\r\n", BigNumber(123456789012345678901234567890)),
    (b"!5\r\nERR x\r\n", BulkError(b"ERR x")),
    (b"=8\r\ntxt:abcd\r\n", Verbatim(b"txt", b"abcd")),
    (b"%1\r\n+k\r\n:1\r\n", Map(((Simple(b"k"), 1),))),
    (b"~1\r\n:1\r\n", Set((1,))),
    (b">2\r\n+message\r\n$1\r\nx\r\n", Push((Simple(b"message"), b"x"))),
    (b"|1\r\n+ttl\r\n:9\r\n$1\r\nv\r\n", Attributed(Map(((Simple(b"ttl"), 9),)), b"v")),
)


@pytest.mark.parametrize(("wire", "reply"), EXAMPLES)
def test_every_type_is_read_and_written_alike(wire: bytes, reply: Reply) -> None:
    decoder = Decoder()
    decoder.feed(wire)
    assert decoder.take() == reply
    assert decoder.rest == b""
    assert encode(reply) == wire


@pytest.mark.parametrize(("wire", "reply"), EXAMPLES)
def test_a_reply_that_comes_byte_by_byte_is_read_when_its_last_byte_is_there(wire: bytes, reply: Reply) -> None:
    decoder = Decoder()
    for byte in wire[:-1]:
        decoder.feed(bytes([byte]))
        assert decoder.take() is None
    decoder.feed(wire[-1:])
    assert decoder.take() == reply


def test_no_two_types_are_equal() -> None:
    replies = [reply for _, reply in EXAMPLES] + [Simple(b""), b"OK", Error(b"OK"), Array((Simple(b"k"), 1)), Set(())]
    for index, one in enumerate(replies):
        assert all(one != other for other in replies[index + 1 :]), one
    assert BulkError(b"ERR x") != Error(b"ERR x")


@pytest.mark.parametrize(
    "wire",
    [
        b"OK\r\n",
        b"+OK\n",
        b"+O\rK\r\n",
        b":+1\r\n",
        b":01\r\n",
        b":-0\r\n",
        b":1 \r\n",
        b":9223372036854775808\r\n",
        b":\r\n",
        b"$-2\r\n",
        b"$3\r\nab\r\n\r\n",
        b"$1\r\nab\r\n",
        b"$?\r\n",
        b"*-2\r\n",
        b"*1x\r\n",
        b"#x\r\n",
        b"_x\r\n",
        b",1.\r\n",
        b",\r\n",
        b"(1.0\r\n",
        b"=3\r\nabc\r\n",
        b"*1\r\n" * 40,
    ],
)
def test_what_is_no_resp_is_refused(wire: bytes) -> None:
    decoder = Decoder()
    decoder.feed(wire)
    with pytest.raises(Malformed):
        decoder.take()


def test_a_command_is_an_array_of_bulk_strings() -> None:
    assert command("SET", b"\r\n", 7) == b"*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$1\r\n7\r\n"
