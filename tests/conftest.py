"""What every test shares: how Hypothesis runs here.

No deadline for one example, since these machines are shared; a failure prints the line that repeats it.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kio", deadline=None, print_blob=True)
settings.load_profile("kio")
