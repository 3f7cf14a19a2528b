"""Where a setting's value comes from, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kio import config, limits
from kio.config import CATALOGUE, Loaded, Settings, load
from kio.errors import ConfigError


def load_toml(tmp_path: Path, text: str, **flags: config.Value) -> Loaded:
    file = tmp_path / "kio.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, {}, flags)


def test_defaults_stand_where_nothing_is_said() -> None:
    loaded = load(None, {}, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.settings.data == Path("/var/lib/kio")
    assert (loaded.settings.port, loaded.settings.resp_port, loaded.settings.http_port) == (7400, 7379, 7480)
    assert (loaded.settings.host, loaded.settings.sync) == ("127.0.0.1", "interval")


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kio.toml"
    file.write_text('port = 1\nworkers = 2\nshards = 3\nsync = "os"\n')
    loaded = load(file, {"KIO_PORT": "11", "KIO_WORKERS": "12"}, {"port": 21, "shards": None})
    settings = loaded.settings
    assert (settings.port, settings.workers, settings.shards, settings.sync) == (21, 12, 3, "os")
    assert loaded.origins["port"] == "--port"
    assert loaded.origins["workers"] == "KIO_WORKERS"
    assert loaded.origins["shards"] == str(file)
    assert loaded.origins["sync_interval_ms"] == "default"


def test_flags_and_variables_have_the_names_of_the_settings() -> None:
    by_name = config.BY_NAME
    assert by_name["sync_interval_ms"].flag == "--sync-interval-ms"
    assert by_name["sync_interval_ms"].variable == "KIO_SYNC_INTERVAL_MS"


@pytest.mark.parametrize("setting", CATALOGUE, ids=lambda s: s.name)
def test_every_setting_accepts_its_default_from_every_source(tmp_path: Path, setting: config.Setting) -> None:
    text = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    toml = text if isinstance(setting.default, int | float) else f'"{text}"'
    assert load_toml(tmp_path, f"{setting.name} = {toml}").settings == Settings()
    assert load(None, {setting.variable: text}, {}).settings == Settings()
    assert load(None, {}, {setting.name: setting.default}).settings == Settings()


@pytest.mark.parametrize("text", ["1e1", ".5", "1.", "nan", "inf", "-1.5", "+1.5", "1_0.0", " 1.5", "1,5", "", "0x2"])
def test_a_number_with_a_point_is_digits_a_point_and_digits(text: str) -> None:
    with pytest.raises(ConfigError, match="a number from"):
        load(None, {"KIO_SPACE_AMPLIFICATION": text}, {})


def test_a_number_with_a_point_is_taken_from_text_and_from_toml_whole_or_not(tmp_path: Path) -> None:
    assert load(None, {"KIO_SPACE_AMPLIFICATION": "2"}, {}).settings.space_amplification == 2.0
    assert load(None, {}, {"dead_ratio": "0.25"}).settings.dead_ratio == 0.25
    assert load_toml(tmp_path, "space_amplification = 3").settings.space_amplification == 3.0
    for refused in ("true", "nan", "inf", "1.04", "100.5", '"1.5.1"'):
        with pytest.raises(ConfigError, match="space_amplification"):
            load_toml(tmp_path, f"space_amplification = {refused}")


@pytest.mark.parametrize("setting", CATALOGUE, ids=lambda s: s.name)
def test_every_setting_says_in_one_sentence_what_it_does(setting: config.Setting) -> None:
    assert setting.help.endswith(".")
    assert setting.help.count(". ") == 0
    assert setting.range
    for unit, words in {"_ms": "milliseconds", "_mib": "MiB", "_bytes": "bytes"}.items():
        assert not setting.name.endswith(unit) or words in setting.help


@pytest.mark.parametrize("setting", [s for s in CATALOGUE if type(s.default) is int], ids=lambda s: s.name)
def test_a_number_is_taken_at_both_ends_of_its_range_and_not_past_them(setting: config.Setting) -> None:
    assert setting.parse(setting.low, "here") == setting.low
    assert setting.parse(str(setting.high), "here") == setting.high
    for wrong in (setting.low - 1, setting.high + 1, str(setting.high + 1)):
        with pytest.raises(ConfigError, match=f"{setting.name} is .*from here.*{setting.low} to {setting.high}"):
            setting.parse(wrong, "here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "1_0",
        "1.0",
        "1e3",
        "0x10",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\N{SUPERSCRIPT TWO}",
        "9" * 5000,
        "true",
    ],
)
def test_a_number_in_text_is_ascii_digits_and_nothing_else(text: str) -> None:
    with pytest.raises(ConfigError, match="port is .*from KIO_PORT.*whole number"):
        load(None, {"KIO_PORT": text}, {})


@pytest.mark.parametrize("toml", ["port = true", "port = 7400.0", "host = 1", "port = [1]", "sync = 1", "data = 1"])
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, toml: str) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_toml(tmp_path, toml)


@pytest.mark.parametrize(
    ("environ", "nearest"), [({"KIO_PROT": "1"}, "KIO_PORT"), ({"KIO_SYNC_INTERVAL": "1"}, "KIO_SYNC_INTERVAL_MS")]
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(environ: dict[str, str], nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(environ))!r} in the environment.*{nearest!r}"):
        load(None, environ, {})


def test_an_unknown_key_is_refused_with_the_nearest_name_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'sink' in .*kio\.toml.*'sync'"):
        load_toml(tmp_path, 'sink = "always"')


def test_a_table_in_the_file_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'server'"):
        load_toml(tmp_path, "[server]\nport = 1\n")


def test_variables_that_the_cli_reads_are_not_settings() -> None:
    assert load(None, {"KIO_URL": "kio://127.0.0.1:1", "KIO_CONFIG": "/x", "KIO_DEBUG": "1"}, {}).settings == Settings()


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match="'prot'.*'port'"):
        load(None, {}, {"prot": 1})


def test_a_file_that_is_missing_or_not_toml_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing.*cannot be read: No such file"):
        load(tmp_path / "missing", {}, {})
    with pytest.raises(ConfigError, match=r"is not TOML: .*line 2"):
        load_toml(tmp_path, "port = 1\nport 2\n")
    (tmp_path / "latin").write_bytes(b'host = "\xe9"')
    with pytest.raises(ConfigError, match="is not TOML"):
        load(tmp_path / "latin", {}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_addresses_are_taken(host: str) -> None:
    assert Settings(host=host).host == host
    assert not Settings(host=host).is_exposed


@pytest.mark.parametrize("text", ["True", "yes", "1", "0", "on", "", " true"])
def test_a_truth_is_the_word_true_or_false(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="protected_mode is .*from KIO_PROTECTED_MODE.*true or false"):
        load(None, {"KIO_PROTECTED_MODE": text}, {})
    with pytest.raises(ConfigError, match="true or false"):
        load_toml(tmp_path, "protected_mode = 1")
    assert not load_toml(tmp_path, "protected_mode = false").settings.protected_mode
    assert not load(None, {"KIO_PROTECTED_MODE": "false"}, {}).settings.protected_mode
    assert load_toml(tmp_path, "protected_mode = false", protected_mode="true").settings.protected_mode


def test_tls_needs_a_certificate_and_its_key() -> None:
    assert Settings(tls_cert_file="a", tls_key_file="a", tls_ca_file="b").tls_min_version == "1.2"
    with pytest.raises(ConfigError, match="tls_cert_file is set and tls_key_file is not"):
        Settings(tls_cert_file="a")
    with pytest.raises(ConfigError, match="tls_key_file is set and tls_cert_file is not"):
        Settings(tls_key_file="a")
    with pytest.raises(ConfigError, match="tls_ca_file is set and tls_cert_file is not"):
        Settings(tls_ca_file="a")
    with pytest.raises(ConfigError, match=r"tls_min_version is '1.1'.*one of 1.2, 1.3"):
        Settings(tls_min_version="1.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "2001:db8::1"])
def test_an_address_that_others_can_reach_needs_users_or_a_word_that_it_does_not(host: str) -> None:
    with pytest.raises(ConfigError, match="other machines can reach.*users_file.*protected_mode"):
        Settings(host=host)
    assert Settings(host=host, users_file="/etc/kio/users.toml").is_exposed
    assert Settings(host=host, protected_mode=False).is_exposed


@pytest.mark.parametrize("host", ["", "example", "127.0.0.1:7400", "127.0.0.1 ", "127.1"])
def test_a_host_that_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="IP address"):
        Settings(host=host)


def test_two_doors_on_one_port_are_refused_but_any_free_port_may_be_asked_for_twice() -> None:
    with pytest.raises(ConfigError, match="port and http_port are both 7000"):
        Settings(port=7000, http_port=7000)
    assert Settings(port=0, http_port=0, resp_port=0).port == 0


def test_a_socket_path_must_fit_the_kernels_address() -> None:
    assert Settings(socket="/" + "x" * 106)
    with pytest.raises(ConfigError, match="108 bytes"):
        Settings(socket="/" + "x" * 107)
    with pytest.raises(ConfigError, match="NUL"):
        Settings(socket="/run/\0kio")


def test_an_empty_data_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="data is ''"):
        load(None, {"KIO_DATA": ""}, {})


def test_settings_check_themselves_wherever_they_are_made() -> None:
    with pytest.raises(ConfigError, match="segment_mib is 257"):
        Settings(segment_mib=257)
    with pytest.raises(ConfigError, match="sync is 'never'.*always, interval, os"):
        Settings(sync="never")


def test_settings_do_not_change_after_they_are_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_the_limits_are_the_defaults_and_the_ceilings() -> None:
    assert config.BY_NAME["max_value_bytes"].default == limits.VALUE_BYTES_MAX
    assert config.BY_NAME["max_value_bytes"].high == limits.VALUE_BYTES_CEILING
    assert config.BY_NAME["segment_mib"].high == limits.SEGMENT_MIB_MAX
