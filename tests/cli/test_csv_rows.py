"""CSV rows become records and come back."""

from __future__ import annotations

import io
import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from kio.cli import csv_rows
from kio.cli.csv_rows import CsvSource, CsvTarget
from kio.cli.transfer import Record, Tally

Pairs = list[tuple[bytes, bytes]]


def read(text: bytes, column: str = "id", value_bytes_max: int = 1 << 20) -> tuple[Pairs, list[str]]:
    told: list[str] = []
    source = CsvSource(
        io.BytesIO(text), "in.csv", column=column, value_bytes_max=value_bytes_max, tally=Tally(tell=told.append)
    )
    return [(record.key, record.value) for record in source], told


def write(records: Pairs, field: str | None = None) -> bytes:
    file = io.BytesIO()
    with CsvTarget(file, Tally(), field=field, beside=None) as target:
        for key, value in records:
            target.put(Record(key, value, ""))
        target.finish()
    return file.getvalue()


def test_a_row_is_an_object_of_texts_in_the_order_of_the_columns() -> None:
    assert read(b"id,name,age\n7,Ada,36\n8,,\n") == (
        [(b"7", b'{"id":"7","name":"Ada","age":"36"}'), (b"8", b'{"id":"8","name":"","age":""}')],
        [],
    )


def test_quotes_commas_newlines_and_a_byte_order_mark_are_read() -> None:
    text = "\ufeffid,note\r\n".encode() + 'a,"x, ""y""\nz"\r\n\r\nb,é\r\n'.encode()
    records, told = read(text)
    assert told == []
    assert [json.loads(value) for _, value in records] == [
        {"id": "a", "note": 'x, "y"\nz'},
        {"id": "b", "note": "é"},
    ]


def test_what_came_from_csv_goes_back_as_it_came() -> None:
    text = 'id,note,n\na,"x, ""y""\nz",1\nb,é,\nc,,3\n'.encode()
    records, _ = read(text)
    assert write(records) == text
    assert write(records, field="id") == text


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (b"a", "the row has 1 fields, the first row has 2"),
        (b"a,b,c", "the row has 3 fields, the first row has 2"),
        (b"\xff,b", "not UTF-8"),
        (b",b", 'the field "id" is neither a text nor a whole number'),
        (b"a," + b"x" * 200, "the line is longer than max_value_bytes, which is 100"),
    ],
)
def test_a_row_that_is_no_record_is_told_with_its_line_and_the_rest_is_read(row: bytes, why: str) -> None:
    records, told = read(b'id,x\nfirst,"1\n2"\n' + row + b"\nlast,2\n", value_bytes_max=100)
    assert [key for key, _ in records] == [b"first", b"last"]
    assert told == [f"in.csv:4: {why}"]


@pytest.mark.parametrize("header", [b"name,age\n", b"id,id\n"])
def test_a_header_without_the_key_column_or_with_one_twice_is_wrong_usage(header: bytes) -> None:
    with pytest.raises(typer.BadParameter, match=r"in\.csv (has no column|names a column twice)"):
        read(header + b"1,2\n")


def test_an_empty_file_has_no_records() -> None:
    assert read(b"") == ([], [])
    assert write([]) == b""


def test_columns_are_the_fields_of_all_values_and_what_is_no_object_goes_out_in_base64() -> None:
    records = [(b"a", b'{"id":"a","x":1}'), (b"b", b"\xff"), (b"c", b'{"id":"c","y":["z"],"x":null}')]
    assert write(records) == b'id,x,key_base64,value_base64,y\na,1,,,\n,,Yg==,/w==,\nc,,,,"[""z""]"\n'


def test_too_many_columns_go_out_in_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_rows, "COLUMNS_MAX", 2)
    assert write([(b"a", b'{"p":"1","q":"2"}'), (b"b", b'{"r":"1"}')]) == (
        b"p,q,key_base64,value_base64\n1,2,,\n,,Yg==,eyJyIjoiMSJ9\n"
    )


_ROWS = st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=5)).map(
    lambda row: (row[0], json.dumps({"id": row[0], "x": row[1]}, ensure_ascii=False, separators=(",", ":")))
)


@given(st.lists(_ROWS, min_size=1, max_size=4), st.lists(st.tuples(st.binary(min_size=1), st.binary()), max_size=3))
def test_rows_and_raw_bytes_come_back_byte_for_byte(rows: list[tuple[str, str]], raw: Pairs) -> None:
    records = [(key.encode(), value.encode()) for key, value in rows]
    records += [(b"raw" + key, b"\xff" + value) for key, value in raw]
    assert read(write(records, field="id")) == (records, [])
