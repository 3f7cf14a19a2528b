"""Every way a verb can end has its exit code and one line on stderr."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kio import errors
from kio.cli import exit_codes, options

from .conftest import FakeClient, Run


def classes(base: type[errors.KioError] = errors.KioError) -> Iterator[type[errors.KioError]]:
    yield base
    for child in base.__subclasses__():
        yield from classes(child)


def test_every_exit_code_of_an_error_is_in_the_table_and_the_table_has_no_other() -> None:
    own = {
        exit_codes.DONE,
        exit_codes.FAILED,
        exit_codes.USAGE,
        exit_codes.INPUT_OUTPUT,
        exit_codes.INTERRUPTED,
        exit_codes.BROKEN_PIPE,
    }
    assert {cls.exit_code for cls in classes()} | own == set(exit_codes.MEANINGS)


@pytest.mark.parametrize("cls", [cls for cls in classes() if cls is not errors.PartialFailure])
def test_every_error_is_one_line_on_stderr_and_its_own_exit_code(
    kio: Run, monkeypatch: pytest.MonkeyPatch, cls: type[errors.KioError]
) -> None:
    def fail(url: str, timeout_s: float) -> None:
        raise cls("what went wrong")

    monkeypatch.setattr(options, "connect", fail)
    ran = kio("count")
    assert (ran.code, ran.out, ran.err) == (cls.exit_code, b"", "kio: what went wrong\n")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (FileNotFoundError(2, "No such file or directory", "x"), 74, "kio: x: No such file or directory\n"),
        (OSError(28, "No space left on device"), 74, "kio: No space left on device\n"),
        (KeyboardInterrupt(), 130, ""),
        (ValueError("odd"), 70, "kio: kio is at fault: ValueError: odd; KIO_DEBUG=1 shows where\n"),
    ],
)
def test_every_other_error_has_its_code_too(
    kio: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, told: str
) -> None:
    def fail(url: str, timeout_s: float) -> None:
        raise error

    monkeypatch.setattr(options, "connect", fail)
    ran = kio("count")
    assert (ran.code, ran.out, ran.err) == (code, b"", told)


def test_kio_debug_shows_the_traceback(kio: Run, db: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ValueError("odd")

    monkeypatch.setattr(db, "count", fail)
    monkeypatch.setenv("KIO_DEBUG", "1")
    with pytest.raises(ValueError, match="odd"):
        kio("count")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "kio: no such command 'nonsense'; see \"kio --help\"\n"),
        (["get"], "kio: missing argument 'KEY'; see \"kio get --help\"\n"),
        (["get", "--nope", "k"], 'kio: no such option: --nope; see "kio get --help"\n'),
        (["set", "k"], 'kio: give either VALUE (- for stdin) or --file PATH; see "kio set --help"\n'),
        (["import"], "kio: give one of --tree DIR, --jsonl FILE, --csv FILE, --redis URL; see"),
        (["export", "--tree", "x", "--csv", "-"], "kio: give one of --tree DIR, --jsonl FILE, --csv FILE; see"),
        (["import", "--jsonl", "-"], "kio: --key FIELD goes with --jsonl and --csv, and they need it; see"),
        (["export", "--tree", "x", "--key", "id"], "kio: --key FIELD goes with --jsonl and --csv; see"),
        (["import", "--csv", "-", "--key", "id", "--follow"], "kio: --follow goes with --tree; see"),
        (["check", "x", "--data", "x"], "kio: give the directory once: DIR or --data DIR; see"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(kio: Run, arguments: list[str], told: str) -> None:
    ran = kio(*arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.startswith(told)
    assert ran.err.count("\n") == 1


def test_without_a_verb_the_help_is_printed_and_it_is_wrong_usage(kio: Run) -> None:
    ran = kio()
    assert ran.code == 2
    assert b"Usage: kio" in ran.out + ran.err.encode()


def test_the_help_of_kio_ends_with_the_table_of_exit_codes(kio: Run) -> None:
    text = kio("--help").out.decode()
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"{code:>3}  {meaning}" in text


def test_a_message_that_is_no_utf8_is_printed_all_the_same(kio: Run, db: FakeClient) -> None:
    assert kio("get", "\udcff").err == "kio: there is no key \\xff\n"
