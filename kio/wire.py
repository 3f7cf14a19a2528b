"""The client protocol, version 2: length-prefixed msgpack over TCP or a Unix socket.

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
     0  hello         {"protocol": 2, "client": str            {"protocol", "server", "shards", "frame_bytes_max",
                       [, "user": str, "password": bin]}        "key_bytes_max", "value_bytes_max", "frame_keys_max"}
     1  get           ks, key [, options]                      value, or nil where the key is absent
     2  set           ks, key, value [, options]               true
     3  delete        ks, key [, options]                      true when the key was there
     4  exists        ks, key                                  true or false
     5  incr *        ks, key, delta                           the sum
     6  append *      ks, key, value                           the length of the value now
     7  expire *      ks, key, options                         true; false where the key is absent
     8  persist *     ks, key                                  true; false where the key is absent
     9  ttl *         ks, key                                  milliseconds left, -1 where it never expires, nil where
                                                                the key is absent
    17  get_many      ks, [key, ...]                           [value or nil, ...], in the order of the keys
    18  set_many      ks, [key, value, key, value, ...]        [true, ...], one for each pair
                       [, options]
    19  delete_many   ks, [key, ...]                           [true or false, ...]
    20  exists_many   ks, [key, ...]                           [true or false, ...]
    32  count         ks                                       number of keys
    33  clear         ks                                       number of keys removed
    34  scan          ks, cursor, prefix, limit, what          [next_cursor, [key, ...]]             what = 0
                                                               [next_cursor, [key, value, ...]]      what = 1
                                                               [next_cursor, [key, value, expire_at, ...]] what = 2 *
    35  stats         (none)                                   {...}: the same fields as `kio status --json`
    36  ping          payload (bin)                            the payload
    37  atomic *      ks, [[op, key, ...], ...]                [result, ...], one for each operation
    38  seal *        (none)                                   [{...}, ...], one for each shard: the point of a backup
    39  compact *     (none)                                   bytes that are dead; they are given back from now on
    * and options: since version 2.

    incr adds `delta`, an integer of 64 bits with sign, to the value: decimal text, as "-7" or "42" and nothing around
    it, of an integer of 64 bits; an absent key counts as 0. Anything else fails with NotAnInteger, a sum that does not
    fit with NumberOverflow. append puts bytes behind the value, an absent one counts as empty. Both keep the expiry.
    expire gives a record an expiry, persist takes it away; a time in the past deletes the record.
    atomic applies 1 to 1,024 operations of op 1 to 9, each with its arguments behind the keyspace, in their order and
    all or nothing, for readers and over a crash. All its keys must be of one shard, else BadRequest: keys that hold the
    same {tag} always are. Where an operation fails, the whole is answered with its error, whose message names the
    operation by its index (from 0); where a condition does not hold, with the status unmet. The frame is at most 8 MiB
    long, else FrameTooLarge.

    seal is for who copies the files of a running daemon (segments/backup.py): each map names the segments that hold a
    shard's state at one LSN, and the end of each that still grows. All shards are asked at one moment: what a client
    did after it saw the effect of a write on one shard is in no other shard's part without that write.

    Where a key stands twice in one batch, the operations apply in order (the last set wins).
    scan: `cursor` is bin, empty to begin; an empty `next_cursor` ends the scan. A page may be empty before the end, and
    holds about `limit` keys (1 to 65,536; a few more where hashes are alike) and about 8 MiB. A key that is there from
    the first page to the last is returned exactly once; one that comes or goes meanwhile may or may not be. Cursors
    stay valid across restarts.

Options     flags, then the arguments of those that have one, in the order of the flags. All are unsigned integers.
    flag               argument         operations              meaning
      1  TTL           milliseconds     set, set_many, expire   the record expires that long from now: 1 to 2**52
      2  EXPIRE_AT     milliseconds     set, set_many, expire   it expires then, counted from 1970: 1 to 2**53 - 1
      4  KEEP_TTL                       set, set_many           it keeps the expiry of the one it replaces
      8  IF_ABSENT                      set, set_many           only where the key is absent
     16  IF_PRESENT                     set, set_many           only where the key is there
     32  IF_VERSION    epoch, lsn       set, delete             only where the record is of that version
     64  WITH_OLD                       set, delete             the result is the value that was there, or nil
    128  WITH_VERSION                   get, set, delete        the result is a version
    At most one of 1, 2, 4, of 8, 16, 32 and of 64, 128. expire needs 1 or 2. A set without 1, 2, 4 clears the expiry.
    A version is [epoch, lsn, expire_at]: epoch and lsn name the record and are never given to another one of its key,
    expire_at is in milliseconds since 1970, 0 where it never expires. A get answers [value, epoch, lsn, expire_at] or
    nil; a set the version it made; a delete that of its own, or false where the key was absent.

Replies     [id, 0, result]                                    all of it succeeded
            [id, 1, result, [[index, code, message, maybe_applied], ...]]
                                                               some keys of a *_many failed; result holds nil there
            [id, 2, there]                                     unmet: a condition of a set or delete did not hold, or
                                                               there was no expiry to persist. Nothing was applied;
                                                               `there` is the version of what is there, or nil
            [id, 2, [index, there]]                            unmet, of an atomic: what operation `index` was answered
            [id, code, message, maybe_applied]                 code >= 16: it failed, see errors.py for the codes
    In a set_many a condition that did not hold gives false in the result.
    `maybe_applied` is true where a write may have been, or may still become, applied although it failed.
    Replies come in the order of the requests of that connection. A request that fails leaves the connection as it was.

Hello
    The first request of a connection is hello. The daemon answers with the version it will speak, at most the one asked
    for, or with ProtocolError when it speaks none of them, and closes. Anything before the hello is a protocol error.
    A daemon that has no room for another connection says so at once: Overloaded with request id 0, then it closes. A
    connection that sends no hello within 10 s is closed.

    Where the daemon has users, the hello says which and its password (bin or str; `user` left out is the user default);
    a wrong one, or none where one is needed, is answered NotAuthenticated, and the connection closed. So is each try
    while its address has to pause after many that failed. What a user may not do is answered NotPermitted and not
    applied, in a batch key by key, in an atomic as the error of the whole.
    Over TLS everything is as here; the port then speaks nothing else, and closes a connection too many without a word.

Versions
    1   the first.
    2   options, operations 5 to 9, 37 and 38, the status unmet, what = 2. Everything else is as in 1; a connection that
        was greeted with 1 is answered as a daemon of version 1 would: UnknownOperation, BadRequest.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

PROTOCOL_VERSION: Final = 2
#: The oldest that the daemon still answers with.
PROTOCOL_VERSION_MIN: Final = 1
DEFAULT_PORT: Final = 7400

OP_HELLO: Final = 0
OP_GET: Final = 1
OP_SET: Final = 2
OP_DELETE: Final = 3
OP_EXISTS: Final = 4
OP_INCR: Final = 5
OP_APPEND: Final = 6
OP_EXPIRE: Final = 7
OP_PERSIST: Final = 8
OP_TTL: Final = 9
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
OP_ATOMIC: Final = 37
OP_SEAL: Final = 38
OP_COMPACT: Final = 39
# Between a front door and a shard only.
#: A function of kio.commands on a key.
OP_APPLY: Final = 40
#: Take a checkpoint soon.
OP_CHECKPOINT: Final = 41
#: Nothing, but answered when all that was written before is on the disk.
OP_SYNC: Final = 42

TTL: Final = 1
EXPIRE_AT: Final = 2
KEEP_TTL: Final = 4
IF_ABSENT: Final = 8
IF_PRESENT: Final = 16
IF_VERSION: Final = 32
WITH_OLD: Final = 64
WITH_VERSION: Final = 128

STATUS_OK: Final = 0
STATUS_PARTIAL: Final = 1
STATUS_UNMET: Final = 2
#: Statuses from here on are error codes (errors.py).
STATUS_ERROR: Final = 16

SCAN_KEYS: Final = 0
SCAN_ITEMS: Final = 1
SCAN_RECORDS: Final = 2

LENGTH: Final = struct.Struct(">I")


def encode_frame(message: Any) -> bytes:
    """`message` (a list) as one frame."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    return LENGTH.pack(len(body)) + body
