"""Commands on all keys of a keyspace, or on keyspaces.

A cursor of SCAN says the shard in its upper bits, and in its lower ones where in the shard to go on.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from kio.commands import ops
from kio.commands.arguments import integer, syntax_error
from kio.commands.ops import Plan
from kio.commands.plans_keys import integer_of_32_bits, keyspace_number
from kio.commands.replies import OK, CommandError, Context
from kio.glob import Glob
from kio.limits import KEYSPACES, MIB, REPLY_BYTES_MAX

#: Bits of a cursor that belong to the shard itself.
WITHIN_BITS: Final = 40
#: The pages of one SCAN, however few keys they hold; a page looks at no more than 16,384 keys.
PAGES_MAX: Final = 16
PAGE_KEYS_MAX: Final = 65_536
_COUNT_DEFAULT: Final = 10
_CURSOR: Final = re.compile(rb"[0-9]{1,20}")
#: Cursors that a shard gives are below it.
_PLACES: Final = 1 << 29
_KEYS_PAGE: Final = 4_096
_RANDOM_PAGE: Final = 16


def scan(args: list[bytes], context: Context) -> Plan:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]"""
    shard, within = _parse_cursor(args[1], context.shards)
    pattern, count, is_string = scan_options(args[2:])
    glob = Glob(pattern)
    keys: list[bytes] = []
    seen = pages = 0
    while shard < context.shards and seen < count and pages < PAGES_MAX:
        limit = min(count - seen, PAGE_KEYS_MAX)
        ((within, page),) = yield [ops.scan(shard, within, limit, glob.prefix)]
        seen += len(page)
        pages += 1
        keys += page if glob.is_all else filter(glob.matches, page)
        if not within:
            shard += 1
    following = 0 if shard == context.shards else shard << WITHIN_BITS | within
    return [b"%d" % following, keys if is_string else []]


def _parse_cursor(text: bytes, shards: int) -> tuple[int, int]:
    if not _CURSOR.fullmatch(text):
        raise CommandError("ERR invalid cursor")
    shard, within = divmod(int(text), 1 << WITHIN_BITS)
    if shard >= shards:
        raise CommandError("ERR invalid cursor")
    return shard, within


def scan_options(words: list[bytes]) -> tuple[bytes, int, bool]:
    """(pattern, count, whether strings are asked for) of what stands behind the cursor of SCAN.

    Raises:
        CommandError: when it is something else.
    """
    pattern, count, is_string = b"*", _COUNT_DEFAULT, True
    rest = iter(words)
    for word in rest:
        option = word.upper()
        argument = next(rest, None)
        if argument is None:
            raise syntax_error()
        if option == b"COUNT":
            count = integer(argument)
            if count < 1:
                raise syntax_error()
        elif option == b"MATCH":
            pattern = argument
        elif option == b"TYPE":
            is_string = argument.lower() == b"string"
        else:
            raise syntax_error()
    return pattern, count, is_string


def keys(args: list[bytes], context: Context) -> Plan:
    """KEYS pattern"""
    glob = Glob(args[1])
    found: list[bytes] = []
    size = 0
    cursors = dict.fromkeys(range(context.shards), 0)
    while cursors:
        pages = yield [ops.scan(shard, within, _KEYS_PAGE, glob.prefix) for shard, within in cursors.items()]
        following = {}
        for shard, (within, page) in zip(cursors, pages, strict=True):
            matching = page if glob.is_all else list(filter(glob.matches, page))
            found += matching
            size += sum(map(len, matching))
            if within:
                following[shard] = within
        if size > REPLY_BYTES_MAX:
            raise CommandError(f"ERR the keys that match take more than {REPLY_BYTES_MAX // MIB} MiB; use SCAN")
        cursors = following
    return found


def randomkey(args: list[bytes], context: Context) -> Plan:
    """RANDOMKEY"""
    first = secrets.randbelow(context.shards)
    for step in range(context.shards):
        shard = (first + step) % context.shards
        # From somewhere to the end; where nothing is there, from the beginning.
        for within in (1 + secrets.randbelow(_PLACES), 0):
            is_begun = False
            while within or not is_begun:
                is_begun = True
                ((within, page),) = yield [ops.scan(shard, within, _RANDOM_PAGE)]
                if page:
                    return secrets.choice(page)
    return None


def dbsize(args: list[bytes], context: Context) -> Plan:
    """DBSIZE"""
    (number,) = yield [ops.count()]
    return number


def flushdb(args: list[bytes], context: Context) -> Plan:
    """FLUSHDB [ASYNC | SYNC]"""
    _check_flush(args)
    yield [ops.clear()]
    return OK


def flushall(args: list[bytes], context: Context) -> Plan:
    """FLUSHALL [ASYNC | SYNC]"""
    _check_flush(args)
    counts = yield [ops.count(keyspace) for keyspace in range(KEYSPACES)]
    # To clear costs a record in every shard's log, and a walk through its keys.
    kept = [ops.clear(keyspace) for keyspace, count in enumerate(counts) if count]
    if kept:
        yield kept
    return OK


def _check_flush(args: list[bytes]) -> None:
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise syntax_error()


def swapped_keyspaces(args: list[bytes]) -> tuple[int, int]:
    """The keyspaces of SWAPDB index1 index2.

    Raises:
        CommandError: when there are none of these numbers.
    """
    refusals = ("ERR invalid first DB index", "ERR invalid second DB index")
    for text, refusal in zip(args[1:], refusals, strict=True):
        integer_of_32_bits(text, refusal)
    first, second = map(keyspace_number, args[1:])
    return first, second
