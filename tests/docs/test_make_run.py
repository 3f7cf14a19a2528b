"""`make run`, the first command of the README: a ready daemon that prints what to try, and all of it works."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.daemon import MARK, ROOT, environment, wait_until
from tests.docs import blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
BUILT = ".venv/built"
READY_S = 30.0


def hints(text: str) -> list[str]:
    """The commands below "try, in another terminal:"."""
    return re.findall(r"^  (\S*(?:kio|redis-cli) .+)$", text.partition("try, in another terminal:\n")[2], re.MULTILINE)


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[str]:
    """What `make run` has printed when its last hint has come, on any free port and with the data elsewhere."""
    if shutil.which("make") is None or not (ROOT / BUILT).exists():
        pytest.skip("the environment was not made by make setup")
    told = tmp_path / "told"
    flags = f"ARGS=--data {tmp_path / 'data'} --port 0 --http-port 0 --resp-port 0 --workers 2"
    with told.open("wb") as output:
        made = subprocess.Popen(
            ["make", "-o", BUILT, "run", flags],  # nothing is built while other tests run
            cwd=ROOT,
            env=environment(**{MARK: "make-run"}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "kio status --url" in told.read_text(), READY_S, told.read_text)
        yield told.read_text()
    finally:
        os.killpg(made.pid, signal.SIGINT)  # what Ctrl-C in its terminal does
        made.wait(READY_S)
    assert "kio serve: stopped" in told.read_text()


def test_make_run_prints_commands_that_work(printed: str) -> None:
    shown = next(b.text for b in blocks.blocks(README) if b.comment == "run by: tests/docs/test_make_run.py")
    url = re.search(r" --url \S+", printed)
    resp = re.search(r"\bresp=redis://127\.0\.0\.1:(\d+)", printed)
    assert url
    assert resp
    assert hints(printed.replace(url[0], "").replace(f"-p {resp[1]}", "-p 7379")) == hints(shown)
    for command in hints(printed):
        if command.startswith("redis-cli") and shutil.which("redis-cli") is None:
            continue
        done = subprocess.run(
            command.split(), cwd=ROOT, env=environment(), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        if " get " in command.lower():
            assert done.stdout.rstrip(b"\n") == b"hello"
