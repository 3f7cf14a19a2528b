"""Commands on keys, on several of them, and on keyspaces."""

from __future__ import annotations

import random

import pytest

from kio import wire
from kio.commands.functions import REGISTER
from kio.commands.ops import Operation
from kio.commands.plans_keyspace import swapped_keyspaces
from kio.commands.replies import CommandError
from kio.commands.state import REMOVED, Outcome, State
from kio.errors import BadRequest, DiskFull
from kio.limits import EXPIRE_AT_MS_MAX, KEYSPACES, TTL_MS_MAX
from tests.commands.real_server import RealServer
from tests.commands.shard_model import Answer, Refused, ShardModel

NOW = 1_800_000_000_000


def filled(kio: ShardModel, count: int) -> set[bytes]:
    keys = {b"key:%d" % number for number in range(count)}
    for key in keys:
        kio("SET", key, "v")
    return keys


def scanned(kio: ShardModel, *words: str | int) -> tuple[list[bytes], int]:
    """All keys of a SCAN from beginning to end, and how many calls it took."""
    found: list[bytes] = []
    cursor = b"0"
    for calls in range(1, 1000):
        cursor, keys = kio("SCAN", cursor, *words)
        found += keys
        if cursor == b"0":
            return found, calls
    raise AssertionError("the scan does not end")


def test_msetex_writes_all_or_none(kio: ShardModel) -> None:
    assert kio("MSETEX", 2, "a", "1", "b", "2", "PX", 500) == 1
    assert kio.state(b"a") == kio.state(b"b")._replace(value=b"1") == State(b"1", NOW + 500)
    assert kio("MSETEX", 2, "b", "x", "c", "x", "NX") == 0
    assert kio("MSETEX", 2, "b", "x", "c", "x", "XX") == 0
    assert kio("MGET", "b", "c") == [b"2", None]
    assert kio("MSETEX", 2, "a", "3", "b", "4", "xx", "keepttl") == 1
    assert kio.state(b"b") == State(b"4", NOW + 500)
    assert kio("MSETEX", 2, "c", "5", "d", "6", "EX", 9, "NX") == 1
    assert kio.state(b"d") == State(b"6", NOW + 9000)
    assert kio("MSETEX", 1, "a", "7") == 1
    assert kio.state(b"a") == State(b"7")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("key1 val1 ex 10", "invalid numkeys value"),
        ("0 a 1", "invalid numkeys value"),
        ("-1 a 1", "invalid numkeys value"),
        ("2147483648 a 1", "invalid numkeys value"),
        ("2 a 1 b", "wrong number of key-value pairs"),
        ("1 a 1 FOO", "syntax error"),
        ("1 a 1 NX XX", "syntax error"),
        ("1 a 1 GET", "syntax error"),
        ("1 a 1 EX 10 KEEPTTL", "syntax error"),
        ("1 a 1 EX 0", "invalid expire time in 'msetex' command"),
        ("1 a", "wrong number of arguments for 'msetex' command"),
    ],
)
def test_msetex_refuses_what_is_wrong(words: str, text: str, kio: ShardModel) -> None:
    with pytest.raises(Refused, match=f"^ERR {text}$"):
        kio("MSETEX", *words.split())


def test_a_renamed_key_keeps_its_expiry(kio: ShardModel) -> None:
    kio("SET", "a", "1", "PXAT", NOW + 7)
    kio("SET", "b", "2")
    assert kio("RENAME", "a", "b") == "OK"
    assert kio.state(b"b") == State(b"1", NOW + 7)
    assert kio("RENAMENX", "b", "c") == 1
    assert kio("COPY", "c", "d") == 1
    assert kio.state(b"c") == kio.state(b"d") == State(b"1", NOW + 7)


