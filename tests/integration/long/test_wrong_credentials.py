"""What doctor and commands say when an option of Kafka's security is wrong; ``make test-kafka-security``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.cli.main import main
from tests.secure_kafka import PASSPHRASE, PASSWORD, SecureKafka

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("wrong")) as broker:
        yield broker


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("WRONG", "canary-wrong")


def wrong(secure: SecureKafka) -> dict[str, tuple[list[str], str]]:
    """By case: options, and what doctor and commands say."""
    scram, mutual = secure.scram("env:KAFKA_PASSWORD"), secure.mutual()
    return {
        "password": (secure.scram("env:WRONG"), "see --kafka_user and --kafka_password"),
        "user": ([*scram, "--kafka_user=nobody"], "see --kafka_user and --kafka_password"),
        "no such secret": (secure.scram("env:NONE"), "--kafka_password is env:NONE: no such environment variable"),
        "CA": ([*scram, f"--kafka_ca_file={secure.stranger.ca_file}"], "--kafka_ca_file must have the CA"),
        "public CAs": ([word for word in scram if "ca_file" not in word], "--kafka_ca_file must have the CA"),
        "host": ([*scram, f"--bootstrap_servers={secure.wrong_name}"], "the broker's certificate is for another name"),
        "no certificate": ([word for word in mutual if not word.startswith(("--kafka_certificate", "--kafka_key"))],
                           "see --kafka_certificate_file and --kafka_key"),
        "certificate and key": (secure.mutual(key=f"file:{secure.encrypted_key}"),
                                "see --kafka_certificate_file, --kafka_key and --kafka_key_passphrase"),
        "passphrase": (secure.mutual(passphrase="env:WRONG"),
                       "see --kafka_certificate_file, --kafka_key and --kafka_key_passphrase"),
        "no TLS": ([f"--bootstrap_servers={secure.sasl_ssl}"], "see --kafka_security"),
        "no login": ([f"--bootstrap_servers={secure.sasl_ssl}", "--kafka_security=SSL", scram[-1]],
                     "see --kafka_security"),
    }  # fmt: skip


CASES = [
    "password", "user", "no such secret", "CA", "public CAs", "host", "no certificate", "certificate and key",
    "passphrase", "no TLS", "no login",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_doctor_and_commands_say_which_option_is_wrong(
    secure: SecureKafka, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options, advice = wrong(secure)[case]
    assert main(["doctor", *options]) == 1
    shown = capsys.readouterr()
    (line,) = [line for line in shown.out.splitlines() if line.startswith("FAIL  Kafka")]
    assert advice in line
    assert main(["rules", "status", "--rules_topic=r", *options]) == 2
    failed = capsys.readouterr()
    # Of another protocol or host librdkafka says too little.
    assert case in ("host", "no TLS", "no login") or advice in failed.err
    assert "canary" not in shown.out + shown.err + failed.out + failed.err
