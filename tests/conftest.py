"""What every test shares: how Hypothesis runs here, and how many tests run side by side.

No deadline for one example, since these machines are shared; a failure prints the line that repeats it. Tests wait for
processes and disks about a third of their time, so `-n auto` is one more than there are cores.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("kio", deadline=None, print_blob=True)
settings.load_profile("kio")


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means."""
    return len(os.sched_getaffinity(0)) + 1
