from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from kio.errors import KeyEmpty, RequestError


@pytest.mark.parametrize("key", [1, None, bytearray(b"k"), memoryview(b"k"), ("k",)])
def test_a_key_that_is_neither_bytes_nor_str_is_a_type_error(db: Any, key: Any) -> None:
    for call in (db.get, db.delete, db.exists):
        with pytest.raises(TypeError, match="a key is bytes or str"):
            call(key)
    with pytest.raises(TypeError, match="a key is bytes or str"):
        db.set(key, b"v")
    for call in (db.get_many, db.delete_many, db.exists_many):
        with pytest.raises(TypeError, match="a key is bytes or str"):
            call([b"k", key])
    with pytest.raises(TypeError, match="a key is bytes or str"):
        db.set_many([(key, b"v")])
    with pytest.raises(TypeError, match="a key is bytes or str"):
        db.keys(key)
    if key is not None:
        with pytest.raises(TypeError, match="a pattern is bytes or str"):
            db.scan(match=key)


@pytest.mark.parametrize("value", ["text", 1, None, [b"v"]])
def test_a_value_that_is_not_bytes_like_is_a_type_error(db: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="a value is bytes, bytearray or memoryview"):
        db.set("k", value)
    with pytest.raises(TypeError, match="a value is bytes, bytearray or memoryview"):
        db.set_many({"a": b"fine", "k": value})
    with pytest.raises(TypeError, match="a value is bytes"):
        db.pipeline().set("k", value)
    assert db.count() == 0


def test_the_error_for_a_str_value_says_what_to_do(db: Any) -> None:
    with pytest.raises(TypeError, match=r"use \.encode\(\)"):
        db.set("k", "text")


@pytest.mark.parametrize("one", ["key", b"key", bytearray(b"key")])
def test_a_single_key_where_several_are_wanted_is_a_type_error(db: Any, one: Any) -> None:
    with pytest.raises(TypeError, match=r"get_many takes several keys.* use get$"):
        db.get_many(one)
    with pytest.raises(TypeError, match="delete_many takes several keys"):
        db.delete_many(one)
    with pytest.raises(TypeError, match="use set"):
        db.set_many(one)


@pytest.mark.parametrize("pairs", [["ab"], [b"ab"], [("a",)], [("a", b"1", b"x"), ("b",)], [{"a", "b"}], [1]])
def test_what_is_not_pairs_is_a_type_error(db: Any, pairs: Any) -> None:
    with pytest.raises(TypeError):
        db.set_many(pairs)
    assert db.count() == 0


def test_pairs_may_be_lists_and_named_tuples(db: Any) -> None:
    class Pair(NamedTuple):
        key: str
        value: bytes

    assert db.set_many([["a", b"1"], ("b", b"2"), Pair("c", b"3")]) == 3
    assert db.get_many("abc"[i] for i in range(3)) == {"a": b"1", "b": b"2", "c": b"3"}


def test_an_empty_key_is_refused_before_it_is_sent(db: Any, server: Any) -> None:
    for call in (db.get, db.delete, db.exists):
        with pytest.raises(KeyEmpty):
            call("")
    with pytest.raises(KeyEmpty):
        db.get_many(["k", b""])
    with pytest.raises(KeyEmpty):
        db.set_many({"": b"v"})
    assert server.requests == []


def test_a_str_that_has_no_utf8_form_is_a_unicode_error_and_the_client_works_on(db: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        db.get("\udcff")
    with pytest.raises(UnicodeEncodeError):
        db.get_many(["\udcff"])
    db.set("k", b"v")
    assert db.get("k") == b"v"


@pytest.mark.parametrize("limit", [0, -1, 65_537, True, "10"])
def test_a_page_has_1_to_65536_keys(db: Any, limit: Any) -> None:
    with pytest.raises(RequestError, match="a page of a scan holds"):
        db.scan(limit=limit)


def test_subclasses_of_str_and_bytes_are_keys(db: Any) -> None:
    class Name(str):
        __slots__ = ()

    class Blob(bytes):
        pass

    db.set_many({Name("a"): Blob(b"1"), Blob(b"b"): b"2"})
    assert db.get_many([Name("a"), "b"]) == {"a": b"1", "b": b"2"}
