"""A real broker that asks who its clients are: SCRAM and PLAIN over TLS, client certificates, ACLs."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from runners.flink.local.processes import LOCALHOST, free_ports
from tests.kafka_broker import KafkaBroker

USER: Final = "event-trigger"
# Of client certificates; with an encrypted key there is a second one.
OPERATOR: Final = "operator"
# Characters that JAAS, properties and shells each read in their own way.
PASSWORD: Final = 'canary-7f3a-"p\\w;=%$-scram'
PASSPHRASE: Final = "canary-91c2-phrase"
_JAAS: Final = "org.apache.kafka.common.security"


class Authority:
    """A CA and the files that it makes in ``folder``: ``ca.pem``, and a certificate and key for each name."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = _new_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._certificate(self._name, self._key, is_ca=True)
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(_pem(certificate))

    def issue(self, name: str, hosts: Sequence[str] = (), passphrase: str | None = None) -> tuple[Path, Path]:
        """The files of a certificate for ``CN=name`` and of its key, PKCS #8, encrypted with a passphrase."""
        key = _new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_file, key_file = self._folder / f"{name}.cert.pem", self._folder / f"{name}.key.pem"
        certificate_file.write_bytes(_pem(self._certificate(subject, key, hosts)))
        encryption = (
            serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
        )
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return certificate_file, key_file

    def _certificate(
        self, subject: x509.Name, key: rsa.RSAPrivateKey, hosts: Sequence[str] = (), is_ca: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)
        return builder.sign(self._key, hashes.SHA256())


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class SecureKafka(KafkaBroker):
    """A broker with four listeners; ``bootstrap_servers`` is the one without security, for the tests themselves.

    ``folder`` gets the certificates. With ``acls`` users may do only what ``allow`` says.

    Attributes:
        sasl_ssl: listener with SCRAM, PLAIN and OAUTHBEARER (tokens that nobody signed) over TLS.
        mutual_tls: listener that asks for a client certificate.
        wrong_name: as ``sasl_ssl``, with a certificate for another host.
        sasl_plaintext: SCRAM and PLAIN without TLS.
    """

    def __init__(self, folder: Path, *, acls: bool = False) -> None:
        super().__init__()
        self._acls = acls
        self.authority = Authority(folder)
        self.stranger = Authority(folder, "stranger")
        self.certificate, self.key = self.authority.issue(OPERATOR)
        self.encrypted_certificate, self.encrypted_key = self.authority.issue(f"{OPERATOR}-2", passphrase=PASSPHRASE)
        self._stores = {}
        for name, hosts in (("broker", (LOCALHOST, "localhost")), ("elsewhere", ("elsewhere.example",))):
            certificate, key = self.authority.issue(name, hosts)
            self._stores[name] = folder / f"{name}.store.pem"
            self._stores[name].write_bytes(key.read_bytes() + certificate.read_bytes())
        self._listeners = dict(
            zip(
                ("SASL", "MUTUAL", "ELSEWHERE", "CLEAR"), (f"{LOCALHOST}:{port}" for port in free_ports(4)), strict=True
            )
        )
        self.sasl_ssl, self.mutual_tls, self.wrong_name, self.sasl_plaintext = self._listeners.values()

    def start(self) -> None:
        """Start the broker, and make the user known to it."""
        super().start()
        admin = self._admin()  # a client that is garbage ends its calls
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            credential = UserScramCredentialUpsertion(USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
            admin.alter_user_scram_credentials([credential])[USER].result(30)

    def allow(self, user: str, kind: ResourceType, name: str, *operations: AclOperation, prefix: bool = False) -> None:
        """Allow a user operations on a topic, group, transactional id or the cluster."""
        pattern = ResourcePatternType.PREFIXED if prefix else ResourcePatternType.LITERAL
        bindings = [
            AclBinding(kind, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        admin = self._admin()
        for result in admin.create_acls(bindings).values():
            result.result(30)

    def scram(self, password: str, mechanism: str = "SCRAM-SHA-512") -> list[str]:
        """The options of a client of ``sasl_ssl``; ``password`` is a reference."""
        return [
            f"--bootstrap_servers={self.sasl_ssl}",
            "--kafka_security=SASL_SSL",
            f"--kafka_sasl_mechanism={mechanism}",
            f"--kafka_user={USER}",
            f"--kafka_password={password}",
            f"--kafka_ca_file={self.authority.ca_file}",
        ]

    def mutual(self, key: str | None = None, passphrase: str | None = None) -> list[str]:
        """The options of a client of ``mutual_tls``; ``key`` and ``passphrase`` are references."""
        certificate = self.certificate if passphrase is None else self.encrypted_certificate
        given = self.key if passphrase is None else self.encrypted_key
        return [
            f"--bootstrap_servers={self.mutual_tls}",
            "--kafka_security=SSL",
            f"--kafka_ca_file={self.authority.ca_file}",
            f"--kafka_certificate_file={certificate}",
            f"--kafka_key={key or f'file:{given}'}",
            *([f"--kafka_key_passphrase={passphrase}"] if passphrase is not None else []),
        ]

    def _properties(self) -> dict[str, Any]:
        properties = super()._properties()
        listeners = [f"{name}://{address}" for name, address in self._listeners.items()]
        properties["listeners"] = ",".join([properties["listeners"], *listeners])
        properties["advertised.listeners"] = ",".join([properties["advertised.listeners"], *listeners])
        properties["listener.security.protocol.map"] += (
            ",SASL:SASL_SSL,MUTUAL:SSL,ELSEWHERE:SASL_SSL,CLEAR:SASL_PLAINTEXT"
        )
        for listener in ("sasl", "mutual", "elsewhere"):
            store = self._stores["elsewhere" if listener == "elsewhere" else "broker"]
            properties[f"listener.name.{listener}.ssl.keystore.type"] = "PEM"
            properties[f"listener.name.{listener}.ssl.keystore.location"] = store
        properties["listener.name.mutual.ssl.client.auth"] = "required"
        properties["listener.name.mutual.ssl.truststore.type"] = "PEM"
        properties["listener.name.mutual.ssl.truststore.location"] = self.authority.ca_file
        properties["ssl.principal.mapping.rules"] = "RULE:^CN=([^,]+).*$/$1/,DEFAULT"
        # A file of properties takes each backslash away once, and JAAS once more.
        password = PASSWORD.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")
        for listener in ("sasl", "elsewhere", "clear"):
            prefix = f"listener.name.{listener}"
            properties[f"{prefix}.sasl.enabled.mechanisms"] = "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER"
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                properties[f"{prefix}.{mechanism}.sasl.jaas.config"] = f"{_JAAS}.scram.ScramLoginModule required;"
            properties[f"{prefix}.plain.sasl.jaas.config"] = (
                f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{password}";'
            )
            properties[f"{prefix}.oauthbearer.sasl.jaas.config"] = (
                f'{_JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            )
        if self._acls:
            properties["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            properties["super.users"] = "User:ANONYMOUS"
        return properties
