"""Certificates for the tests; make_certificates.sh says what they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
AUTHORITY: Final = HERE / "authority.pem"
STRANGER: Final = HERE / "stranger.pem"


def private(name: str, tmp_path: Path) -> Path:
    """A copy of a file here that others cannot read, as a key must be; a checkout does not keep modes."""
    path = tmp_path / name
    shutil.copyfile(HERE / name, path)
    path.chmod(0o600)
    return path
