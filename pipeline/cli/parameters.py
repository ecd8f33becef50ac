"""What the commands share: Kafka, Flink, a job and a launch as classes whose fields are flags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import UNSET, App, Group, Parameter, Token
from cyclopts.argument import Argument, ArgumentCollection

from pipeline.cli.terraform_cluster import FOLDER_HELP, terraform_cluster, tunnel
from pipeline.console import complain
from pipeline.errors import OptionError
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.security import KafkaSecurity
from pipeline.launch.options import Settings, parse
from pipeline.launch.options.fields import Option
from pipeline.launch.options.kafka_properties import check_addresses, kafka_properties
from pipeline.launch.options.resolving import with_configured
from pipeline.launch.options.settings import GROUPS, OPTIONS
from pipeline.launch.options.values import PROPERTIES, from_text
from runners.flink.rest import FlinkRest

Topic = Annotated[str, Parameter(metavar="TOPIC")]
Name = Annotated[str, Parameter(metavar="NAME")]
Time = Annotated[str, Parameter(metavar="TIME")]
File = Annotated[Path, Parameter(metavar="FILE")]
Number = Annotated[float, Parameter(metavar="NUMBER")]
Count = Annotated[int, Parameter(metavar="NUMBER")]

# Defaults of the launch that commands have, too.
EVENTS_TOPIC: Final[str] = OPTIONS["events_topic"].default
DEAD_LETTERS_TOPIC: Final[str] = OPTIONS["dead_letters_topic"].default
INSPECTIONS_TOPIC: Final[str] = OPTIONS["inspections_topic"].default
AUDIT_TOPIC: Final[str] = OPTIONS["audit_topic"].default


# Kafka


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Brokers:
    """Where Kafka is, if it is needed.

    Args:
        bootstrap_servers: Kafka's brokers, HOST:PORT[,HOST:PORT].
        kafka_security: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        kafka_sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or AWS_MSK_IAM.
        kafka_user: for PLAIN and SCRAM.
        kafka_password: where the user's password is: env:NAME, file:/PATH or aws-secret:NAME#KEY.
        kafka_ca_file: PEM file of the CAs that vouch for brokers.
        kafka_certificate_file: PEM file of the client's certificate.
        kafka_key: where the certificate's private key is.
        kafka_key_passphrase: where the key's passphrase is.
        kafka_property: NAME=VALUE for Kafka's clients; may be repeated.
    """

    bootstrap_servers: Annotated[str | None, Parameter(metavar="BROKERS")] = None
    kafka_security: Annotated[str | None, Parameter(metavar="PROTOCOL")] = None
    kafka_sasl_mechanism: Annotated[str | None, Parameter(metavar="MECHANISM")] = None
    kafka_user: Annotated[str | None, Parameter(metavar="USER")] = None
    kafka_password: Annotated[str | None, Parameter(metavar="REFERENCE")] = None
    kafka_ca_file: Annotated[str | None, Parameter(metavar="FILE")] = None
    kafka_certificate_file: Annotated[str | None, Parameter(metavar="FILE")] = None
    kafka_key: Annotated[str | None, Parameter(metavar="REFERENCE")] = None
    kafka_key_passphrase: Annotated[str | None, Parameter(metavar="REFERENCE")] = None
    kafka_property: Annotated[tuple[str, ...], Parameter(metavar="NAME=VALUE")] = ()

    def config(self, instead: str = "") -> dict[str, str]:
        """The properties, for librdkafka; ``instead`` says what else would do.

        Raises:
            OptionError: no broker is given, one that is not HOST:PORT, or a property that no client has.
        """
        if self.bootstrap_servers is None:
            raise OptionError(
                f"--bootstrap_servers is missing: give HOST:PORT of a broker, here or in event-trigger.yaml{instead}"
            )
        check_addresses("bootstrap_servers", self.bootstrap_servers.split(","))
        properties = kafka_properties("kafka_property", self.kafka_property)
        return for_librdkafka({"bootstrap.servers": self.bootstrap_servers, **properties}, self._security())

    def _security(self) -> KafkaSecurity:
        values = {}
        for option in (OPTIONS[field.name] for field in fields(KafkaSecurity)):
            text = getattr(self, option.name)
            values[option.name] = None if text is None else from_text(option, text, f"--{option.name}")
        return KafkaSecurity.of(values)


# A running job that is asked about a user


def check_wait(timeout_seconds: float) -> None:
    """Check how long to wait for a job's answer.

    Raises:
        OptionError: the time is out of bounds.
    """
    if not 0 < timeout_seconds <= 3600:
        raise OptionError(f"--timeout_seconds is {timeout_seconds:g}, allowed: above 0, up to 3600")


def check_user(user_id: str, allowed: str = "UTF-8") -> None:
    """Check a user id of the command line.

    Raises:
        OptionError: it is no UTF-8; the message says what is ``allowed``.
    """
    try:
        user_id.encode()
    except UnicodeEncodeError:
        raise OptionError(f"USER is {user_id!r}, allowed: {allowed}") from None


# Flink


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where Flink is and which job is meant."""

    flink_master: Annotated[str | None, Parameter(metavar="HOST:PORT", help="Flink's REST endpoint")] = None
    terraform: Annotated[Path | None, Parameter(metavar="FOLDER", help=f"instead, as of deploy: {FOLDER_HELP}")] = None
    job: Annotated[str | None, Parameter(metavar="NAME_OR_ID", help="of a running job; default: the only one")] = None

    @contextlib.contextmanager
    def client(self) -> Iterator[FlinkRest]:
        """A client of the cluster; a tunnel lives as long as the context. Ctrl-C is told to the user.

        Raises:
            OptionError: the flags name no cluster, or two.
            LocalStackError: the tunnel cannot be opened.
        """
        with going_on_without_us():
            if self.terraform is None:
                yield rest_client(self.flink_master)
                return
            if self.flink_master is not None:
                raise OptionError("--flink_master and --terraform are both given, allowed: one of them")
            with tunnel(terraform_cluster(self.terraform).tunnel_command) as port:
                yield rest_client(f"localhost:{port}")


