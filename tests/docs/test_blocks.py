"""The runner of documents: a wrong line is found, a right one is not blamed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs import blocks

DOCUMENT = """
# A title

## First

```console
$ echo one
one
```

<!-- daemon: stopped -->
```python
>>> 1 + 1
2
```

## Second

```text
shown only
```
"""


def test_blocks_come_with_section_kind_comment_and_line() -> None:
    assert list(blocks.blocks(DOCUMENT)) == [
        blocks.Block("First", "console", "$ echo one\none\n", "", 6),
        blocks.Block("First", "python", ">>> 1 + 1\n2\n", "daemon: stopped", 12),
        blocks.Block("Second", "text", "shown only\n", "", 19),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "$ echo one\none\n",
        "$ printf one\none\n",
        "$ echo one two\none  two\n",
        "$ echo one two three\none ... three\n",
        "$ echo told >&2\ntold\n",
        "$ false\n$ echo $?\n1\n",
        "$ cat > file << 'EOF'\n> one\n> two\n> EOF\n$ cat file\none\ntwo\n",
    ],
    ids=repr,
)
def test_a_right_console_block_has_no_faults(text: str, tmp_path: Path) -> None:
    assert blocks.run_console(text, tmp_path, os.environ) == []


@pytest.mark.parametrize(
    "text",
    [
        "$ echo one\ntwo\n",
        "$ echo one\n",
        "$ true\none\n",
        "$ echo one two\none ... three\n",
        "$ echo 1.5\n1x5\n",
        "$ false\n",
        "$ false\n$ echo next\nnext\n",
        "$ false\n$ echo $?\n2\n",
        "$ no-such-command-here\n",
    ],
    ids=repr,
)
def test_a_wrong_line_of_a_console_block_is_found(text: str, tmp_path: Path) -> None:
    assert blocks.run_console(text, tmp_path, os.environ)


def test_a_python_session_is_compared_and_its_variables_stay() -> None:
    variables: dict[str, object] = {}
    assert blocks.run_python(">>> a = 1\n>>> a\n1\n", "x", variables) == []
    assert blocks.run_python(">>> a + 1\n2\n", "x", variables) == []
    assert "Expected" in blocks.run_python(">>> a + 1\n3\n", "x", variables)[0]


def test_a_script_that_raises_is_not_passed_over() -> None:
    with pytest.raises(AssertionError):
        blocks.run_python("assert 1 == 2\n", "x", {})
