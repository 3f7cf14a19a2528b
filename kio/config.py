"""The daemon's settings: what there is to set, and which value holds.

A value comes from the first of these that has one, and its origin is kept beside it:

    the flag            --sync-interval-ms 50         origin "--sync-interval-ms"
    the environment     KIO_SYNC_INTERVAL_MS=50       origin "KIO_SYNC_INTERVAL_MS"
    the TOML file       sync_interval_ms = 50         origin: the file's path
    the catalogue                                     origin "default"

The fields of `Settings` are the only list of settings. `CATALOGUE` is made from them, and from it parsing, range
checks, `kio config show`, the flags of `kio serve` and the test that compares deploy/kio.toml.

Invariants: a `Settings` that exists is valid (it checks itself, wherever it was made); whatever looks like a setting
and is none is an error that names it, so that a misspelt `sync` never silently means the default.
Not here: which file is read when none is named, and KIO_CONFIG, KIO_DEBUG and KIO_URL: those are the CLI's. What a data
directory fixes for itself (seed, number of shards) stands in its identity file (segments/identity.py).
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from kio import limits
from kio.errors import ConfigError

DEFAULT: Final = "default"
VARIABLE_PREFIX: Final = "KIO_"
#: Variables that begin with the prefix and are not settings of the daemon; the CLI reads them.
VARIABLES_OF_THE_CLI: Final = frozenset({"KIO_URL", "KIO_CONFIG", "KIO_DEBUG"})
#: A Unix socket's path has this many bytes at most (sun_path, with its closing NUL).
SOCKET_PATH_BYTES_MAX: Final = 107

Value = bool | int | float | str | Path


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, what it may be, and what it does.

    Attributes:
        name: the key in TOML and the field of `Settings`.
        default: the value where nothing else is said; its type is the setting's type.
        help: one sentence, with the unit and what a special value means.
        low, high: the range of a number, both ends allowed; the number is whole where the default is.
        choices: the words a text may be; empty where any text is taken.
    """

    name: str
    default: Value
    help: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The flag of `kio serve` that sets it."""
        return "--" + self.name.replace("_", "-")

    @property
    def range(self) -> str:
        """What it may be, as a person reads it: `0..65535`, `always | interval | os`, `true | false`, `path` ...."""
        if isinstance(self.default, bool):
            return "true | false"
        if isinstance(self.default, int | float):
            return f"{self.low}..{self.high}"
        if self.choices:
            return " | ".join(self.choices)
        return "path" if isinstance(self.default, Path) else "text"

    def parse(self, value: object, origin: str) -> Value:
        """`value` as this setting's type, within its range.

        Text is taken for a number only when it is ASCII digits and nothing else; where the number need not be whole,
        there may be a point between them. Text is taken for a truth only when it is "true" or "false".

        Raises:
            ConfigError: when it is of another type or out of range; the message names the setting and `origin`.
        """
        if isinstance(self.default, bool):
            truth = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
            if not isinstance(truth, bool):
                raise self._refuse(value, origin, "true or false")
            return truth
        if isinstance(self.default, int | float):
            is_whole = isinstance(self.default, int)
            number = _number(value) if is_whole else _decimal(value)
            if number is None or not self.low <= number <= self.high:
                kind = "a whole number" if is_whole else "a number"
                raise self._refuse(value, origin, f"{kind} from {self.low} to {self.high}")
            return number
        if not isinstance(value, str | Path):
            raise self._refuse(value, origin, "a text")
        text = os.fspath(value)
        if "\0" in text:
            raise self._refuse(value, origin, "a text without a NUL byte")
        if self.choices and text not in self.choices:
            raise self._refuse(value, origin, "one of " + ", ".join(self.choices))
        if not isinstance(self.default, Path):
            return text
        if not text:
            raise self._refuse(value, origin, "a path")
        return Path(text)

    def _refuse(self, value: object, origin: str, wanted: str) -> ConfigError:
        shown = str(value) if isinstance(value, Path) else value
        return ConfigError(f"{self.name} is {shown!r} (from {origin}); it must be {wanted}")


def _setting(default: Value, help: str, **bounds: Any) -> Any:
    return field(default=default, metadata={"default": default, "help": help, **bounds})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values that hold. What is left out has its default.

    Raises:
        ConfigError: when a value is of the wrong type, out of range, or contradicts another.
    """

    data: Path = _setting(Path("/var/lib/kio"), "The data directory; it is created when it is not there.")
    host: str = _setting(
        "127.0.0.1",
        "The IP address to listen on; one that other machines can reach needs users_file, see protected_mode.",
    )
    port: int = _setting(7400, "The TCP port of the native protocol; 0 takes any free port.", high=65_535)
    resp_port: int = _setting(
        7379,
        "The TCP port for Redis clients (RESP2 and RESP3); 0 takes any free port.",
        high=65_535,
    )
    http_port: int = _setting(
        7480,
        "The TCP port of the admin HTTP door (health and metrics); 0 takes any free port.",
        high=65_535,
    )
    socket: str = _setting(
        "", "The path of a Unix socket for the native protocol, beside the TCP port; empty makes none."
    )
    resp_socket: str = _setting(
        "", "The path of a Unix socket for Redis clients, beside the TCP port; empty makes none."
    )
    users_file: str = _setting(
        "",
        "The path of the TOML file of users, which `kio user` keeps; empty lets everybody do everything.",
    )
    protected_mode: bool = _setting(
        True,
        "Whether an address that other machines can reach is refused where somebody comes in without a password.",
    )
    tls_cert_file: str = _setting(
        "",
        "The path of the PEM file of the server's certificate and its chain; set, TCP clients must speak TLS, "
        "empty is no TLS.",
    )
    tls_key_file: str = _setting("", "The path of the PEM file of the certificate's key, which is not encrypted.")
    tls_ca_file: str = _setting(
        "",
        "The path of the PEM file of those who sign clients' certificates; set, a client must show one, empty asks "
        "for none.",
    )
    tls_min_version: str = _setting("1.2", "The oldest version of TLS that is spoken.", choices=("1.2", "1.3"))
    workers: int = _setting(
        0,
        "How many worker processes to run, each pinned to a core; 0 is one per core that the daemon may use.",
        high=limits.SHARDS_MAX,
    )
    shards: int = _setting(
        0,
        "How many shards a new data directory gets, 0 being one per worker; an existing one keeps the number it has.",
        high=limits.SHARDS_MAX,
    )
    sync: str = _setting(
        "interval",
        "When writes reach the disk: always = before the reply, interval = every sync_interval_ms, "
        "os = when the kernel likes.",
        choices=("always", "interval", "os"),
    )
    sync_interval_ms: int = _setting(
        100,
        "The longest time in milliseconds that an acknowledged write stays unsynced where sync is interval.",
        low=1,
        high=60_000,
    )
    segment_mib: int = _setting(
        limits.SEGMENT_MIB,
        "The size in MiB at which a segment is sealed and the next one begun.",
        low=1,
        high=limits.SEGMENT_MIB_MAX,
    )
    space_amplification: float = _setting(
        limits.SPACE_AMPLIFICATION,
        "How many bytes of records a shard may hold for each live byte before it is compacted.",
        low=1.05,
        high=100.0,
    )
    dead_ratio: float = _setting(
        0.0,
        "The dead part above which a segment is compacted for itself, whatever the whole shard holds; 0 is never.",
        low=0.0,
        high=1.0,
    )
    checkpoint_interval_s: int = _setting(
        60,
        "The longest time in seconds that writes wait for a checkpoint; a start reads again what none holds.",
        low=1,
        high=86_400,
    )
    open_segments: int = _setting(
        limits.OPEN_SEGMENTS,
        "How many sealed segments a worker keeps open for reading.",
        low=1,
        high=limits.SEGMENTS_PER_SHARD_MAX,
    )
    max_memory_mib: int = _setting(
        0,
        "The memory in MiB that all shards together take for keys and buffers at most; past it new keys are refused, "
        "0 is no bound.",
        high=limits.MEMORY_MIB_MAX,
    )
    max_value_bytes: int = _setting(
        limits.VALUE_BYTES_MAX,
        "The longest value in bytes that a client may store.",
        low=1,
        high=limits.VALUE_BYTES_CEILING,
    )
    max_connections: int = _setting(
        limits.CONNECTIONS_MAX,
        "How many clients may be connected; one more is closed at once.",
        low=1,
        high=1_000_000,
    )
    idle_timeout_s: int = _setting(
        0,
        "How long in seconds a client that asks nothing stays connected; 0 is for ever.",
        high=31_536_000,
    )
    client_requests_per_s: int = _setting(
        0,
        "How many requests a second one connection may make, the others wait; 0 is no bound.",
        high=100_000_000,
    )
    debug_commands: bool = _setting(
        False,
        "Whether an administrator may stall every client of Redis with DEBUG SLEEP, to test what clients do then.",
    )
    log_level: str = _setting(
        "info",
        "The least severe log lines that are written.",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = _setting(
        "auto",
        "How log lines look: text has timestamps, journal has priority prefixes, "
        "auto is journal where stderr leads to journald.",
        choices=("auto", "text", "journal"),
    )

    def __post_init__(self) -> None:
        for name, value in self.items():
            BY_NAME[name].parse(value, "the program")
        _check_host(self)
        _check_socket("socket", self.socket)
        _check_socket("resp_socket", self.resp_socket)
        _check_ports(self)
        _check_tls(self)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach the address that is listened on."""
        return self.host != "localhost" and not ipaddress.ip_address(self.host).is_loopback

    def items(self) -> Iterator[tuple[str, Value]]:
        """(name, value) of every setting, in the catalogue's order."""
        for setting in CATALOGUE:
            yield setting.name, getattr(self, setting.name)


#: Every setting, in the order of the fields above.
CATALOGUE: Final[tuple[Setting, ...]] = tuple(Setting(f.name, **f.metadata) for f in fields(Settings))
BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in CATALOGUE}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each name where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


