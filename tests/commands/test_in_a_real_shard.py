"""Plans over the kernel itself: the flags and arguments of their operations are those it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.shard_model import ShardModel
from tests.commands.stored_shard import StoredShard
from tests.commands.test_same_as_redis import SCRIPTS, answer, words_of


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[StoredShard]:
    shard = StoredShard(tmp_path)
    yield shard
    shard.close()


@pytest.mark.parametrize(("name", "lines"), SCRIPTS, ids=[f"{name}-{lines[0]}" for name, lines in SCRIPTS])
def test_a_real_shard_answers_as_the_model_does(
    name: str, lines: list[str], stored: StoredShard, kio: ShardModel
) -> None:
    for line in lines:
        words = words_of(line)
        assert answer(stored, words) == answer(kio, words), line


def test_scans_of_a_real_shard_give_every_key_once(stored: StoredShard) -> None:
    keys = sorted(b"key:%d" % number for number in range(500))
    for key in keys:
        stored("SET", key, "v")
    assert sorted(stored("KEYS", "*")) == keys
    found = []
    cursor = b"0"
    for _ in range(100):
        cursor, page = stored("SCAN", cursor, "COUNT", 20)
        found += page
        if cursor == b"0":
            break
    assert sorted(found) == keys
    assert stored("SCAN", 0, "MATCH", "key:49[78]", "COUNT", 10)[1] in (
        [b"key:497", b"key:498"],
        [b"key:498", b"key:497"],
    )
    assert len({stored("RANDOMKEY") for _ in range(100)}) > 20


def test_every_way_to_set_and_to_expire_is_taken(stored: StoredShard) -> None:
    now = stored.now_ms
    for words, expected, expire_at_ms in (
        ("SET a 1 PX 50 GET", None, now + 50),
        ("SET a 2 KEEPTTL GET", b"1", now + 50),
        ("SET a 3 XX KEEPTTL", "OK", now + 50),
        ("SET a 4 IFEQ 3 KEEPTTL", "OK", now + 50),
        (f"SET a 5 XX PXAT {now + 9}", "OK", now + 9),
        ("SET a 6 NX EX 5", None, now + 9),
        ("PEXPIRE a 70 GT", 1, now + 70),
        (f"PEXPIREAT a {now + 80}", 1, now + 80),
        ("EXPIRE a 1", 1, now + 1000),
        ("GETEX a PX 30", b"5", now + 30),
        ("MSETEX 1 a 7 KEEPTTL", 1, now + 30),
        ("MSETEX 1 a 8 XX PX 20", 1, now + 20),
        ("INCR a", 9, now + 20),
        ("SETRANGE a 0 7", 1, now + 20),
        ("RENAME a a", "OK", now + 20),
        ("PERSIST a", 1, 0),
    ):
        assert stored(*words.split()) == expected, words
        state = stored.state(b"a")
        assert state is not None, words
        assert state.expire_at_ms == expire_at_ms, words


def test_keys_go_to_other_keyspaces_and_back(stored: StoredShard) -> None:
    stored("SET", "a", "1", "PX", 500)
    state = stored.state(b"a")
    assert stored("COPY", "a", "b", "DB", 15) == 1
    assert stored("MOVE", "a", 15) == 1
    assert stored("DBSIZE") == 0
    stored.keyspace = 15
    assert stored.state(b"a") == stored.state(b"b") == state
    assert stored("FLUSHALL") == "OK"
    assert stored("DBSIZE") == 0
