"""What an operator can meet is described: settings, errors, exit codes, commands of the Makefile."""

from __future__ import annotations

import ast
import re

import pytest

from kio.config import CATALOGUE
from kio.errors import BY_CODE
from tests.tidy.tree import ROOT, parsed, sources

MANUAL = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", CATALOGUE, ids=lambda setting: setting.name)
def test_every_setting_stands_in_the_deployed_file(setting: object) -> None:
    text = (ROOT / "deploy" / "kio.toml").read_text(encoding="utf-8")
    assert re.search(rf"^{setting.name} = ", text, re.MULTILINE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", sorted(BY_CODE), ids=lambda code: BY_CODE[code].__name__)
def test_every_error_stands_in_the_manual_with_its_code_and_what_to_do(code: int) -> None:
    cls = BY_CODE[code]
    row = re.search(rf"^\| {code} \| `{cls.__name__}` \| (\d+) \| (yes|no) \| .{{20,}} \|$", MANUAL, re.MULTILINE)
    assert row, f"add a row for {cls.__name__} to the table of errors in deploy/README.md"
    assert row[1] == str(cls.exit_code)
    assert row[2] == ("yes" if cls.retryable else "no")


def test_every_warning_and_error_of_the_log_stands_in_the_manual() -> None:
    written = {
        (call.args[0].value, "warning" if call.func.attr == "warning" else "error")
        for path in sources(".py")
        for call in ast.walk(parsed(path))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"warning", "error", "exception"}
        and ast.unparse(call.func.value).rpartition(".")[2] in {"_log", "_repeats", "log", "repeats"}
        and isinstance(call.args[0], ast.Constant)
    }
    assert set(re.findall(r"^\| `([^`]+)` \| (warning|error) \| .{20,} \|$", MANUAL, re.MULTILINE)) == written


def test_every_target_of_the_makefile_is_explained_in_its_head() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    assert targets == set(re.findall(r"^#   make (\w+) ", text, re.MULTILINE))
