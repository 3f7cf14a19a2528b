from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kio
from kio import wire
from kio.client import Client
from kio.errors import KeyEmpty
from tests.client.reference import ReferenceServer, reference_server


@pytest.fixture
def db(server: ReferenceServer) -> Iterator[Client]:
    with kio.connect(server.url) as db:
        yield db


def test_it_is_a_mutable_mapping_of_the_whole_keyspace(db: Client) -> None:
    m = db.mapping()
    assert isinstance(m, MutableMapping)
    assert not m
    m["a"] = b"1"
    m[b"b"] = bytearray(b"2")
    assert m
    assert m["a"] == m[b"a"] == b"1"
    assert len(m) == 2
    assert sorted(m) == [b"a", b"b"]
    assert "a" in m
    assert b"c" not in m
    assert 1 not in m
    assert b"" not in m
    assert dict(m) == {b"a": b"1", b"b": b"2"}
    assert m == {b"a": b"1", b"b": b"2"}
    del m["a"]
    assert dict(m.items()) == {b"b": b"2"}
    assert db.get("b") == b"2"


def test_what_is_absent_is_a_key_error(db: Client) -> None:
    m = db.mapping()
    with pytest.raises(KeyError, match="absent"):
        m["absent"]
    with pytest.raises(KeyError, match="absent"):
        del m["absent"]
    with pytest.raises(KeyError):
        m.pop("absent")
    with pytest.raises(KeyError):
        m.popitem()
    assert m.get("absent") is None
    assert m.get("absent", b"default") == b"default"
    assert m.pop("absent", None) is None


def test_wrong_types_are_type_errors_as_in_the_client(db: Client) -> None:
    m = db.mapping()
    with pytest.raises(TypeError):
        m[1]
    with pytest.raises(TypeError):
        m["k"] = "text"
    with pytest.raises(KeyEmpty):
        m[""]


def test_a_prefix_makes_a_namespace_that_sees_nothing_else(db: Client) -> None:
    users, other = db.mapping("user:"), db.mapping(b"other:")
    users["1"] = b"ann"
    users.update({"2": b"bob"}, three=b"eve")
    other["1"] = b"x"
    assert sorted(db.keys()) == [b"other:1", b"user:1", b"user:2", b"user:three"]
    assert dict(users) == {b"1": b"ann", b"2": b"bob", b"three": b"eve"}
    assert len(users) == 3
    assert sorted(users.values()) == [b"ann", b"bob", b"eve"]
    assert (b"1", b"ann") in users.items()
    assert (b"1", b"bob") not in users.items()
    users[""] = b"the prefix itself"
    assert users[b""] == db.get("user:") == b"the prefix itself"
    users.clear()
    assert list(db.keys()) == [b"other:1"]
    assert not users
    assert other


def test_update_and_clear_are_batches(db: Client, server: ReferenceServer) -> None:
    m = db.mapping("p:")
    m.update((str(i), b"v") for i in range(500))
    assert len(server.requests) == 1
    m.clear()
    assert len(server.requests) == 3


def test_its_repr_names_the_prefix_and_the_daemon(db: Client, server: ReferenceServer) -> None:
    assert repr(db.mapping("p:")) == f"<mapping of b'p:' in <kio client of {server.url}>>"


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    with reference_server() as server, kio.connect(server.url) as db:
        yield db


KEYS = st.binary(min_size=1, max_size=2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["set", "setdefault"]), KEYS, st.binary(max_size=3)),
        st.tuples(st.sampled_from(["del", "pop", "get", "in"]), KEYS),
        st.tuples(st.just("update"), st.dictionaries(KEYS, st.binary(max_size=3), max_size=5)),
        st.tuples(st.sampled_from(["clear", "len"])),
    ),
    max_size=15,
)


def apply(mapping: Any, step: tuple[Any, ...]) -> Any:
    name, *arguments = step
    try:
        if name == "set":
            return mapping.__setitem__(*arguments)
        if name == "del":
            return mapping.__delitem__(*arguments)
        if name == "in":
            return arguments[0] in mapping
        if name == "len":
            return len(mapping)
        return getattr(mapping, name)(*arguments)
    except KeyError as error:
        return error.args


@given(STEPS, st.sampled_from([b"", b"p:"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_it_behaves_as_a_dict_does(shared: Client, steps: list[tuple[Any, ...]], prefix: bytes) -> None:
    shared.clear()
    shared.set(b"q", b"not under p:")
    view, model = shared.mapping(prefix), {} if prefix else {b"q": b"not under p:"}
    for step in steps:
        assert apply(view, step) == apply(model, step)
    assert dict(view) == dict(view.items()) == model
    assert sorted(view.values()) == sorted(model.values())
    assert view == model


def test_pop_is_one_request(db: Client, server: ReferenceServer) -> None:
    people = db.mapping("p:")
    people["ada"] = b"Ada"
    before = len(server.requests)
    assert people.pop("ada") == b"Ada"
    assert len(server.requests) == before + 1
    assert people.pop("ada", b"nobody") == b"nobody"


def test_setdefault_never_overwrites_what_came_between(db: Client, server: ReferenceServer) -> None:
    people = db.mapping("p:")

    def come_between(op: int, arguments: list[Any]) -> None:
        if op == wire.OP_SET and arguments[2] == b"mine":
            server.store.execute(wire.OP_SET, 0, b"p:ada", b"theirs")

    server.script = come_between
    assert people.setdefault("ada", b"mine") == b"theirs"
    assert people.setdefault("grace", b"first") == b"first"
    assert people.setdefault("grace", b"second") == b"first"


def test_popitem_empties_it(db: Client) -> None:
    people = db.mapping("p:")
    people.update(a=b"1", b=b"2")
    assert sorted([people.popitem(), people.popitem()]) == [(b"a", b"1"), (b"b", b"2")]
    with pytest.raises(KeyError):
        people.popitem()
