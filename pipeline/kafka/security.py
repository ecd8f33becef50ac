"""How clients prove to Kafka who they are, and brokers to them: one description, for Java's clients and librdkafka's.

Nothing here reads a secret. The properties have references, which are read in the process where a client is made:
``transforms.adapters.kafka.clients`` for librdkafka, ``eventtrigger.flink.SecretProvider`` for Java.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.errors import OptionError
from transforms.adapters.kafka.clients import MSK_IAM
from transforms.domain.base.secret_references import ALLOWED, LOCAL, is_local_reference, is_reference

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM"]

AWS_MSK_IAM: Final = "AWS_MSK_IAM"
# What Java's clients need for AWS_MSK_IAM.
MSK_IAM_JAR: Final = "aws-msk-iam-auth"
_WITH_LOGIN: Final = ("SASL_PLAINTEXT", "SASL_SSL")
_WITH_TLS: Final = ("SSL", "SASL_SSL")
_LOGIN_MODULES: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
    AWS_MSK_IAM: "software.amazon.msk.auth.iam.IAMLoginModule",
}
_MSK_REGION: Final = re.compile(r"\.kafka(?:-serverless)?\.([a-z]{2}[a-z-]*-[0-9]+)\.amazonaws\.com", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """The options ``--kafka_…``, each under its own name; secrets are references.

    Attributes:
        kafka_ca_file: PEM file with the CAs that vouch for brokers; without it the machine's public ones.
        kafka_certificate_file: PEM file with the client's certificate, and those between it and its CA.
        kafka_key: reference of the certificate's private key, in PEM.
    """

    kafka_security: str = "PLAINTEXT"
    kafka_sasl_mechanism: str | None = None
    kafka_user: str | None = None
    kafka_password: str | None = None
    kafka_ca_file: str | None = None
    kafka_certificate_file: str | None = None
    kafka_key: str | None = None
    kafka_key_passphrase: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> KafkaSecurity:
        """The description that options by name give; others are left aside.

        Raises:
            OptionError: options that are not allowed together, or a secret instead of its reference.
        """
        given = {field.name: values.get(field.name) for field in fields(cls)}
        given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        security = cls(**{name: value for name, value in given.items() if value is not None})
        security.check()
        return security

    def check(self, on_flink: bool = False) -> None:
        """Check the options of each other; ``on_flink``: also for Java's clients.

        Raises:
            OptionError: names the option, its value unless that may be a secret, and what is allowed.
        """
        self._check_references(on_flink)
        self._check_login()
        self._check_tls()

    def _check_references(self, on_flink: bool) -> None:
        for name in ("kafka_password", "kafka_key", "kafka_key_passphrase"):
            reference = getattr(self, name)
            # Messages do not show what has another form: a user may have put the secret itself there.
            if reference is not None and not is_reference(reference):
                raise OptionError(f"--{name} is no reference, allowed: {ALLOWED}; never the secret itself")
        for name in ("kafka_user", "kafka_password", "kafka_key", "kafka_key_passphrase", "kafka_certificate_file"):
            value = getattr(self, name)
            if on_flink and value is not None and is_reference(value) and not is_local_reference(value):
                raise OptionError(f"--{name} is {value!r}, allowed on FlinkRunner: {LOCAL}")
            if value is not None and set("}\n\r\0") & set(value):
                raise OptionError(f"--{name} is {value!r}, allowed: without line breaks and '}}'")

    def _check_login(self) -> None:
        protocol, mechanism = self.kafka_security, self.kafka_sasl_mechanism
        if protocol in _WITH_LOGIN and mechanism is None:
            raise OptionError(
                f"--kafka_sasl_mechanism is missing, which --kafka_security={protocol} needs: "
                f"give {', '.join(_LOGIN_MODULES)}"
            )
        if protocol not in _WITH_LOGIN and mechanism is not None:
            raise OptionError(
                f"--kafka_sasl_mechanism is {mechanism}, allowed: with --kafka_security={' or '.join(_WITH_LOGIN)}, "
                f"not {protocol}"
            )
        if mechanism == AWS_MSK_IAM and protocol != "SASL_SSL":
            raise OptionError(f"--kafka_security is {protocol}, allowed with {AWS_MSK_IAM}: SASL_SSL")
        for name in ("kafka_user", "kafka_password"):
            if mechanism in (None, AWS_MSK_IAM):
                if getattr(self, name) is not None:
                    others = [other for other in _LOGIN_MODULES if other != AWS_MSK_IAM]
                    raise OptionError(
                        f"--{name} is of no use without --kafka_sasl_mechanism={', '.join(others[:-1])} or {others[-1]}"
                    )
            elif getattr(self, name) is None:
                raise OptionError(f"--{name} is missing, which --kafka_sasl_mechanism={mechanism} needs")

    def _check_tls(self) -> None:
        tls = ("kafka_ca_file", "kafka_certificate_file", "kafka_key", "kafka_key_passphrase")
        for name in tls:
            if self.kafka_security not in _WITH_TLS and getattr(self, name) is not None:
                raise OptionError(
                    f"--{name} is of no use without --kafka_security={' or '.join(_WITH_TLS)}; it is "
                    f"{self.kafka_security}"
                )
        if (self.kafka_certificate_file is None) != (self.kafka_key is None):
            raise OptionError("--kafka_certificate_file and --kafka_key belong together: give both or none")
        if self.kafka_key_passphrase is not None and self.kafka_key is None:
            raise OptionError("--kafka_key_passphrase is of no use without --kafka_key")
        for name in ("kafka_ca_file", "kafka_certificate_file"):
            path = getattr(self, name)
            if path is not None and not Path(path).is_absolute():
                raise OptionError(
                    f"--{name} is {path!r}, allowed: an absolute path, the same on every machine of the job"
                )

    @property
    def is_clear_text(self) -> bool:
        """Whether a password travels so that who listens can read it."""
        return (self.kafka_security, self.kafka_sasl_mechanism) == ("SASL_PLAINTEXT", "PLAIN")

    def for_librdkafka(self, bootstrap_servers: str) -> dict[str, str]:
        """The properties of librdkafka, as ``connectable`` takes them."""
        if self.kafka_security == "PLAINTEXT":
            return {}
        properties = {
            "security.protocol": self.kafka_security,
            "sasl.mechanism": self.kafka_sasl_mechanism,
            "sasl.username": self.kafka_user,
            "sasl.password": self.kafka_password,
            "ssl.ca.location": self.kafka_ca_file,
            "ssl.certificate.location": self.kafka_certificate_file,
            "ssl.key.pem": self.kafka_key,
            "ssl.key.password": self.kafka_key_passphrase,
        }
        if self.kafka_sasl_mechanism == AWS_MSK_IAM:
            properties["sasl.mechanism"] = "OAUTHBEARER"
            properties["sasl.oauthbearer.config"] = MSK_IAM + msk_region(bootstrap_servers)
        return {name: value for name, value in properties.items() if value is not None}

    def for_java(self) -> dict[str, str]:
        """The properties of Java's clients, in which ``${secret:…}`` stands for what ``SecretProvider`` reads."""
        if self.kafka_security == "PLAINTEXT":
            return {}
        properties = {"security.protocol": self.kafka_security}
        if self.kafka_sasl_mechanism is not None:
            properties["sasl.mechanism"] = self.kafka_sasl_mechanism
            properties["sasl.jaas.config"] = self._jaas(self.kafka_sasl_mechanism)
        if self.kafka_sasl_mechanism == AWS_MSK_IAM:
            properties["sasl.client.callback.handler.class"] = "software.amazon.msk.auth.iam.IAMClientCallbackHandler"
        if self.kafka_ca_file is not None:
            properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": self.kafka_ca_file}
        if self.kafka_certificate_file is not None and self.kafka_key is not None:
            properties |= {
                "ssl.keystore.type": "PEM",
                # As a file, Java's clients take certificate and key only together.
                "ssl.keystore.certificate.chain": in_java(f"certificate-file:{self.kafka_certificate_file}"),
                # On Java 17 Kafka cannot decrypt what OpenSSL encrypts, so our provider does.
                "ssl.keystore.key": in_java(f"key-{self.kafka_key}")
                if self.kafka_key_passphrase is None
                else in_java(f"decrypted:{self.kafka_key}\n{self.kafka_key_passphrase}"),
            }
        return properties

    def _jaas(self, mechanism: str) -> str:
        login = "".join(
            f' {name}="{_in_quotes(text)}"'
            for name, text in (("username", self.kafka_user), ("password", self.kafka_password))
            if text is not None
        )
        return f"{_LOGIN_MODULES[mechanism]} required{login};"