def load(config: Path | None, environ: Mapping[str, str], flags: Mapping[str, Value | None]) -> Loaded:
    """The settings that hold for this start.

    Args:
        config: the TOML file, or None where there is none to read.
        environ: the environment; only KIO_* is looked at.
        flags: setting name -> what stood on the command line; None where the flag was not given.

    Raises:
        ConfigError: when the file cannot be read or is not TOML, a setting is not known, or its value is refused.
    """
    values: dict[str, Value] = {}
    origins = {setting.name: DEFAULT for setting in CATALOGUE}
    for name, value, origin in (*_from_file(config), *_from_environment(environ), *_from_flags(flags)):
        values[name] = BY_NAME[name].parse(value, origin)
        origins[name] = origin
    arguments: dict[str, Any] = dict(values)
    return Loaded(Settings(**arguments), origins)


def _from_file(config: Path | None) -> Iterator[tuple[str, object, str]]:
    if config is None:
        return
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration file {config} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {config} is not TOML: {error}") from error
    for name, value in document.items():
        if name not in BY_NAME:
            raise _unknown(f"setting {name!r} in {config}", name, list(BY_NAME))
        yield name, value, str(config)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, object, str]]:
    by_variable = {setting.variable: setting.name for setting in CATALOGUE}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(VARIABLE_PREFIX) or variable in VARIABLES_OF_THE_CLI:
            continue
        if variable not in by_variable:
            raise _unknown(f"variable {variable!r} in the environment", variable, list(by_variable))
        yield by_variable[variable], value, variable


