"""The tours of the documents: every command and every session is run against a real daemon, and what is shown compared.

Each section has a daemon of its own, on any free ports, whose data is ./data of the section's directory. The shown
addresses (native 127.0.0.1:7400, Redis clients' 127.0.0.1:7379 or `-p 7379`, admin 127.0.0.1:7480) are replaced by the
real ones; commands without an address find the daemon through KIO_URL. A section that shows port 6379 has a
redis-server of its own there.
"""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.daemon import ROOT, Daemon, environment, wait_until
from tests.docs import blocks
from tests.resp.servers import redis_server, resp_port

TOURS = {
    name: [
        block
        for block in blocks.blocks((ROOT / name).read_text(encoding="utf-8"))
        if block.kind in ("console", "python") and not block.comment.startswith("run by: ")
    ]
    for name in ("README.md", "deploy/redis.md")
}
SECTIONS = [(name, section) for name, tours in TOURS.items() for section in dict.fromkeys(b.section for b in tours)]
#: Tours that take long, for the long run.
LONG = [("README.md", "Measuring a server")]
PLACEHOLDERS = {"127.0.0.1:7400": "url", "127.0.0.1:7480": "http"}
RESP, REDIS = "7379", "6379"


class Tour:
    """One section's daemon, directory and Python variables.

    Args:
        home: where its directory goes.
        redis_port: of the redis-server beside it; 0 where there is none.
    """

    def __init__(self, home: Path, redis_port: int = 0) -> None:
        self.directory = home / "tour"
        self.directory.mkdir()
        self.variables: dict[str, Any] = {"__name__": "readme"}
        self.daemon = Daemon(data=self.directory / "data", workers=2)
        self._redis_port = redis_port

    def run(self, block: blocks.Block, name: str, path: str) -> list[str]:
        text = block.text
        real = {shown: urlsplit(getattr(self.daemon, door)).netloc for shown, door in PLACEHOLDERS.items()}
        for shown, port in ((RESP, resp_port), (REDIS, lambda _: self._redis_port)):
            if shown in text:
                real |= {form.format(shown): form.format(port(self.daemon)) for form in ("127.0.0.1:{}", "-p {}")}
        for shown, address in real.items():
            text = text.replace(shown, address)
        if block.kind == "python":
            return blocks.run_python(text, f"{name}:{block.line}", self.variables)
        return blocks.run_console(text, self.directory, environment(KIO_URL=self.daemon.url, PATH=path))


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """A PATH on which `kio` and `python3` are this environment's."""
    with blocks.programs(tmp_path / "bin") as programs:
        yield f"{programs}:/usr/bin:/bin"


@contextmanager
def _left_to_the_collector() -> Iterator[None]:
    """What a session leaves open ends with it, not in the middle of another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.mark.parametrize(
    ("name", "section"),
    [pytest.param(*each, marks=pytest.mark.stress) if each in LONG else each for each in SECTIONS],
)
def test_every_line_of_a_tour_does_what_it_shows(name: str, section: str, tmp_path: Path, path: str) -> None:
    tours = [block for block in TOURS[name] if block.section == section]
    text = "".join(block.text for block in tours)
    if "redis-cli" in text and shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed")
    with _left_to_the_collector(), redis_server() if REDIS in text else nullcontext() as beside:
        tour = Tour(tmp_path, beside.port if beside else 0)
        with tour.daemon as daemon:
            for block in tours:
                is_stopped = block.comment == "daemon: stopped"
                if is_stopped:
                    # A worker that was killed, and not yet back, would leave a file behind that check mentions.
                    wait_until(daemon.is_ready, 10, "every process to be back")
                    daemon.stop()
                faults = tour.run(block, name, path)
                assert not faults, f"{name}:{block.line}:\n" + "\n".join(faults)
                if is_stopped:
                    daemon.restart()
