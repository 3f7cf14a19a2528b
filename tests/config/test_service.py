"""The systemd unit, as systemd itself judges it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kio import limits

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = (DEPLOY / "kio.service").read_text(encoding="utf-8")
#: What Debian's own redis-server.service scores.
EXPOSURE_MAX = 1.2

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def value_of(key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = value_of("ExecStart").split()[0]
    unit = tmp_path / "kio.service"
    unit.write_text(UNIT.replace(program, sys.executable), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_unit_is_exposed_no_more_than_a_careful_service() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(DEPLOY / "kio.service")],
        check=True,
        capture_output=True,
        text=True,
    )
    exposure = re.search(r"Overall exposure level for kio\.service: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout
    assert float(exposure[1]) <= EXPOSURE_MAX


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_systemd_can_make_the_user(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", str(DEPLOY / "kio.sysusers")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Would create user 'kio'" in done.stdout + done.stderr or "Creating user 'kio'" in done.stdout + done.stderr


def test_a_worker_may_pin_itself() -> None:
    assert "@resources" not in re.findall(r"^SystemCallFilter=~(.*)$", UNIT, re.MULTILINE)


def test_the_unit_runs_the_deployed_configuration_in_a_private_directory() -> None:
    assert value_of("ExecStart").endswith("kio serve --config /etc/kio/kio.toml")
    assert (value_of("StateDirectory"), value_of("StateDirectoryMode")) == ("kio", "0700")
    assert (value_of("Type"), value_of("User")) == ("notify", "kio")


def test_there_are_descriptors_for_every_connection_and_segment() -> None:
    assert int(value_of("LimitNOFILE")) > limits.CONNECTIONS_MAX + 1024 * limits.OPEN_SEGMENTS
