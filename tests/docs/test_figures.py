"""The README's figures: written between two marks, and nowhere else."""

from __future__ import annotations

from tests.measure import readme

FIGURES = {figure: 1234.5 for _, figure, _ in readme.DAEMON_ROWS}
DAEMON = {"batch": 1000, "kio": FIGURES, "redis": FIGURES, "ratio": FIGURES}
KERNEL = {"table": [dict.fromkeys(readme.KERNEL_COLUMNS, 4321)]}


def test_only_what_stands_between_the_marks_changes() -> None:
    text = readme.README.read_text(encoding="utf-8")
    changed = readme.written(text, KERNEL, DAEMON)
    assert changed != text
    assert changed.partition(readme.BEGIN)[0] == text.partition(readme.BEGIN)[0]
    assert changed.partition(readme.END)[2] == text.partition(readme.END)[2] != ""
    assert readme.written(changed, KERNEL, DAEMON) == changed


def test_the_tables_have_a_column_for_each_side_and_a_row_for_each_figure() -> None:
    table = readme.daemon_table(DAEMON).splitlines()
    assert table[0] == "| one Python client | kio | redis | ratio |"
    assert table[2] == "| get_many of 1,000 keys, keys/s | 1,234 | 1,234 | 1,234.50 |"
    alone = readme.daemon_table({"batch": 1000, "kio": FIGURES}).splitlines()
    assert alone[0] == "| one Python client | kio |"
    assert len(table) == len(alone) == 2 + len(readme.DAEMON_ROWS)
    assert readme.kernel_table(KERNEL).splitlines()[2].count("4,321") == len(readme.KERNEL_COLUMNS)
