"""Lines of JSON become records and come back byte for byte."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio.cli.jsonl import JsonLinesSource, JsonLinesTarget
from kio.cli.transfer import Record, Tally


def read(text: bytes, field: str = "id", value_bytes_max: int = 1 << 20) -> tuple[list[tuple[bytes, bytes]], list[str]]:
    told: list[str] = []
    source = JsonLinesSource(
        io.BytesIO(text), "in.jsonl", field=field, value_bytes_max=value_bytes_max, tally=Tally(tell=told.append)
    )
    return [(record.key, record.value) for record in source], told


def write(records: list[tuple[bytes, bytes]], field: str | None = None) -> bytes:
    file = io.BytesIO()
    target = JsonLinesTarget(file, Tally(), field=field)
    for key, value in records:
        target.put(Record(key, value, ""))
    return file.getvalue()


def test_the_value_is_the_line_as_it_stands() -> None:
    line = b'{ "id" : "a",  "n": 1.50, "u": "\\u00e9" } '
    assert read(line + b"\n") == ([(b"a", line)], [])


def test_blank_lines_and_a_missing_last_newline_are_no_fault() -> None:
    assert read(b'\n{"id": "a"}\r\n  \n{"id": "b"}') == ([(b"a", b'{"id": "a"}'), (b"b", b'{"id": "b"}')], [])


def test_a_whole_number_is_a_key_in_decimal() -> None:
    assert read(b'{"id": -7}')[0] == [(b"-7", b'{"id": -7}')]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"name": "x"}', 'there is no field "id"'),
        (b'{"id": ""}', 'the field "id" is neither a text nor a whole number'),
        (b'{"id": null}', 'the field "id" is neither a text nor a whole number'),
        (b'{"id": true}', 'the field "id" is neither a text nor a whole number'),
        (b'{"id": 1.5}', 'the field "id" is neither a text nor a whole number'),
        (b'{"id": "\\ud800"}', 'the field "id" is not UTF-8'),
        (b'{"id": "a"', "not JSON: Expecting ',' delimiter at column 11"),
        (b"[1]", "not a JSON object"),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b'{"id": ' + b"[" * 100_000, "not JSON that can be read: nested too deeply"),
        (b'{"key_base64": "*", "value_base64": ""}', 'the field "key_base64" is not base64'),
        (b'{"key": "a", "value_base64": 1}', 'the field "value_base64" is not base64'),
    ],
)
def test_a_line_that_is_no_record_is_told_with_its_number_and_the_rest_is_read(line: bytes, why: str) -> None:
    records, told = read(b'{"id": "a"}\n' + line + b'\n{"id": "b"}\n')
    assert [key for key, _ in records] == [b"a", b"b"]
    assert told == [f"in.jsonl:2: {why}"]


def test_a_line_over_the_limit_is_told_and_not_kept() -> None:
    long = b'{"id": "long", "x": "' + b"x" * 3_000_000 + b'"}'
    records, told = read(long + b'\n{"id": "b"}\n', value_bytes_max=11)
    assert records == [(b"b", b'{"id": "b"}')]
    assert told == ["in.jsonl:1: the line is longer than max_value_bytes, which is 11"]


def test_objects_go_out_as_they_are_and_the_rest_is_wrapped() -> None:
    assert write([(b"a", b'{"x":1}')]) == b'{"x":1}\n'
    assert write([(b"a", b"\xff")]) == b'{"key": "a", "value_base64": "/w=="}\n'
    assert write([(b"\xff", b"")]) == b'{"key_base64": "/w==", "value_base64": ""}\n'
    assert write([(b"a", b"[1]")]) == b'{"key": "a", "value_base64": "WzFd"}\n'
    assert write([(b"a", b'{"x":\n1}')]) == b'{"key": "a", "value_base64": "eyJ4IjoKMX0="}\n'


def test_with_a_key_field_an_object_that_lacks_its_key_is_wrapped() -> None:
    assert write([(b"a", b'{"id":"a"}'), (b"b", b'{"id":"a"}')], field="id") == (
        b'{"id":"a"}\n{"key": "b", "value_base64": "eyJpZCI6ImEifQ=="}\n'
    )


_VALUES = (
    st.binary(max_size=20)
    | st.sampled_from([b'{"id":"k"}', b' {"id": "k", "x": [1, 2]} ', b'{"key": "z", "value_base64": ""}', b"{}", b"1"])
    | st.builds(lambda text: b'{"id": "k", "t": "%s"}' % text.encode(), st.text(alphabet="ab \r\n\té"))
)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=5) | st.just(b"k"), _VALUES), max_size=5))
def test_whatever_goes_out_with_a_key_field_comes_back_byte_for_byte(records: list[tuple[bytes, bytes]]) -> None:
    assert read(write(records, field="id")) == (records, [])
