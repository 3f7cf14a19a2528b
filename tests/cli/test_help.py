"""What --help of every verb holds."""

from __future__ import annotations

import dataclasses
import shlex

import pytest

from kio import config
from kio.bench.plan import Plan
from kio.cli import app, bench, bench_compare, bench_options, bench_workloads, log_dump
from kio.cli import config as config_verb

from .conftest import Run

VERBS = {(name,): app.imported(module) for name, module in app.VERBS.items()} | {
    ("config", "show"): config_verb,
    ("log", "dump"): log_dump,
    **{("repair", name): app.imported(f"repair_{name}") for name in app.REPAIRS},
    **{("user", name): app.imported(f"user_{name}") for name in app.USERS},
    ("bench",): bench,
    ("bench", "compare"): bench_compare,
    ("bench", "workloads"): bench_workloads,
}


DAEMON_VERBS = {
    "status", "get", "set", "delete", "incr", "append", "ttl", "touch", "persist", "scan", "count", "import", "export",
    "backup",
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_the_help_of_every_verb_ends_with_a_real_example(kio: Run, verb: tuple[str, ...]) -> None:
    ran = kio(*verb, "--help")
    assert ran.code == 0
    ending = [" ".join(line.split()) for line in ran.out.decode().rsplit("Example:", 1)[1].splitlines() if line.strip()]
    example = VERBS[verb].EXAMPLE.splitlines()
    assert ending == [" ".join(line.split()) for line in example]
    for line in example:
        words = shlex.split(line)
        begin = words.index("kio")
        assert words[begin + 1 : begin + 1 + len(verb)] == list(verb)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != ("serve",)], ids=" ".join)
def test_every_verb_but_serve_answers_in_json_on_demand(kio: Run, verb: tuple[str, ...]) -> None:
    assert b"--json" in kio(*verb, "--help").out


@pytest.mark.parametrize("verb", sorted(DAEMON_VERBS))
def test_every_verb_that_talks_to_a_daemon_takes_a_url_and_a_timeout(kio: Run, verb: str) -> None:
    text = kio(verb, "--help").out
    assert b"--url" in text
    assert b"KIO_URL" in text
    assert b"--timeout" in text


def test_bench_has_an_option_for_every_field_of_a_plan(kio: Run) -> None:
    text = kio("bench", "--help").out.decode()
    fields = {option.field for option in bench_options.CATALOGUE}
    assert fields | {"url", "workload"} == {field.name for field in dataclasses.fields(Plan)}
    for option in bench_options.CATALOGUE:
        assert f" {option.flag} " in text, option.flag
    assert "KIO_URL" in text


def test_serve_has_a_flag_for_every_setting(kio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # in 80 the longest are cut
    text = kio("serve", "--help").out.decode()
    for setting in config.CATALOGUE:
        assert f" {setting.flag} " in text
    assert " --config " in text
