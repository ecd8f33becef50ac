"""What doctor and commands say of TLS, with a server that speaks TLS and then nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.kafka import cluster_settings, topics
from tests.secure_kafka import PASSPHRASE, Authority

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Librdkafka tries until its time is over."""
    monkeypatch.setattr(cluster_settings, "_ANSWER_S", 2.0)
    monkeypatch.setattr(topics, "ANSWER_S", 4.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@contextlib.contextmanager
def serving(authority: Authority, host: str, asks_for_certificate: bool = False) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(f"of-{host}", (host,)))
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca_file)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as client:
            client.recv(1000)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["doctor", *options]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL  Kafka")]
    return line


def test_doctor_tells_another_ca_from_another_host_and_another_protocol(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = Authority(tmp_path, "stranger")
    with serving(authority, "127.0.0.1") as good, serving(authority, "elsewhere.example") as elsewhere:
        tls, ca_file = "--kafka_security=SSL", f"--kafka_ca_file={authority.ca_file}"
        line = doctor(capsys, f"--bootstrap_servers={good}", tls, f"--kafka_ca_file={stranger.ca_file}")
        assert "certificate verify failed" in line
        assert "--kafka_ca_file must have the CA that vouches for the brokers" in line
        line = doctor(capsys, f"--bootstrap_servers={elsewhere}", tls, ca_file)
        assert "give brokers in --bootstrap_servers by the name that it has" in line
        line = doctor(capsys, f"--bootstrap_servers={good}")
        assert "the port speaks TLS -> see --kafka_security" in line


def test_commands_say_that_brokers_want_a_certificate(authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(authority, "127.0.0.1", asks_for_certificate=True) as address:
        options = [f"--bootstrap_servers={address}", "--kafka_security=SSL", f"--kafka_ca_file={authority.ca_file}"]
        assert main(["destinations", "disable", "crm", "--control_topic=c", *options]) == 2
        error = capsys.readouterr().err
    assert error.startswith("error: control topic 'c': ")
    assert "the brokers refuse the client's certificate: see --kafka_certificate_file and --kafka_key" in error


@pytest.mark.parametrize("passphrase", [None, "env:WRONG"])
def test_a_key_that_cannot_be_used_is_said_at_once(
    authority: Authority, passphrase: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "canary-wrong")
    certificate, key = authority.issue("client", passphrase=PASSPHRASE)
    options = [
        "--bootstrap_servers=127.0.0.1:1",
        "--kafka_security=SSL",
        f"--kafka_certificate_file={certificate}",
        f"--kafka_key=file:{key}",
        *([f"--kafka_key_passphrase={passphrase}"] if passphrase else []),
    ]
    assert main(["why", "--user=u", "--decisions_topic=d", *options]) == 2
    error = capsys.readouterr().err
    assert "see --kafka_certificate_file, --kafka_key and --kafka_key_passphrase" in error
    assert "canary" not in error
