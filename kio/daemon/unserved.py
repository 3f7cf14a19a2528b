"""Settings that are known and that no door of this version keeps yet: a start that asks for one is refused.

Who sets tls_cert_file and gets a plain port, or users_file and gets an open one, would believe in a lock that is not
there.
"""

from __future__ import annotations

from kio.config import BY_NAME, Settings
from kio.errors import ConfigError

UNSERVED = ("users_file", "tls_cert_file", "idle_timeout_s", "client_requests_per_s")


def refuse(settings: Settings) -> None:
    """Refuse a start whose settings would not hold.

    Raises:
        ConfigError: when a setting that no door keeps is not its default.
    """
    for name in UNSERVED:
        if getattr(settings, name) != BY_NAME[name].default:
            raise ConfigError(f"{name} is set, and the doors of this version do not keep it yet; leave it out")
