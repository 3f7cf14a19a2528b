"""What the files of the settings make of TLS, and what is refused with the file's name."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from kio.errors import ConfigError
from kio.tls import ServerTls, client_context
from tests.tls import AUTHORITY, HERE, private


@pytest.fixture
def server(tmp_path: Path) -> Path:
    return private("server.pem", tmp_path)


def test_only_suites_with_forward_secrecy_and_versions_from_the_oldest_on_are_spoken(server: Path) -> None:
    context = ServerTls(server, server).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert all(re.search("^TLS_|^ECDHE-.*(GCM|CHACHA20)", suite["name"]) for suite in context.get_ciphers())
    assert context.verify_mode is ssl.CERT_NONE
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert ServerTls(server, server, None, "1.3").context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_clients_are_asked_for_a_certificate_where_an_authority_is_named(server: Path) -> None:
    assert ServerTls(server, server, AUTHORITY).context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_helps(server: Path, mode: int) -> None:
    server.chmod(mode)
    with pytest.raises(ConfigError, match=f"tls_key_file .*server.pem has mode {mode:o}.*chmod 600"):
        ServerTls(server, server)


def test_every_wrong_file_is_named_with_its_fault(tmp_path: Path, server: Path) -> None:
    missing = tmp_path / "missing.pem"
    text = tmp_path / "text.pem"
    text.write_text("hello")
    text.chmod(0o600)
    cut = tmp_path / "cut.pem"
    cut.write_bytes(server.read_bytes()[:200] + b"\n" + server.read_bytes()[-400:])
    cut.chmod(0o600)
    cases = [
        ((missing, server), "tls_cert_file .*missing.pem cannot be read: No such file"),
        ((server, missing), "tls_key_file .*missing.pem cannot be read: No such file"),
        ((server, server, missing), "tls_ca_file .*missing.pem cannot be read: No such file"),
        ((text, server), "tls_cert_file .*text.pem holds no certificate in PEM"),
        ((server, text), "tls_key_file .*text.pem holds no private key in PEM"),
        ((server, server, text), "tls_ca_file .*text.pem holds no certificate in PEM"),
        ((server, private("renewed.pem", tmp_path)), "key in tls_key_file .*renewed.pem is not that of .*server.pem"),
        ((server, private("encrypted.key", tmp_path)), "tls_key_file .*encrypted.key is encrypted"),
        ((cut, cut), "tls_cert_file .*cut.pem with tls_key_file .*cut.pem: "),
        ((tmp_path, server), "tls_cert_file .* cannot be read: Is a directory"),
    ]
    for files, told in cases:
        with pytest.raises(ConfigError, match=told):
            ServerTls(*files)


def test_a_renewed_certificate_is_for_new_connections_and_a_broken_one_changes_nothing(
    tmp_path: Path, server: Path
) -> None:
    tls = ServerTls(server, server)
    before = tls.context
    server.write_bytes((HERE / "renewed.pem").read_bytes())
    tls.reload()
    renewed = tls.context
    assert renewed is not before
    server.write_text("half a file")
    with pytest.raises(ConfigError, match="holds no certificate"):
        tls.reload()
    assert tls.context is renewed


def test_a_client_verifies_unless_it_is_told_not_to(tmp_path: Path) -> None:
    context = client_context(AUTHORITY)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    assert client_context(verify=False).verify_mode is ssl.CERT_NONE
    assert client_context(cert_file=private("client.pem", tmp_path)).verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(ConfigError, match="tls_ca_file .*nowhere cannot be read"):
        client_context(tmp_path / "nowhere")
