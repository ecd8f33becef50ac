"""The demo with rules of the reader's own: they are published whenever a file is saved."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.cli.rules.watch import RuleWatch
from pipeline.console import say
from pipeline.embedded.receivers import destinations_of
from pipeline.errors import OptionError
from pipeline.kafka.rules_topic import RulesTopic
from pipeline.launch.options import Settings
from pipeline.launch.run import EMBEDDED_FOLDER
from runners.flink.local.broker import LocalKafka
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.action_topics import check_destinations
from transforms.domain.rules.files import load_rules
from transforms.domain.rules.model import KafkaAction, Rule
from transforms.domain.rules.sets import RuleSet

RULES_TOPIC: Final = "event-rules"
DECISIONS_TOPIC: Final = "event-decisions"
_CONFIG_FILE: Final = EMBEDDED_FOLDER / "demo.yaml"
_CONFIG_OPTIONS: Final = (
    *("runner", "bootstrap_servers", "flink_master", "events_topic", "actions_topic", "dead_letters_topic"),
    *("control_topic", "rules_topic", "decisions_topic", "audit_topic", "inspections_topic", "user_api_url"),
)


def checked_rules(path: Path) -> tuple[Rule, ...]:
    """The rules that the demo begins with.

    Raises:
        OptionError: there is no such file or folder.
        RuleError: a rule is not valid.
    """
    if not path.exists():
        raise OptionError(
            f"--rules is {str(path)!r}, which is not there: `event-trigger rules new {path}` writes a first rule"
        )
    return load_rules(path, LuaEngines())


class OwnRules:
    """A folder of rules, and the demo's topics and destinations that they use.

    Args:
        path: rule file or folder.
        kafka: the demo's broker.
        settings: of the demo's job, with its rules topic.
        destinations: the names of all destinations, which a running job cannot add to.
    """

    def __init__(self, path: Path, kafka: LocalKafka, settings: Settings, destinations: tuple[str, ...]) -> None:
        self._kafka = kafka
        self._destinations = destinations
        config = settings.client_config()
        self._topic = RulesTopic(RULES_TOPIC, config)
        self._watch = RuleWatch(
            path, self._topic, settings.shard(()), "demo", config, settings.audit_topic, self._say, self._make_room
        )
        self._action_topics = settings.topics_of_actions(())
        self._topics = {settings.actions_topic, settings.events_topic, settings.dead_letters_topic}
        self._published = self._watch.state()

    def publish(self) -> RuleSet:
        """Publish the folder's rules, before the job starts; returns the set.

        Raises:
            OptionError: a rule or a case is no good; what is wrong with it has been said.
        """
        self._published = self._watch.state()
        live = self._topic.read().live if self._watch.publish() else None
        if live is None:
            raise OptionError("the demo begins with rules that pass their tests")
        return live

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Publish the folder at each save while the context is open."""
        ended = threading.Event()
        thread = threading.Thread(target=self._watch.run, args=(ended.is_set, self._published), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(5)

    def _say(self, text: str) -> None:
        say(f"rules: {text}")

    def _make_room(self, rules: tuple[Rule, ...]) -> None:
        """Create the topics of Kafka actions; refuse those of the job, and webhooks to destinations it does not know.

        Raises:
            RuleError: a rule has such an action.
        """
        self._action_topics.check(rules)
        for rule in rules:
            check_destinations(rule, self._destinations)
        for rule in rules:
            for action in rule.actions:
                if isinstance(action, KafkaAction) and action.topic is not None and action.topic not in self._topics:
                    self._topics.add(action.topic)
                    self._kafka.create_topic(action.topic, 1)


def destination_names(rules: tuple[Rule, ...], own: str) -> tuple[str, ...]:
    """The demo's destinations: those that the rules name, one for rules to come, and the demo's ``own``."""
    return tuple(dict.fromkeys((*destinations_of(rules), "crm", own)))


@contextlib.contextmanager
def config_file(settings: Settings) -> Iterator[Path | None]:
    """A file with the options that commands need, while the context is open; None if it cannot be written."""
    values = {name: getattr(settings, name) for name in _CONFIG_OPTIONS}
    lines = [f"{name}: {value}\n" for name, value in values.items() if value is not None]
    try:
        EMBEDDED_FOLDER.mkdir(exist_ok=True)
        (EMBEDDED_FOLDER / ".gitignore").write_text("*\n", "utf-8")
        _CONFIG_FILE.write_text("".join(["# Of the running demo, which removes it at its end.\n", *lines]), "utf-8")
    except OSError as error:
        say(f"{_CONFIG_FILE} is not written: {error.strerror}")
        yield None
        return
    try:
        yield _CONFIG_FILE
    finally:
        _CONFIG_FILE.unlink(missing_ok=True)


def next_steps(settings: Settings, path: Path | None, user_id: str, task_manager_pid: int) -> dict[str, str]:
    """What to try next: a heading and a command each."""
    program = "event-trigger"
    kafka, flink = f"--bootstrap_servers={settings.bootstrap_servers}", f"--flink_master={settings.flink_master}"
    control = f"--control_topic={settings.control_topic}"
    steps = {
        "see why": f"{program} why --user={user_id} --decisions_topic={settings.decisions_topic} {kafka}",
        "inspect a user": f"{program} inspect user {user_id} {control} {kafka}",
        "see rates": f"{program} status {flink}",
        "see dead letters": f"{program} dead-letters list {kafka}",
        "redrive them": f"{program} dead-letters redrive {control} {kafka}",
        "see rule sets": f"{program} rules status --rules_topic={settings.rules_topic} {kafka}",
        "go back": f"{program} rules rollback --rules_topic={settings.rules_topic} {kafka}",
        "kill a worker": f"kill -9 {task_manager_pid}   # the TaskManager; another takes over, and caps still hold",
    }
    if settings.rules_topic is None:
        del steps["see rule sets"], steps["go back"]
    if path is not None:
        steps["leave out flags"] = f"export EVENT_TRIGGER_CONFIG={path.resolve()}"
    return steps
