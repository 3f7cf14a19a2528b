"""The flags of `kio serve` reach the settings, and only those that were given."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from kio.config import Loaded

from .conftest import Run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """The settings that the supervisor was started with."""
    started: list[Loaded] = []
    supervisor = ModuleType("kio.daemon.supervisor")
    supervisor.serve = lambda loaded: started.append(loaded) or 0  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "kio.daemon.supervisor", supervisor)
    monkeypatch.setattr("kio.daemon.supervisor", supervisor, raising=False)
    return started


def test_only_the_flags_that_are_given_count_as_flags(
    kio: Run, served: list[Loaded], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "kio.toml"
    file.write_text("workers = 2\nport = 1\n")
    monkeypatch.setenv("KIO_SYNC_INTERVAL_MS", "50")
    ran = kio("serve", "--data", "d", "--port", "0", "--sync", "always", "--config", str(file))
    assert (ran.code, ran.err) == (0, "")
    (loaded,) = served
    given = {
        name: (getattr(loaded.settings, name), origin) for name, origin in loaded.origins.items() if origin != "default"
    }
    assert given == {
        "data": (Path("d"), "--data"),
        "port": (0, "--port"),
        "sync": ("always", "--sync"),
        "workers": (2, str(file)),
        "sync_interval_ms": (50, "KIO_SYNC_INTERVAL_MS"),
    }


def test_a_value_that_a_setting_refuses_names_the_flag(kio: Run, served: list[Loaded]) -> None:
    ran = kio("serve", "--port", "70000")
    assert ran.code == 78
    assert ran.err == "kio: port is '70000' (from --port); it must be a whole number from 0 to 65535\n"
    assert served == []


def test_the_exit_code_is_the_supervisors(kio: Run, monkeypatch: pytest.MonkeyPatch, served: list[Loaded]) -> None:
    monkeypatch.setattr(sys.modules["kio.daemon.supervisor"], "serve", lambda loaded: 73)
    assert kio("serve").code == 73