def test_move_and_copy_reach_other_keyspaces(kio: ShardModel) -> None:
    kio("SET", "a", "1", "PXAT", NOW + 7)
    assert kio("COPY", "a", "b", "DB", 3) == 1
    assert kio("MOVE", "a", 3) == 1
    assert kio("DBSIZE") == 0
    kio.keyspace = 3
    assert kio.state(b"a") == kio.state(b"b") == State(b"1", NOW + 7)
    assert kio("COPY", "a", "a", "DB", 0) == 1
    assert kio("MOVE", "a", 0) == 0
    assert kio("FLUSHALL") == "OK"
    assert kio("DBSIZE") == 0
    kio.keyspace = 0
    assert kio("DBSIZE") == 0


def test_flushall_clears_only_keyspaces_that_hold_keys(kio: ShardModel) -> None:
    kio.keyspace = 9
    kio("SET", "a", "1")
    assert kio("FLUSHALL") == "OK"
    assert [len(operations) for operations in kio.moments] == [KEYSPACES, 1]
    assert kio("FLUSHALL") == "OK"
    assert len(kio.moments) == 1


def test_flushdb_leaves_other_keyspaces(kio: ShardModel) -> None:
    kio("SET", "a", "1")
    kio.keyspace = 1
    kio("SET", "b", "1")
    assert kio("FLUSHDB") == "OK"
    kio.keyspace = 0
    assert kio("KEYS", "*") == [b"a"]


def test_the_keyspaces_to_swap_are_two_of_those_that_there_are() -> None:
    assert swapped_keyspaces([b"SWAPDB", b"0", b"15"]) == (0, 15)
    assert swapped_keyspaces([b"swapdb", b"3", b"3"]) == (3, 3)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (b"x", b"0", "ERR invalid first DB index"),
        (b"x", b"y", "ERR invalid first DB index"),
        (b"99999999999", b"0", "ERR invalid first DB index"),
        (b"0", b"", "ERR invalid second DB index"),
        (b"16", b"1.5", "ERR invalid second DB index"),
        (b"16", b"0", "ERR DB index is out of range"),
        (b"0", b"-1", "ERR DB index is out of range"),
    ],
)
def test_what_is_no_keyspace_is_refused_as_redis_refuses_it(first: bytes, second: bytes, text: str) -> None:
    with pytest.raises(CommandError) as refused:
        swapped_keyspaces([b"SWAPDB", first, second])
    assert refused.value.text == text


@pytest.mark.parametrize("count", [1, 7, 10, 1000])
def test_a_scan_gives_every_key_once(count: int, kio: ShardModel) -> None:
    keys = filled(kio, 300)
    found, calls = scanned(kio, "COUNT", count)
    assert sorted(found) == sorted(keys)
    assert calls == 1 if count == 1000 else calls >= 300 / count


def test_a_scan_looks_at_about_count_keys_at_a_call(kio: ShardModel) -> None:
    filled(kio, 300)
    cursor, keys = kio("SCAN", 0, "COUNT", 20)
    assert len(keys) == 20
    assert cursor != b"0"
    _, keys = kio("SCAN", 0)
    assert len(keys) == 10


def test_a_scan_may_match_nothing_for_a_while(kio: ShardModel) -> None:
    filled(kio, 300)
    found, calls = scanned(kio, "MATCH", "*7", "COUNT", 10)
    assert sorted(found) == sorted(b"key:%d" % number for number in range(7, 300, 10))
    assert calls >= 30


def test_a_pattern_that_begins_with_text_is_looked_for_in_the_shards(kio: ShardModel) -> None:
    filled(kio, 300)
    found, _ = scanned(kio, "MATCH", "key:2?", "COUNT", 1000)
    assert len(found) == 10
    assert {operation.value[13:] for operations in kio.moments for operation in operations} == {b"key:2"}


def test_a_scan_of_other_types_ends_and_gives_nothing(kio: ShardModel) -> None:
    filled(kio, 100)
    assert scanned(kio, "TYPE", "hash", "COUNT", 30)[0] == []


