"""Log lines: their form, what they escape, and how repeats are counted."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kio import log
from kio.log import Log, Repeats, fields


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def capture(level: str = "info", format: str = "journal") -> io.StringIO:
    stream = io.StringIO()
    log.configure(level, format, stream=stream)
    return stream


def test_a_line_is_subject_verb_and_values_with_their_units() -> None:
    stream = capture()
    Log("kio.workers", shard=3).info("seal", segment=42, records=91234, bytes=67108864, took_ms=18)
    assert stream.getvalue() == "<6>shard=3 seal: segment=42 records=91234 bytes=67108864 took_ms=18\n"


def test_a_line_may_have_no_subject_and_no_values() -> None:
    stream = capture()
    Log("kio").info("ready")
    assert stream.getvalue() == "<6>ready\n"


def test_levels_are_sd_daemon_priorities_under_journald() -> None:
    stream = capture("debug")
    out = Log("kio")
    out.debug("d")
    out.info("i")
    out.warning("w")
    out.error("e")
    assert stream.getvalue().split() == ["<7>d", "<6>i", "<4>w", "<3>e"]


def test_outside_of_journald_a_line_begins_with_utc_time_and_level() -> None:
    stream = capture(format="text")
    Log("kio").warning("retry", delay_s=0.25)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning retry: delay_s=0\.25\n", stream.getvalue())


def test_lines_below_the_level_are_neither_written_nor_built() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AssertionError("built")

    stream = capture("warning")
    Log("kio").info("hit", value=Unprintable())
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, "1"),
        (True, "true"),
        (0.1 + 0.2, "0.3"),
        (b"key", "key"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', r'"a\"b"'),
        ("a=b", '"a=b"'),
        ("C:\\x", r'"C:\\x"'),
        ("caf\u00e9", "caf\u00e9"),
        ("a\r\nb", r'"a\r\nb"'),
        (b"\x00\xff\x1b[31m", r'"\x00\xff\x1b[31m"'),
        ("\u2028\u202e", r'"\u2028\u202e"'),
        (Path("/var/lib/kio"), "/var/lib/kio"),
    ],
)
def test_values_are_shown_so_that_they_can_be_told_apart(value: object, shown: str) -> None:
    assert fields(v=value) == f"v={shown}"


def test_a_value_that_is_none_is_left_out() -> None:
    assert fields(a=None, b=0) == "b=0"


def test_a_long_value_is_cut_and_its_rest_counted() -> None:
    assert fields(v="x" * 1000) == "v=" + "x" * 240 + "...(+760)"


@given(st.one_of(st.text(), st.binary()))
def test_no_value_can_end_its_line_or_forge_another_field(value: object) -> None:
    line = fields(v=value)
    assert len(line.splitlines()) == 1
    assert line.isprintable() or not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in line)
    assert re.fullmatch(r'v=(?:[^\s"=\\]+|"(?:[^"\\]|\\.)*")(?:\.\.\.\(\+\d+\))?', line)


def test_a_message_that_bypasses_fields_cannot_end_its_line_either() -> None:
    stream = capture()
    logging.getLogger("library").warning("bad %s", "a\n<2>shard=0 forged")
    assert stream.getvalue() == "<4>bad a\\n<2>shard=0 forged\n"


@pytest.mark.parametrize(("format", "beginning"), [("journal", "<3>    "), ("text", "    ")])
def test_a_traceback_follows_its_line_indented_and_escaped(format: str, beginning: str) -> None:
    stream = capture(format=format)
    try:
        raise ValueError("\x1b[2J boom")
    except ValueError:
        Log("kio", worker=1).exception("crash", run="kio status")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith('worker=1 crash: run="kio status"')
    assert rest[-1] == beginning + "ValueError: \\x1b[2J boom"
    assert all(line.startswith(beginning) for line in rest)


def test_stderr_is_the_journal_only_when_the_variable_names_that_very_stream(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        stat = os.fstat(stream.fileno())
        assert log.is_journal(stream, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"})
        assert not log.is_journal(stream, {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino + 1}"})
        assert not log.is_journal(stream, {})
    assert not log.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:1"})


def test_a_second_configuration_replaces_the_first() -> None:
    first, second = capture(), capture()
    Log("kio").info("once")
    assert (first.getvalue(), second.getvalue()) == ("", "<6>once\n")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_repeated_fault_is_written_at_once_then_once_an_interval_with_its_count() -> None:
    stream, clock = capture(), Clock()
    repeats = Repeats(Log("kio", door=1), interval_s=10, clock=clock)
    for peer in range(5):
        repeats.warning("drop", fault="stalled", peer=peer)
    assert stream.getvalue() == "<4>door=1 drop: fault=stalled peer=0\n"
    clock.now += 10
    repeats.warning("drop", fault="stalled", peer=9)
    assert stream.getvalue().splitlines()[1:] == ["<4>door=1 drop: fault=stalled peer=9 repeated=4"]


def test_faults_are_counted_apart() -> None:
    stream = capture()
    repeats = Repeats(Log("kio"), clock=Clock())
    for fault in ("a", "b", "a", "b"):
        repeats.warning("drop", fault=fault)
        repeats.warning("refuse", fault=fault)
    assert len(stream.getvalue().splitlines()) == 4


def test_the_count_of_a_fault_that_stopped_is_written_by_a_tick() -> None:
    stream, clock = capture(), Clock()
    repeats = Repeats(Log("kio"), interval_s=10, clock=clock)
    for _ in range(3):
        repeats.warning("drop", fault="stalled")
    repeats.warning("drop", fault="once")
    clock.now += 9
    repeats.tick()
    assert len(stream.getvalue().splitlines()) == 2
    clock.now += 1
    repeats.tick()
    repeats.tick()
    assert stream.getvalue().splitlines()[2:] == ["<4>drop: fault=stalled repeated=2"]


def test_the_number_of_remembered_faults_is_bounded_and_no_count_is_lost() -> None:
    stream = capture()
    repeats = Repeats(Log("kio"), clock=Clock())
    repeats.warning("drop", fault=-1)
    repeats.warning("drop", fault=-1)
    for fault in range(log.FAULTS_MAX):
        repeats.warning("drop", fault=fault)
    lines = stream.getvalue().splitlines()
    assert "<4>drop: fault=-1 repeated=1" in lines
    assert len(lines) == log.FAULTS_MAX + 2
