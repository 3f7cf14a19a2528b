"""Codecs on the reference server, in mappings, and what is no codec."""

from __future__ import annotations

from typing import Any

import pytest

import kio
from kio.client.codecs import Json
from kio.errors import ConfigError, NotDecodable
from tests.client.codec_suite import CodecSuite


class TestCodecs(CodecSuite):
    """Every test of the suite, asked of the reference server."""


@pytest.mark.parametrize("codec", ["pickle", "", None, 5, object(), Json, str])
def test_what_is_no_codec_is_a_config_error(db: Any, codec: Any) -> None:
    with pytest.raises(ConfigError, match=r"codec is bytes, str, json, msgpack or an object with encode and decode"):
        db.with_options(codec=codec)


def test_a_codec_that_makes_no_bytes_is_a_type_error(db: Any) -> None:
    class Wrong:
        def encode(self, value: Any) -> Any:
            return "text"

        def decode(self, data: bytes) -> Any:
            return data

    with pytest.raises(TypeError, match="a value is bytes"):
        db.with_options(codec=Wrong()).set("k", 1)


def test_a_mapping_tells_a_value_that_is_none_from_an_absent_one(url: str) -> None:
    with kio.connect(url, codec="json") as db:
        people = db.mapping("p:")
        people["ada"] = None
        people.update(grace=[1], joan={"a": 2})
        assert people["ada"] is None
        assert people.setdefault("ada", 5) is None
        assert people.setdefault("mary", (1, 2)) == [1, 2]
        assert dict(people) == {b"ada": None, b"grace": [1], b"joan": {"a": 2}, b"mary": [1, 2]}
        assert people.pop("ada", "default") is None
        assert people.pop("ada", "default") == "default"
        assert [1] in list(people.values())
        people.clear()
        people["ada"] = None
        assert people.popitem() == (b"ada", None)
        with pytest.raises(KeyError):
            people.popitem()


def test_a_mapping_names_the_key_of_what_it_cannot_decode(url: str) -> None:
    with kio.connect(url, codec="json") as db:
        db.append("p:ada", b"?")
        with pytest.raises(NotDecodable, match="p:ada"):
            db.mapping("p:")["ada"]
        with pytest.raises(NotDecodable) as caught:
            db.mapping("p:").pop("ada")
        assert caught.value.maybe_applied
