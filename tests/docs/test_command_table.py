"""deploy/redis.md names the commands that there are, and the differences that the tests let pass: no more, no fewer."""

from __future__ import annotations

import re

import pytest

from kio import limits
from kio.commands.plans_keys import KEYSPACES
from kio.commands.table import TABLE
from tests.docs import command_table
from tests.resp.differences import DIFFERENCES, NOT_IN_KIO

PAGE = command_table.PAGE.read_text(encoding="utf-8")
#: Codes of errors, and options, that the page shows as it shows commands.
WORDS = {"ERR", "EXECABORT", "LOADING", "BUSY", "TRYAGAIN", "MISCONF", "READONLY", "OOM", "ASYNC", "SYNC", "NOSAVE"}
REMEDY = "run: python -m tests.docs.command_table"


def test_the_page_holds_what_is_generated() -> None:
    assert command_table.written(PAGE) == PAGE, REMEDY


def test_every_command_stands_in_the_table_once() -> None:
    assert {command.group for command in TABLE.values()} == set(command_table.GROUPS)
    names = re.findall(r"^\| `([A-Z_]+)` \|", command_table.commands(), re.MULTILINE)
    assert sorted(names) == sorted(name.upper() for name in TABLE)


def test_a_changed_command_changes_the_page_between_the_marks_only() -> None:
    stale = PAGE.replace("| `GET` |", "| `GOT` |")
    assert stale != PAGE
    assert command_table.written(stale) == PAGE
    with pytest.raises(AssertionError, match="no marks"):
        command_table.written(PAGE.replace(command_table.begin("commands"), ""))


def test_every_difference_stands_in_the_page() -> None:
    shown = PAGE.partition(command_table.begin("differences"))[2].partition(command_table.end("differences"))[0]
    for each in DIFFERENCES:
        assert each.reason[1:] in shown, each.id


def test_the_page_names_no_command_that_is_not_there_but_as_one_that_is_absent() -> None:
    absent = PAGE.partition("\n### What is absent\n")[2].partition("\n##")[0]
    assert set(re.findall(r"`([A-Z]{3,})`", absent)) >= {"EVAL", "SUBSCRIBE", "SORT", "BLPOP"}
    # FUNCTION is there for FUNCTION FLUSH alone, which tools send.
    assert {name for name in NOT_IN_KIO if name.decode().lower() in TABLE} <= {b"FUNCTION"}
    elsewhere = set(re.findall(r"`([A-Z]{3,})(?: [^`]*)?`", PAGE.replace(absent, "")))
    assert {name for name in elsewhere if name.lower() not in TABLE} <= WORDS


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    for number in (
        limits.KEY_BYTES_MAX,
        limits.VALUE_BYTES_MAX,
        limits.VALUE_BYTES_CEILING,
        limits.ATOMIC_OPERATIONS_MAX,
        limits.KEYSPACES,
    ):
        assert f"{number:,}" in PAGE, number
    assert f"0 to {KEYSPACES - 1}" in PAGE
    assert f"{limits.ATOMIC_BYTES_MAX >> 20} MiB" in PAGE
    assert f"{limits.CONNECTION_BYTES_MAX >> 20} MiB" in PAGE
