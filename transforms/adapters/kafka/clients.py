"""What a client of librdkafka needs beyond its properties: secrets, tokens of AWS, and why it has no connection.

Properties travel with references (``env:``, ``file:``, ``aws-secret:``) instead of secrets. ``connectable`` reads the
secrets when a client is made, in the process that uses it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError

from transforms.adapters.secrets import read_secret
from transforms.domain.base.checked_documents import FileError, read_regular_file
from transforms.domain.base.secret_references import SecretError, is_reference

# Names of properties whose values are secrets.
CONFIDENTIAL: Final = (
    r".*(password|secret|credential|passphrase|user\.info|api\.?key|access\.?key|private\.?key).*"
    r"|sasl\.(jaas|oauthbearer)\.config|ssl\.(keystore\.)?key(\.pem)?"
)
# ``sasl.oauthbearer.config`` of a client that logs in by AWS's IAM, followed by the region if it is known.
MSK_IAM: Final = "aws-msk-iam:"
# Options by what librdkafka calls them, for errors.
_OPTIONS: Final = {
    "sasl.username": "kafka_user",
    "sasl.password": "kafka_password",
    "ssl.key.pem": "kafka_key",
    "ssl.key.password": "kafka_key_passphrase",
}
_FILES: Final = {"ssl.ca.location": "kafka_ca_file", "ssl.certificate.location": "kafka_certificate_file"}
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")
_REASONS: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._TRANSPORT)
_KEPT_REASONS: Final = 20
_TOKEN_PAUSE_S: Final = 60.0
_LOG: Final = logging.getLogger("event_trigger.kafka")
_reasons: deque[tuple[int, str]] = deque(maxlen=_KEPT_REASONS)
_MAX_CERTIFICATES_BYTES: Final = 1024 * 1024  # all public CAs are some 220 KB
_lock: Final = threading.Lock()
_count = 0


def is_secret_property(name: str) -> bool:
    """Whether the value of a property is a secret."""
    return re.fullmatch(CONFIDENTIAL, name) is not None


def connectable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The properties as a client takes them: with the secrets that they refer to, and callbacks.

    Raises:
        SecretError: a secret or a file of certificates cannot be read or has another form, or AWS gives no token; the
            message names the option and the reference.
    """
    found: dict[str, Any] = {"error_cb": _remember, **config}
    for name in _FILES.keys() & config.keys():
        _check_certificates(f"--{_FILES[name]}", str(config[name]))
    for name, value in config.items():
        if isinstance(value, str) and is_reference(value) and (is_secret_property(name) or name == "sasl.username"):
            try:
                found[name] = read_secret(value, _check_key if name == "ssl.key.pem" else _check_text)
            except SecretError as error:
                label = f"--{_OPTIONS[name]}" if name in _OPTIONS else f"Kafka property {name!r}"
                raise SecretError(f"{label} is {error}") from None
    msk_iam = str(config.get("sasl.oauthbearer.config", ""))
    if msk_iam.startswith(MSK_IAM):
        found["oauth_cb"] = _MskTokens(msk_iam.removeprefix(MSK_IAM))
    return found


def _check_text(text: str) -> None:
    if not text:
        raise SecretError("is empty")
    # librdkafka would end it at a zero byte, and brokers would only say that it is wrong.
    if _CONTROL.search(text):
        raise SecretError("has line breaks or other control characters, allowed: one line")


def _check_key(text: str) -> None:
    if not text:
        raise SecretError("is empty")
    if not re.search("-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*-----END [A-Z ]{0,30}PRIVATE KEY-----", text, re.DOTALL):
        raise SecretError("has no whole private key, allowed: PKCS #8 in PEM, from BEGIN to END")


def _check_certificates(option: str, path: str) -> None:
    """As librdkafka does not name the file, and takes an empty folder for CAs."""
    try:
        text = read_regular_file(Path(path), _MAX_CERTIFICATES_BYTES)
    except OSError as error:
        raise SecretError(f"{option} is {path!r}: {error.strerror}") from None
    except FileError as error:
        raise SecretError(f"{option} is {path!r}: {error}") from None
    if not re.search(b"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----", text):
        raise SecretError(f"{option} is {path!r}: no certificate in it, allowed: a file of PEM")


class _MskTokens:
    """Tokens of AWS's IAM for Amazon MSK. The first is made at once, further ones when librdkafka asks for them.

    Raises:
        SecretError: this machine has no credentials of AWS, or the region is not known.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._first: tuple[str, float] | None = self._new()
        self._newest = self._first[0]

    def __call__(self, _: str) -> tuple[str, float]:
        """A token, and when it ends [s since the epoch]."""
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            token, ends_s = self._new()
        except SecretError as error:
            # An exception in a callback would break the client. Brokers refuse the token once it has ended.
            _LOG.warning("%s; the former token stays in use", error)
            return self._newest, time.time() + _TOKEN_PAUSE_S
        self._newest = token
        return token, ends_s

    def _new(self) -> tuple[str, float]:
        # Imported here because it takes 0.3 s, which only users of MSK should wait for.
        import boto3
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

        problem = "--kafka_sasl_mechanism is AWS_MSK_IAM, but"
        region = self._region or boto3.session.Session().region_name
        if not region:
            raise SecretError(f"{problem} the region is neither in the brokers' names nor in AWS_REGION")
        try:
            token, ends_ms = MSKAuthTokenProvider.generate_auth_token(region)
        except Exception as error:  # noqa: BLE001 - any of botocore's
            raise SecretError(f"{problem} this machine has no credentials of AWS ({type(error).__name__})") from None
        return token, ends_ms / 1000


# Why there is no connection


def _remember(error: KafkaError) -> None:
    global _count
    if error.code() not in _REASONS:
        return
    text, _, _ = " ".join(str(error.str()).split()).partition(" (after ")
    with _lock:
        _count += 1
        if _reasons and _reasons[-1][1] == text:  # at each try
            _reasons.pop()
        _reasons.append((_count, text))


@contextlib.contextmanager
def reasons_since() -> Iterator[list[str]]:
    """The list to which, when the context ends, librdkafka's own errors of meanwhile are added.

    They say why there is no connection, where an exception knows only a timeout. Clients of other threads count, too.
    """
    with _lock:
        start = _count
    found: list[str] = []
    try:
        yield found
    finally:
        with _lock:
            found += [reason for number, reason in _reasons if number > start]
