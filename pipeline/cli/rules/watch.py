"""``rules watch``: publishes a folder of rules whenever a file in it is saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.cli.parameters import AUDIT_TOPIC, Brokers, Topic
from pipeline.cli.rules.announced import check_announced
from pipeline.cli.rules.command import History
from pipeline.cli.rules.file_problems import count_of, refuse_own_topics
from pipeline.cli.rules.published import Note, changes_lines, confirmed, live_shards
from pipeline.console import out
from pipeline.job.publishing import REFUSED_NEXT, check_action_topics, checked_changes, publish_after
from pipeline.kafka.rules_topic import RulesTopic
from pipeline.kafka.topics import TopicError
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.diff import RuleChanges, rule_changes
from transforms.domain.rules.files import is_rule_file, read_rule_files
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.rule_checks import examine
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import run_cases

_POLL_S: Final = 0.2
# So long nothing in the folder must change before it is read: editors write a file in several steps, and people save
# several files at once.
_QUIET_S: Final = 0.4
_RETRY_S: Final = 5.0
_LIVE_S: Final = 15.0

# A file's name, modification time, size and inode.
_State = frozenset[tuple[str, int, int, int]]


def say_line(text: str) -> None:
    """Print a line with the time of day."""
    out(f"{time.strftime('%H:%M:%S')}  {text}")


def watch(
    path: Path,
    /,
    *,
    rules_topic: Topic,
    audit_topic: Topic = AUDIT_TOPIC,
    brokers: Brokers = Brokers(),
    note: Note = "",
    yes: bool = False,
    history: History = History(),
) -> int:
    """Publish a folder of rules now, and again whenever a file in it is saved, until Ctrl-C.

    Each time the rules are checked and their cases are run; what is no good is said, and the live set stays. In a
    terminal it asks first if the folder differs from the live set.

    0: ended with Ctrl-C; 1: the answer was no; 2: an option or topic cannot be used.

    Args:
        path: rule file or directory.
        rules_topic: topic of rule sets.
        audit_topic: as the pipeline's.
        note: why; `rules status` shows it.
        yes: begin without a question; without a terminal there is none.
    """
    config = brokers.config()
    topic = RulesTopic(rules_topic, config)

    def check(rules: tuple[Rule, ...]) -> None:
        check_action_topics(config, rules)
        check_announced(config, audit_topic, rules_topic, rules, history)

    watch = RuleWatch(path, topic, history.settings(), note, config, audit_topic, check=check)
    if not yes and not _agreed(watch, topic):
        out("nothing was published")
        return 1
    say_line(f"watching {path} for {topic.topic}; Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt):
        watch.run()
    return 0


def _agreed(watch: RuleWatch, topic: RulesTopic) -> bool:
    """Whether to begin: asked unless the folder has just the live rules."""
    published = topic.read()
    files = read_rule_files(watch.path, LuaEngines())
    if files.problems:
        return confirmed("publish the folder once its rules are good, and whenever a file is saved?")
    rules = tuple(loaded.rule for loaded in files.rules)
    changes = rule_changes(published.live.rules if published.live else (), rules)
    if not changes:
        return True
    out(*changes_lines(topic.topic, published, rules, changes))
    return confirmed(f"publish set {published.highest + 1}, and others whenever a file is saved?")


@dataclass(frozen=True)
class RuleWatch:
    """A folder (or a file) of rules, and the rules topic that follows it.

    Attributes:
        path: the folder or file.
        topic: the rules topic.
        settings: settings of the job, for the rules' cases.
        note: why, as ``rules status`` shows it.
        config: librdkafka's properties; with ``audit_topic`` for the shards' acknowledgements.
        audit_topic: where shards acknowledge sets; None: nobody waits for them.
        say: gets each line.
        check: called with rules before they are published; raises ``RuleError`` for what the job has no place for.
    """

    path: Path
    topic: RulesTopic
    settings: ShardSettings
    note: str
    config: Mapping[str, str]
    audit_topic: str | None = None
    say: Callable[[str], None] = say_line
    check: Callable[[tuple[Rule, ...]], None] = lambda rules: None

    def run(self, is_ended: Callable[[], bool] = lambda: False, published: _State | None = None) -> None:
        """Publish at each change until ``is_ended``; ``published`` is the folder's state that is live already."""
        done, retry_at_s, last_error = published, 0.0, ""
        while not is_ended():
            state = self.state()
            is_new = done is None or state != done
            if not is_new and not (last_error and time.monotonic() >= retry_at_s):
                time.sleep(_POLL_S)
                continue
            if is_new:
                state = self._settled(state, is_ended)
                if is_ended():
                    return
                if done is not None:
                    self.say(f"changed: {_changed_names(done, state) or 'nothing'}")
            try:
                self.publish(state)
                last_error = ""
            except TopicError as error:
                # Kafka may be back soon: the change is not forgotten.
                if str(error) != last_error:
                    self.say(f"error: {error}; tried again every {_RETRY_S:g} s")
                last_error, retry_at_s = str(error), time.monotonic() + _RETRY_S
            done = state

    def publish(self, state: _State | None = None) -> bool:
        """Check, test and publish the rules that the folder has now; returns whether they are live then.

        Without ``state``, the folder's state in which it was looked at, what is read is published in any case.

        Raises:
            TopicError: Kafka does not answer, or another publisher was first.
        """
        rules = self._good_rules()
        if rules is None:
            return False
        if state is not None and self.state() != state:
            return False  # saved again while it was read: the next look publishes it
        shown = self.topic.read()
        try:
            self.check(rules)
            changes = checked_changes(shown, rules)
            if not changes:
                self.say("nothing changes against the live set")
                return True
            rule_set = publish_after(self.topic, shown, rules, self.note)
        except RuleError as error:
            self._refuse(str(error))
            return False
        self.say(f"published set {rule_set.number}: {_summary(rules, changes)}")
        if state is not None and self.audit_topic is not None:
            self._wait_until_live(rule_set.number, state)
        return True

    def state(self) -> _State:
        """What the folder looks like now."""
        try:
            files = [self.path, *self.path.parent.glob(f"{self.path.stem}*")] if self.path.is_file() else []
            files = files or [file for file in self.path.iterdir() if is_rule_file(file) or file.suffix == ".lua"]
        except OSError:
            return frozenset()
        found = set()
        for file in files:
            try:
                status = file.stat()
            except OSError:
                continue  # gone between both calls, as editors' temporary files are
            found.add((file.name, status.st_mtime_ns, status.st_size, status.st_ino))
        return frozenset(found)

    def _settled(self, state: _State, is_ended: Callable[[], bool]) -> _State:
        """The folder's state after nothing has changed in it for a moment."""
        since_s = time.monotonic()
        while time.monotonic() - since_s < _QUIET_S and not is_ended():
            time.sleep(_POLL_S / 4)
            now = self.state()
            if now != state:
                state, since_s = now, time.monotonic()
        return state

    def _good_rules(self) -> tuple[Rule, ...] | None:
        """The rules, if all files are valid and all cases pass; says what is wrong otherwise."""
        files = read_rule_files(self.path, LuaEngines())
        refuse_own_topics(files, [self.topic.topic])
        examine(files)
        for problem in files.refused_next:
            self.say(f"warning: {problem}{REFUSED_NEXT}")
        if files.problems:
            self._refuse(*map(str, files.problems))
            return None
        results = [result for loaded in files.rules for result in run_cases(loaded, self.settings, LuaEngines())]
        failed = [result for result in results if not result.passed]
        if failed:
            self._refuse(
                *(
                    f"{result.located.file}:{result.located.line}: {result.rule}: {result.located.case.name}: "
                    + "; ".join(line.strip() for line in result.differences)
                    for result in failed
                )
            )
            return None
        self.say(f"{count_of(len(files.rules), 'rule')}, {count_of(len(results), 'case')}, 0 failed")
        return tuple(loaded.rule for loaded in files.rules)

    def _refuse(self, *problems: str) -> None:
        for problem in problems:
            self.say(f"error: {problem}")
        self.say("nothing was published, the live set stays")

    def _wait_until_live(self, number: int, state: _State) -> None:
        started_s = time.monotonic()

        def is_over() -> bool:
            return time.monotonic() - started_s >= _LIVE_S or self.state() != state

        try:
            live, shards = live_shards(self.audit_topic or "", self.config, number, self.topic, is_over)
        except TopicError as error:
            self.say(f"where it is live is not known: {error}")
            return
        took = f" after {time.monotonic() - started_s:.1f} s" if shards and live == shards else ""
        self.say(
            f"set {number} is live in {live} of {shards} shards{took}"
            if shards
            else f"no job has taken set {number} yet"
        )


def _summary(rules: tuple[Rule, ...], changes: RuleChanges) -> str:
    version = {rule.name: rule.version for rule in rules}
    parts = [f"+ {name} {version[name]}" for name in changes.added]
    parts += [f"~ {name} {version[name]}" for name in changes.changed]
    return ", ".join([*parts, *(f"- {name}" for name in changes.removed)])


def _changed_names(before: _State, after: _State) -> str:
    names = sorted({name for name, *_ in before ^ after})
    shown = names[:5]
    return ", ".join([*shown, *([f"{len(names) - 5} more"] if len(names) > 5 else [])])