def in_java(reference: str) -> str:
    """A reference as it stands for its secret in the properties of Java's clients."""
    return f"${{secret:{reference}}}"


def _in_quotes(text: str) -> str:
    """A text or a reference as it stands between the double quotes of a JAAS configuration."""
    if is_reference(text):
        return in_java(f"quoted-{text}")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def msk_region(bootstrap_servers: str) -> str:
    """The region in the names of Amazon MSK's brokers; empty if there is none."""
    found = _MSK_REGION.search(bootstrap_servers)
    return "" if found is None else found[1].lower()


# By a part of librdkafka's message: what to do about it. The first that fits counts.
_ADVICE: Final = (
    (r"hostname mismatch|ip address mismatch|name mismatch",
     "the broker's certificate is for another name: give brokers in --bootstrap_servers by the name that it has"),
    # librdkafka's text is the same for a certificate of another host; ``doctor`` asks again and tells them apart.
    (r"certificate verify failed|unable to get local issuer|self.signed certificate",
     "--kafka_ca_file must have the CA that vouches for the brokers, under their names in --bootstrap_servers"),
    (r"certificate required|bad certificate|unknown ca|certificate unknown|alert number 4[0-9]|alert number 116",
     "the brokers refuse the client's certificate: see --kafka_certificate_file and --kafka_key"),
    (r"the port speaks TLS", "see --kafka_security: SSL or SASL_SSL"),
    (r"unsupported sasl mechanism|mechanism handshake|enabled mechanisms", "see --kafka_sasl_mechanism"),
    (r"AWS_MSK_IAM|oauthbearer token",
     "see this machine's credentials of AWS: variables, ~/.aws, or the role of the instance"),
    # Not the protocol in an address, as sasl_ssl://broker:9093.
    (r"authentication (error|failed|failure)|\bsasl(?!_(ssl|plaintext)://)", "see --kafka_user and --kafka_password"),
    (r"ssl\.key|ssl\.certificate|private key|keystore",
     "see --kafka_certificate_file, --kafka_key and --kafka_key_passphrase, which are PEM and belong together"),
    (r"ssl\.ca", "see --kafka_ca_file: a file of PEM"),
    (r"security\.protocol|ssl handshake|apiversion|wrong version number", "see --kafka_security"),
)  # fmt: skip


def advice_for(problem: str) -> str | None:
    """Which option is the cause of an error of librdkafka, if the text says so."""
    return next((advice for part, advice in _ADVICE if re.search(part, problem, re.IGNORECASE)), None)