@contextlib.contextmanager
def going_on_without_us() -> Iterator[None]:
    """Say on Ctrl-C that it ends only this program."""
    try:
        yield
    except KeyboardInterrupt:
        complain("interrupted; what Flink was asked for goes on")
        raise


def rest_client(flink_master: str | None) -> FlinkRest:
    """A client of Flink's REST endpoint at HOST:PORT.

    Raises:
        OptionError: the address is missing or not HOST:PORT.
    """
    if flink_master is None:
        raise OptionError("--flink_master is missing: give HOST:PORT of Flink's REST endpoint")
    check_addresses("flink_master", [flink_master])
    return FlinkRest(f"http://{flink_master}")


# The launch


class LaunchOptions:
    """The options of a launch that were given; each is None or empty without its flag."""

    @property
    def flags(self) -> list[str]:
        """The options that were given, as flags."""
        flags: list[str] = []
        for name in OPTIONS:
            value: Any = getattr(self, name)
            if isinstance(value, tuple):
                flags += [f"--{name}={item}" for item in value]
            elif value is not None:
                flags.append(f"--{name}={str(value).lower() if isinstance(value, bool) else value}")
        return flags

    def settings(self, *more: str) -> Settings:
        """The checked settings of a launch; ``more`` are flags that count first.

        Raises:
            OptionError: a value or a combination of options is not allowed.
        """
        return parse([*more, *self.flags])

    def settings_of_job(self) -> Settings:
        """As ``settings``, of a job that only is looked at: the rules may be missing."""
        return parse(self.flags, rules_required=False)


def _with_options(shown: bool) -> Any:
    """The class whose fields are all options of a launch; ``--help`` lists them if they are ``shown``."""
    headings = [group.heading for group in GROUPS]
    groups = {heading: Group(heading, sort_key=number) for number, heading in enumerate(headings, 1)}
    options = [
        (name, *_field(option, Parameter(group=groups[option.heading], show=shown))) for name, option in OPTIONS.items()
    ]
    names = {"__module__": __name__}
    return Parameter(name="*")(
        make_dataclass("Launch", options, bases=(LaunchOptions,), namespace=names, frozen=True, kw_only=True)
    )


def _field(option: Option, parameter: Parameter) -> tuple[Any, Any]:
    """The type and the default of an option as a field; values are texts here, ``Settings`` checks them."""
    notes = [f"unit: {option.unit}"] if option.unit is not None else []
    notes += [f"one of {', '.join(option.choices)}"] if option.choices else []
    text = f"{option.text} ({'; '.join([*notes, f'default: {option.shown_default}'])})"
    shown = Parameter(help=text, metavar="PATH" if option.kind is Path else "NUMBER" if option.is_number else "TEXT")
    if option.kind is bool:
        return Annotated[bool | None, parameter, Parameter(help=text)], None
    if option.kind == tuple[str, ...]:
        return Annotated[tuple[str, ...], parameter, shown], ()
    return Annotated[str | None, parameter, shown], None


# What flags do not give


def from_sources(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give arguments of a command that are options of the launch, too, the values of file and environment.

    Raises:
        OptionError: an argument is empty, or the configuration file or a variable cannot be used.
    """
    by_name = {argument.name.removeprefix("--"): argument for argument in arguments}
    for name, argument in by_name.items():
        if name != "note" and any(token.value == "" and token.implicit_value is UNSET for token in argument.tokens):
            raise OptionError(f"{argument.name} is empty")
    # ``LaunchOptions.settings`` does it for the launch's own options; capacity is asked about a job that is not yet.
    if "runner" in by_name or commands == ("capacity",):
        return
    given = {name: _given(name, argument) for name, argument in by_name.items()}
    for name, value in with_configured(given).items():
        if value is not None and value != given[name]:
            values = value if isinstance(value, tuple) else (value,)
            by_name[name].tokens[:] = [
                Token(keyword=f"--{name}", value=str(item), source="configuration", index=index)
                for index, item in enumerate(values)
            ]


def _given(name: str, argument: Argument) -> Any:
    values = [token.value for token in argument.tokens]
    return None if not values else values if name in PROPERTIES else values[-1]


if TYPE_CHECKING:

    class AllOptions(LaunchOptions):
        """The options of a launch, for the command that lists them."""

    class Launch(LaunchOptions):
        """The options of a launch, for other commands that take them: ``run --help`` lists them."""
else:
    AllOptions, Launch = _with_options(shown=True), _with_options(shown=False)