def _from_flags(flags: Mapping[str, Value | None]) -> Iterator[tuple[str, object, str]]:
    for name, value in flags.items():
        if name not in BY_NAME:
            raise _unknown(f"flag {name!r}", name, list(BY_NAME))
        if value is not None:
            yield name, value, BY_NAME[name].flag


def _unknown(what: str, name: str, known: list[str]) -> ConfigError:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return ConfigError(f"there is no {what}; the nearest known name is {nearest!r}")


def _number(value: object) -> int | None:
    """`value` as a whole number; None for whatever a person would not call one (True, 1.0, "+1", "1_0")."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(limits.GIB)):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _decimal(value: object) -> float | None:
    """`value` as a number that need not be whole; None for what a person would not write so ("1e3", ".5", "nan")."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII):
        return float(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _check_host(settings: Settings) -> None:
    host = settings.host
    try:
        is_exposed = settings.is_exposed
    except ValueError:
        raise ConfigError(f"host is {host!r}; it must be an IP address, such as 127.0.0.1 or ::1") from None
    if is_exposed and settings.protected_mode and not settings.users_file:
        raise ConfigError(
            f"host is {host!r}, which other machines can reach, and without users_file everybody may do everything: "
            'set users_file ("kio user add" makes it), or host to 127.0.0.1 or ::1; protected_mode = false takes it '
            "as it is"
        )


def _check_tls(settings: Settings) -> None:
    if bool(settings.tls_cert_file) != bool(settings.tls_key_file):
        given, missing = ("cert", "key") if settings.tls_cert_file else ("key", "cert")
        raise ConfigError(
            f"tls_{given}_file is set and tls_{missing}_file is not; TLS needs both, which may name one file"
        )
    if settings.tls_ca_file and not settings.tls_cert_file:
        raise ConfigError("tls_ca_file is set and tls_cert_file is not; without a certificate there is no TLS")


def _check_socket(name: str, path: str) -> None:
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"{name} is a path of {length} bytes; a Unix socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"
        )


def _check_ports(settings: Settings) -> None:
    by_port: dict[int, str] = {}
    for name in ("port", "resp_port", "http_port"):
        port = getattr(settings, name)
        if port and port in by_port:
            raise ConfigError(f"{by_port[port]} and {name} are both {port}; give each its own port")
        by_port[port] = name
