"""The README's tours: every command and every session is run against a real daemon, and what is shown compared.

Each section has a daemon of its own, on any free ports, whose data is ./data of the section's directory. The README's
addresses (native 127.0.0.1:7400, admin 127.0.0.1:7480) are replaced by the real ones; commands without an address find
the daemon through KIO_URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.daemon import ROOT, Daemon, environment
from tests.docs import blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
TOURS = [block for block in blocks.blocks(README) if block.kind in ("console", "python")]
PLACEHOLDERS = {"127.0.0.1:7400": "url", "127.0.0.1:7480": "http"}


class Tour:
    """One section's daemon, directory and Python variables."""

    def __init__(self, home: Path) -> None:
        self.directory = home / "tour"
        self.directory.mkdir()
        self.variables: dict[str, Any] = {"__name__": "readme"}
        self.daemon = Daemon(data=self.directory / "data", workers=2)

    def run(self, block: blocks.Block, path: str) -> list[str]:
        text = block.text
        real = {shown: urlsplit(getattr(self.daemon, door)).netloc for shown, door in PLACEHOLDERS.items()}
        for shown, address in real.items():
            text = text.replace(shown, address)
        if block.kind == "python":
            return blocks.run_python(text, f"README.md:{block.line}", self.variables)
        return blocks.run_console(text, self.directory, environment(KIO_URL=self.daemon.url, PATH=path))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A PATH on which `kio` and `python3` are this environment's."""
    with blocks.programs(tmp_path / "bin") as programs:
        yield f"{programs}:/usr/bin:/bin"


@pytest.mark.parametrize("section", dict.fromkeys(block.section for block in TOURS))
def test_every_line_of_a_tour_does_what_it_shows(section: str, tmp_path: Path, path: str) -> None:
    tour = Tour(tmp_path)
    with tour.daemon as daemon:
        for block in TOURS:
            if block.section != section:
                continue
            is_stopped = block.comment == "daemon: stopped"
            if is_stopped:
                daemon.stop()
            faults = tour.run(block, path)
            assert not faults, f"README.md:{block.line}:\n" + "\n".join(faults)
            if is_stopped:
                daemon.restart()