@pytest.mark.parametrize("cursor", ["x", "", "-1", "1.5", " 1", str(4 << 40), "9" * 21])
def test_cursors_that_no_scan_gave_are_refused(cursor: str, kio: ShardModel) -> None:
    with pytest.raises(Refused, match=r"^ERR invalid cursor$"):
        kio("SCAN", cursor)


def test_keys_gives_all_that_match(kio: ShardModel) -> None:
    keys = filled(kio, 300)
    assert sorted(kio("KEYS", "*")) == sorted(keys)
    assert sorted(kio("KEYS", "key:[12]?")) == sorted(b"key:%d" % number for number in range(10, 30))
    assert kio("KEYS", "nothing*") == []


def test_keys_that_do_not_fit_into_a_reply_are_refused(kio: ShardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kio.commands.plans_keyspace.REPLY_BYTES_MAX", 100)
    filled(kio, 100)
    with pytest.raises(Refused, match="use SCAN"):
        kio("KEYS", "*")


def test_randomkey_comes_to_every_key(kio: ShardModel) -> None:
    keys = filled(kio, 8)
    assert {kio("RANDOMKEY") for _ in range(400)} == keys


def test_keys_without_bytes_and_those_too_long_are_refused(kio: ShardModel) -> None:
    with pytest.raises(Refused, match=r"^ERR a key has at least 1 byte$"):
        kio("GET", "")
    with pytest.raises(Refused, match=r"^ERR a key has at most 65535 bytes$"):
        kio("GET", "k" * 65_536)


@pytest.mark.parametrize(
    "words", ["MSET a 1 {} 2", "MSETNX a 1 {} 2", "MSETEX 2 a 1 {} 2", "DEL old {}", "RENAME old {}"]
)
@pytest.mark.parametrize("key", ["", "k" * 65_536])
def test_a_wrong_key_among_several_leaves_the_others_as_they_were(words: str, key: str, kio: ShardModel) -> None:
    kio("SET", "old", "1")
    with pytest.raises(Refused, match=r"^ERR a key has at"):
        kio(*(word.format(key) for word in words.split(" ")))
    assert kio("MGET", "old", "a") == [b"1", None]


@pytest.mark.parametrize(
    ("state", "when", "conditions", "outcome"),
    [
        (None, NOW + 1, [], Outcome(False)),
        (State(b"v"), NOW + 1, [], Outcome(True, State(b"v", NOW + 1))),
        (State(b"v"), NOW, [], Outcome(True, REMOVED)),
        (State(b"v", NOW + 5), NOW + 5, [], Outcome(True, None)),
        (State(b"v", NOW + 5), NOW + 5, ["GT"], Outcome(False)),
        (State(b"v", NOW + 5), NOW + 5, ["LT"], Outcome(False)),
        (State(b"v", NOW + 5), 0, ["LT"], Outcome(True, REMOVED)),
        (State(b"v"), NOW + 5, ["GT"], Outcome(False)),
        (State(b"v"), NOW + 5, ["LT"], Outcome(True, State(b"v", NOW + 5))),
        (State(b"v"), NOW + 5, ["XX", "LT"], Outcome(False)),
    ],
)
def test_an_expiry_is_given_where_its_conditions_hold(
    state: State | None, when: int, conditions: list[str], outcome: Outcome
) -> None:
    assert REGISTER.call("expire_at", state, NOW, [when, conditions]) == outcome


def test_conditions_that_are_none_are_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="there is no condition"):
        REGISTER.call("expire_at", State(b""), NOW, [1, ["EQ"]])


