"""The client protocol, version 1: length-prefixed msgpack over TCP or a Unix socket.

This docstring is the protocol's only description; a client in another language can be written from it.

Framing
    Every message, both ways, is a frame: a 4-byte big-endian length N, then N bytes that hold exactly one msgpack
    array. A frame is at most `frame_bytes_max` long (told in the hello's answer; 4 KiB before the hello). A longer one
    is skipped and answered with FrameTooLarge (its request id is read from its first bytes); one longer than 256 MiB,
    or one that is not a msgpack array, is a protocol error: the daemon answers with request id 0 and closes the
    connection.

Requests    [id, op, deadline_ms, ...arguments]
    id           unsigned integer below 2**63, chosen by the client; the reply carries it. Unique among the requests
                 that the client has in flight; the daemon does not check that.
    op           unsigned integer, see the table.
    deadline_ms  the time that is left for the whole request, counted from its arrival; 0 is none. Past it the daemon
                 answers Timeout; an operation that has not reached its worker by then is not executed.

    Keys and values are msgpack bin or str; the daemon sees only their bytes, and always answers bin. `ks` is the
    keyspace, 0 to 255 (0 unless the user asks for another).

    op  name          arguments                                result
     0  hello         {"protocol": 1, "client": str}           {"protocol", "server", "shards", "frame_bytes_max",
                                                                "key_bytes_max", "value_bytes_max", "frame_keys_max"}
     1  get           ks, key                                  value, or nil where the key is absent
     2  set           ks, key, value                           true
     3  delete        ks, key                                  true when the key was there
     4  exists        ks, key                                  true or false
    17  get_many      ks, [key, ...]                           [value or nil, ...], in the order of the keys
    18  set_many      ks, [key, value, key, value, ...]        [true, ...], one for each pair
    19  delete_many   ks, [key, ...]                           [true or false, ...]
    20  exists_many   ks, [key, ...]                           [true or false, ...]
    32  count         ks                                       number of keys
    33  clear         ks                                       number of keys removed
    34  scan          ks, cursor, prefix, limit, what          [next_cursor, [key, ...]]             what = 0
                                                               [next_cursor, [key, value, ...]]      what = 1
    35  stats         (none)                                   {...}: the same fields as `kio status --json`
    36  ping          payload (bin)                            the payload

    Where a key stands twice in one batch, the operations apply in order (the last set wins).
    scan: `cursor` is bin, empty to begin; an empty `next_cursor` ends the scan. A page may be empty before the end, and
    holds about `limit` keys (1 to 65,536; a few more where hashes are alike) and about 8 MiB. A key that is there from
    the first page to the last is returned exactly once; one that comes or goes meanwhile may or may not be. Cursors
    stay valid across restarts.

Replies     [id, 0, result]                                    all of it succeeded
            [id, 1, result, [[index, code, message, maybe_applied], ...]]
                                                               some keys of a *_many failed; result holds nil there
            [id, code, message, maybe_applied]                 code >= 16: it failed, see errors.py for the codes
    `maybe_applied` is true where a write may have been, or may still become, applied although it failed.
    Replies come in the order of the requests of that connection. A request that fails leaves the connection as it was.

Hello
    The first request of a connection is hello. The daemon answers with the version it will speak, at most the one asked
    for, or with ProtocolError when it speaks none of them, and closes. Anything before the hello is a protocol error.
    A daemon that has no room for another connection says so at once: Overloaded with request id 0, then it closes. A
    connection that sends no hello within 10 s is closed.

Versions
    1   the first.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

PROTOCOL_VERSION: Final = 1
DEFAULT_PORT: Final = 7400

OP_HELLO: Final = 0
OP_GET: Final = 1
OP_SET: Final = 2
OP_DELETE: Final = 3
OP_EXISTS: Final = 4
#: A batch operation's number is its single operation's plus this.
OP_MANY: Final = 16
OP_GET_MANY: Final = OP_GET + OP_MANY
OP_SET_MANY: Final = OP_SET + OP_MANY
OP_DELETE_MANY: Final = OP_DELETE + OP_MANY
OP_EXISTS_MANY: Final = OP_EXISTS + OP_MANY
OP_COUNT: Final = 32
OP_CLEAR: Final = 33
OP_SCAN: Final = 34
OP_STATS: Final = 35
OP_PING: Final = 36

STATUS_OK: Final = 0
STATUS_PARTIAL: Final = 1
#: Statuses from here on are error codes (errors.py).
STATUS_ERROR: Final = 16

SCAN_KEYS: Final = 0
SCAN_ITEMS: Final = 1

LENGTH: Final = struct.Struct(">I")


def encode_frame(message: Any) -> bytes:
    """`message` (a list) as one frame."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    return LENGTH.pack(len(body)) + body
