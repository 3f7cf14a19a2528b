"""What tests of the engine share: the kernel is not asked to flush.

A killed process does not need it, and what a power cut takes is known to the fake disk (faulty_disk.py), not to the
kernel. Real disks are flushed, and cut off, in tests/crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_flush() -> Iterator[None]:
    """A flush checks its descriptor, and that is all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        patch.setattr(os, "fdatasync", os.fstat)
        yield