def test_times_beyond_those_that_kio_can_say_are_its_last_and_beyond_64_bits_are_refused(kio: ShardModel) -> None:
    kio("SET", "a", "1")
    assert kio("PEXPIREAT", "a", EXPIRE_AT_MS_MAX) == 1
    assert kio("PEXPIRE", "a", TTL_MS_MAX) == 1
    for words in (
        ("PEXPIREAT", "a", EXPIRE_AT_MS_MAX + 1),
        ("PEXPIRE", "a", EXPIRE_AT_MS_MAX),
        ("EXPIRE", "a", 1 << 44),
    ):
        assert kio(*words) == 1
        assert kio.state(b"a").expire_at_ms in (EXPIRE_AT_MS_MAX, NOW + TTL_MS_MAX)
    for words in (("EXPIREAT", "a", 1 << 54), ("PEXPIRE", "a", (1 << 63) - 1), ("EXPIRE", "a", (1 << 63) // 1000)):
        with pytest.raises(Refused, match=f"^ERR invalid expire time in '{words[0].lower()}' command$"):
            kio(*words)


def test_an_unconditional_expiry_is_the_kernels_own(kio: ShardModel) -> None:
    kio("SET", "a", "1")
    for words in (("EXPIRE", "a", 5), ("PEXPIREAT", "a", NOW + 5)):
        kio(*words)
        assert [operation.op for operation in kio.moments[0]] == [wire.OP_EXPIRE]


def test_scripts_of_chance_end_alike_on_a_real_server(redis: RealServer, kio: ShardModel) -> None:
    """Many keys' comings and goings, with no expiry that could pass meanwhile, and none that goes by the moment."""
    chance = random.Random(11)
    soon, later = 4_000_000_000, 4_000_001_000
    keys = ["a", "b", "c", "d"]
    for _ in range(1500):
        one, other = chance.choice(keys), chance.choice(keys)
        words = chance.choice(
            (
                ["SET", one, chance.randrange(100), *chance.choice((["NX"], ["XX", "GET"], ["GET"], ["EXAT", soon]))],
                ["DEL", one, other],
                ["RENAME", one, other],
                ["RENAMENX", one, other],
                ["COPY", one, other, *chance.choice((["REPLACE"], []))],
                ["MSETNX", one, 1, other, 2],
                ["EXPIREAT", one, chance.choice((1, soon, later)), *chance.choice((["GT"], ["LT"], ["NX"], []))],
                ["PERSIST", one],
                ["GETDEL", one],
                ["APPEND", one, "1"],
                ["INCRBY", one, 7],
                ["SETRANGE", one, chance.randrange(4), "5"],
                ["EXPIRETIME", one],
            )
        )
        answers = []
        for server in (redis, kio):
            try:
                answers.append(server(*words))
            except Refused as error:
                answers.append(str(error))
        assert answers[0] == answers[1], words


def test_keys_are_gathered_page_by_page(kio: ShardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kio.commands.plans_keyspace._KEYS_PAGE", 7)
    keys = filled(kio, 300)
    assert sorted(kio("KEYS", "*")) == sorted(keys)
    assert len(kio.moments) > 5


@pytest.mark.parametrize(
    "words", [("RENAME", "a", "b"), ("RENAMENX", "a", "b"), ("MOVE", "a", 1)], ids=lambda words: words[0]
)
def test_what_cannot_be_written_under_its_new_key_stays_under_the_old(
    kio: ShardModel, monkeypatch: pytest.MonkeyPatch, words: tuple[str | int, ...]
) -> None:
    kio("SET", "a", "v")
    apply = ShardModel._apply

    def full(model: ShardModel, operation: Operation, keyspace: int) -> Answer:
        if operation.op == wire.OP_SET:
            raise DiskFull
        return apply(model, operation, keyspace)

    with monkeypatch.context() as patched:
        patched.setattr(ShardModel, "_apply", full)
        with pytest.raises(Refused, match="MISCONF"):
            kio(*words)
    assert kio("GET", "a") == b"v"
    assert kio(*words) in ("OK", 1)
    assert kio("EXISTS", "a") == 0


def test_keys_of_one_tag_are_renamed_in_one_moment_as_a_shard_makes_it_atomic(kio: ShardModel) -> None:
    kio("MSET", "{t}:a", "v", "a", "v")
    kio("RENAME", "{t}:a", "{t}:b")
    assert [len(moment) for moment in kio.moments] == [2, 2]
    kio("RENAME", "a", "b")
    assert [len(moment) for moment in kio.moments] == [2, 1, 1]
