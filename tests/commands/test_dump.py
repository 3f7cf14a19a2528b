"""Values taken out and put back, and what is told of them."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio import glob
from kio.commands import dump
from kio.commands.state import State
from kio.errors import BadRequest
from kio.limits import EXPIRE_AT_MS_MAX
from tests.commands.shard_model import Refused, ShardModel

NOW = 1_800_000_000_000
WRONG = r"^ERR DUMP payload version or checksum are wrong$"


def test_the_examples_of_the_documentation_hold() -> None:
    for module in (dump, glob):
        failed, tried = doctest.testmod(module)
        assert tried
        assert not failed


def test_a_payload_of_version_1_is_these_bytes() -> None:
    payload = bytes.fromhex("4b494f56 01 00 66617374 cc682788")
    assert dump.dumped(b"fast") == payload
    assert dump.value_of(payload) == b"fast"


@given(st.binary(max_size=40), st.data())
def test_any_changed_byte_and_any_cut_is_found(value: bytes, data: st.DataObject) -> None:
    payload = dump.dumped(value)
    assert dump.value_of(payload) == value
    at = data.draw(st.integers(0, len(payload) - 1))
    damaged = bytearray(payload)
    damaged[at] ^= data.draw(st.integers(1, 255))
    for bad in (bytes(damaged), payload[:at], payload + b"\0"):
        with pytest.raises(BadRequest):
            dump.value_of(bad)


def test_a_payload_of_a_newer_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "_HEAD", b"KIOV\2\0")
    newer = dump.dumped(b"v")
    monkeypatch.setattr(dump, "_HEAD", b"KIOV\1\7")
    other_kind = dump.dumped(b"v")
    monkeypatch.undo()
    with pytest.raises(BadRequest, match="version or checksum"):
        dump.value_of(newer)
    with pytest.raises(BadRequest, match="Bad data format"):
        dump.value_of(other_kind)


def test_a_dumped_value_is_restored(kio: ShardModel) -> None:
    kio("SET", "a", b"\0value", "EX", 5)
    payload = kio("DUMP", "a")
    assert kio("RESTORE", "b", 0, payload) == "OK"
    assert kio.state(b"b") == State(b"\0value")
    with pytest.raises(Refused, match=r"^BUSYKEY Target key name already exists\.$"):
        kio("RESTORE", "b", 0, payload)
    assert kio("RESTORE", "b", 30, payload, "replace") == "OK"
    assert kio.state(b"b") == State(b"\0value", NOW + 30)
    assert kio("RESTORE", "b", NOW + 9, payload, "REPLACE", "ABSTTL", "IDLETIME", 7) == "OK"
    assert kio.state(b"b") == State(b"\0value", NOW + 9)
    assert kio("RESTORE", "b", NOW - 9, payload, "REPLACE", "ABSTTL", "FREQ", 7) == "OK"
    assert kio.state(b"b") is None
    with pytest.raises(Refused, match=WRONG):
        kio("RESTORE", "c", 0, payload[:-1])
    with pytest.raises(Refused, match=r"^ERR invalid expire time in 'restore' command$"):
        kio("RESTORE", "c", EXPIRE_AT_MS_MAX, payload)


def test_what_a_key_takes_is_its_record_and_its_word(kio: ShardModel) -> None:
    kio("SET", "key", "fast")
    assert kio("MEMORY", "USAGE", "key") == 32 + 8
    kio("EXPIRE", "key", 5)
    assert kio("MEMORY", "USAGE", "key", "SAMPLES", 0) == 40 + 8


def test_help_is_there(kio: ShardModel) -> None:
    for command in ("OBJECT", "MEMORY"):
        text = kio(command, "HELP")
        assert text[0].startswith(command)
        assert text[-2] == "HELP"


def test_nothing_is_told_of_accesses(kio: ShardModel) -> None:
    kio("SET", "a", "1")
    assert kio("OBJECT", "IDLETIME", "a") == 0
    assert kio("OBJECT", "REFCOUNT", "a") == 1
