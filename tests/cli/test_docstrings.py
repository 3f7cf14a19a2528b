"""The examples in the docstrings of the CLI are run."""

from __future__ import annotations

import doctest

import pytest

from kio.cli import output, tree_target


@pytest.mark.parametrize("module", [output, tree_target])
def test_the_examples_in_docstrings_are_right(module: object) -> None:
    ran = doctest.testmod(module)  # type: ignore[arg-type]
    assert ran.attempted > 0
    assert ran.failed == 0
