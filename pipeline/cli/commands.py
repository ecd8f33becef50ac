"""Every command, and the parser of all. A command's module is imported when the command is used."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cyclopts import App, Group, Parameter
from cyclopts.argument import ArgumentCollection

from pipeline.cli.help_page import HelpPage

RUN, RULES, LOOK, STEER, TOOLS = (
    Group(name, sort_key=number) for number, name in enumerate(("Run", "Rules", "Look", "Steer", "Tools"), 1)
)


class Command(NamedTuple):
    """A command: its line in the list, and its function below ``pipeline.cli`` as MODULE:FUNCTION."""

    line: str
    function: str
    group: Group | None = None


class Commands(NamedTuple):
    """A command that consists of commands, as ``rules test``."""

    line: str
    commands: dict[str, Command]
    group: Group


COMMANDS: Final[dict[str, Command | Commands]] = {
    "run": Command("launch the job: bundled events and rules, or Kafka, here or on Flink", "run:run", RUN),
    "resume": Command("launch from the newest state that an ended job has left", "resume:resume", RUN),
    "deploy": Command("launch on a cluster that infra/terraform made", "deploy:deploy", RUN),
    "demo": Command("Kafka, Flink and made-up users on this machine, until Ctrl-C", "demo:demo", RUN),
    "rules": Commands(
        "write, check, test, backtest and publish rules",
        {
            "new": Command("write a first rule with cases", "rules.command:new"),
            "check": Command(
                "read and compile every rule; shows every problem with file and line", "rules.command:check"
            ),
            "test": Command("check every rule and run its cases", "rules.command:run_tests"),
            "explain": Command(
                "say for each rule why it does or does not fire for an event", "rules.explain:explain_rules"
            ),
            "backtest": Command(
                "replay recorded events, say what each rule would have done", "rules.backtest:backtest"
            ),
            "publish": Command("test every rule, then make the rules live in running jobs", "rules.published:publish"),
            "watch": Command(
                "publish a folder of rules now, and again whenever a file in it is saved", "rules.watch:watch"
            ),
            "rollback": Command(
                "make an earlier set's rules live again, under a new number", "rules.published:rollback"
            ),
            "status": Command("show the published sets, and which is live in which shards", "rules.published:status"),
            "history": Command("show which published set changed which rules, when and why", "rules.history:history"),
            "schema": Command("print the JSON Schema of rule files", "rules.command:print_schema"),
            "schema-from": Command(
                "learn the JSON Schema of your events and profiles from a recording", "rules.schema_from:schema_from"
            ),
        },
        RULES,
    ),
    "status": Command("what a job does: throughput, lag, latency, rules, destinations", "status:status", LOOK),
    "why": Command("what was decided for a user, from the decision log", "why:why", LOOK),
    "inspect": Commands(
        "what a running job knows of a user",
        {"user": Command("one user's state from the running job", "inspect:user")},
        LOOK,
    ),
    "dead-letters": Commands(
        "what could not be handled: list, show, send again",
        {
            "list": Command("one line a letter, and how many there are of each reason", "dead_letters:list_letters"),
            "show": Command("everything of one letter", "dead_letters:show"),
            "redrive": Command(
                "send letters again: actions with the same id, events as they were", "dead_letters:redrive"
            ),
        },
        LOOK,
    ),
    "user-hash": Command("the hash that stands for a user in logs and audit records", "user_hash:user_hash", LOOK),
    "ui": Command("a web page about a job", "ui:ui", LOOK),
    "savepoint": Command("take a savepoint of a running job, with --stop end it", "savepoint:savepoint", STEER),
    "savepoints": Commands(
        "the savepoints that there are: list, prune",
        {
            "list": Command(
                "when, size, job, path, and whether Kafka still has what came after", "savepoints:list_all"
            ),
            "prune": Command("delete old ones; says first which", "savepoints:prune"),
        },
        STEER,
    ),
    "topics": Commands(
        "the topics of a launch: create",
        {"create": Command("create those that are missing, compare those that exist", "topics:create")},
        STEER,
    ),
    "cancel": Command("end a job at once", "cancel:cancel", STEER),
    "destinations": Commands(
        "where webhooks go: list, enable, disable",
        {
            "list": Command("show each destination, whether it is enabled and since when", "destinations:list_all"),
            "enable": Command(
                "send to a destination again; what was lost: `dead-letters redrive`", "destinations:enable"
            ),
            "disable": Command(
                "send nothing to a destination; all that waits becomes dead letters", "destinations:disable"
            ),
        },
        STEER,
    ),
    "suppress": Command("send a user nothing of a group of rules, or of any rule", "suppress:suppress", STEER),
    "unsuppress": Command("send a user again what was suppressed", "suppress:unsuppress", STEER),
    "suppressed": Command("from which groups a user gets nothing", "suppress:suppressed", LOOK),
    "init": Command("write a first event-trigger.yaml", "init:init", TOOLS),
    "config": Commands(
        "the configuration file: show, check, schema",
        {
            "show": Command("every option's value, and where it comes from", "config:show"),
            "check": Command("every problem of the file and the environment, with its line", "config:check"),
            "schema": Command("print a JSON Schema: of the file, or of records of a topic", "config:schema"),
        },
        TOOLS,
    ),
    "doctor": Command("check what a launch depends on, with advice", "doctor.command:doctor", TOOLS),
    "capacity": Command("how many slots, machines and partitions a load needs", "capacity.command:capacity", TOOLS),
}
_HELP: Final = """\
Turns a stream of user-tracking events into actions: a Beam pipeline that runs on Flink.

Without a command it is `event-trigger run`. COMMAND --help has the options of a command; all take --config=FILE,
--profile=NAME and --log_format=json."""


def _default(value: Any) -> str | None:
    return None if value in (None, False, (), "") else str(value)


# Of options: as they are written in Python, underscores included; of repeated ones the last counts.
_NAMES: Final = Parameter(name_transform=str, negative=(), allow_repeating=True, show_default=_default)


def parser(arguments: Sequence[str]) -> App:
    """The parser of a command line; what it refuses is a ``CycloptsError``."""
    # A line of the list would be all help of its command, so it is given only where the list is shown.
    first, second = (*arguments, "", "")[:2]
    given = COMMANDS.get(first)
    listed = given is None or (isinstance(given, Commands) and second not in given.commands)
    app = _app("event-trigger", _HELP, config=_configured, version=lambda: importlib.metadata.version("event-trigger"))
    app.register_install_completion_command(help="complete commands and options in this shell", group=TOOLS)
    for position, (name, command) in enumerate(COMMANDS.items()):
        if isinstance(command, Commands):
            group = _app(name, command.line, group=command.group, sort_key=position)
            for number, (name_below, below) in enumerate(command.commands.items()):
                _add(group, name_below, below, listed, sort_key=number)
            app.command(group)
        else:
            _add(app, name, command, listed, group=command.group, sort_key=position)
    return app


def _app(name: str, text: str, **more: Any) -> App:
    return App(
        name=name,
        help=text,
        help_format="plaintext",
        help_formatter=HelpPage(),
        default_parameter=_NAMES,
        exit_on_error=False,
        print_error=False,
        **more,
    )


def _configured(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    from pipeline.cli.parameters import from_sources  # takes a while, and the list of commands needs none of it

    from_sources(app, commands, arguments)


def _add(app: App, name: str, command: Command, listed: bool, **more: Any) -> None:
    app.command(
        f"pipeline.cli.{command.function}",
        name=name,
        help=command.line if listed else None,
        default_parameter=_NAMES,
        **more,
    )
