"""Changing the live rules from the page: rules as YAML, an earlier set, a rule set aside; checked as by commands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.job.publishing import (
    NOT_CHECKED,
    REFUSED_NEXT,
    announced_job,
    check_action_topics,
    check_destinations_of,
    checked_changes,
    has_webhooks,
    publish_after,
)
from pipeline.job.rule_diff import difference_lines
from pipeline.kafka.announcements import Announcement
from pipeline.kafka.rules_topic import PublishedSets, RulesTopic
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.base.checked_documents import Problem
from transforms.domain.rules.action_topics import ActionTopics, topics_of
from transforms.domain.rules.files import RuleFiles, read_rule_files
from transforms.domain.rules.groups import groups_of, in_groups
from transforms.domain.rules.model import Groups, Rule, RuleError
from transforms.domain.rules.rule_checks import examine
from transforms.domain.rules.sets import RuleSet
from transforms.domain.simulation.case_runner import run_cases

MAX_NOTE: Final = 1000
# What a form may ask for.
KINDS: Final = ("edit", "roll_back", "set_aside")


@dataclass(frozen=True, slots=True)
class RuleDiff:
    """What differs in a rule: ``sign`` is ``+``, ``-`` or ``~``, ``lines`` are those of ``difference_lines``."""

    sign: str
    name: str
    versions: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProposedChange:
    """A change that was not published: the rules of the new set, what differs, what stands in its way, and warnings."""

    title: str
    rules: tuple[Rule, ...]
    against: RuleSet
    highest: int
    differences: Sequence[RuleDiff]
    problems: Sequence[str]
    warnings: Sequence[str] = ()


class RuleChanges:
    """Proposes and publishes sets of a rules topic.

    Methods raise TopicError if Kafka does not answer or refuses, and RuleError if there is nothing to change.
    """

    def __init__(self, topic: str, settings: Settings, config: dict[str, str]) -> None:
        self._topic = RulesTopic(topic, config)
        self._settings = settings
        self._config = config

    def read(self) -> PublishedSets:
        """The sets that the topic keeps."""
        return self._topic.read()

    def propose(self, kind: str, what: str, live: RuleSet | None) -> ProposedChange:
        """Check a change.

        Args:
            kind: one of ``KINDS``.
            what: YAML of rules to add or replace; the number of an earlier set; the name of a rule to set aside.
            live: the rules that are live; those of files if no set is published.
        """
        published = self.read()
        base = published.live or live
        if base is None:
            raise RuleError("the live rules are not known, and a set replaces all of them: start the page with --rules")
        problems: list[str] = []
        warnings: list[str] = []
        rules = self._wanted(kind, what, base, published, problems, warnings)
        differences = list(rule_diffs(base.rules, rules))
        if not problems:
            problems += self._problems(kind, published, rules, base)
            # Going back to rules that were live has to be possible at any time.
            (problems if kind == "edit" else warnings).extend(self._unknown_destinations(rules, warnings))
        if not problems and not differences:
            problems.append(f"nothing changes: these are the rules of the live set {base.number}")
        return ProposedChange(_title(kind, what), rules, base, published.highest, differences, problems, warnings)

    def publish(self, change: ProposedChange, note: str) -> RuleSet:
        """Publish a change that has no problems, unless another set was published since it was proposed."""
        return publish_after(self._topic, PublishedSets(highest=change.highest), change.rules, note)

    def _wanted(
        self,
        kind: str,
        what: str,
        base: RuleSet,
        published: PublishedSets,
        problems: list[str],
        warnings: list[str],
    ) -> tuple[Rule, ...]:
        if kind == "edit":
            read, groups = self._read_rules(what, base, problems, warnings)
            edited = {rule.name: rule for rule in read}
            kept = [edited.pop(rule.name, rule) for rule in base.rules]
            wanted = (*kept, *edited.values())
            return wanted if problems else in_groups(wanted, groups)
        if kind == "set_aside":
            rules = tuple(rule for rule in base.rules if rule.name != what)
            if len(rules) == len(base.rules):
                problems.append(f"rule is {what!r}, allowed: {', '.join(base.versions)}")
            if not rules:
                problems.append("it is the only rule, and a set needs one: publish another rule first")
            return rules
        earlier = {str(rule_set.number): rule_set for rule_set in published.sets if rule_set is not published.live}
        if what not in earlier:
            problems.append(f"set is {what!r}, allowed: {', '.join(earlier) or 'none, there is no earlier set'}")
            return base.rules
        return earlier[what].rules

    def _read_rules(
        self, text: str, base: RuleSet, problems: list[str], warnings: list[str]
    ) -> tuple[tuple[Rule, ...], Groups]:
        """The rules of a YAML text, whose cases pass, and all groups; problems and warnings are named by line."""
        groups = groups_of(base.rules)
        with tempfile.TemporaryDirectory(prefix="event-trigger-page-") as folder:
            path = Path(folder) / "rule.yaml"
            path.write_text(text.replace("\r\n", "\n"), encoding="utf-8")
            files = read_rule_files(path, LuaEngines(), groups)
            examine(files)
            problems += map(_by_line, files.problems)
            warnings += map(_by_line, files.warnings)
            warnings += [f"{_by_line(problem)}{REFUSED_NEXT}" for problem in files.refused_next]
            if not problems:
                problems += self._failed_cases(files)
        groups |= {name: loaded.group for name, loaded in files.groups.items()}
        return tuple(loaded.rule for loaded in files.rules), groups

    def _failed_cases(self, files: RuleFiles) -> Iterator[str]:
        settings = self._settings.shard(())
        for loaded in files.rules:
            for result in run_cases(loaded, settings, LuaEngines()):
                if not result.passed:
                    yield f"case {result.located.case.name!r} of {result.rule} failed: {'; '.join(result.differences)}"

    def _unknown_destinations(self, rules: tuple[Rule, ...], warnings: list[str]) -> list[str]:
        """Why the job has no place for webhooks; where it has announced nothing, that is a warning."""
        if has_webhooks(rules):
            try:
                check_destinations_of(self.announced_job(), rules)
            except TopicError as error:
                warnings.append(f"{NOT_CHECKED}: {error}")
            except RuleError as error:
                return [str(error)]
        return []

    def announced_job(self) -> Announcement:
        """What the job has announced; raises a TopicError if that is not known."""
        return announced_job(self._config, self._settings.audit_topic, self._topic.topic)

    def _problems(self, kind: str, published: PublishedSets, rules: tuple[Rule, ...], base: RuleSet) -> Iterator[str]:
        """Why the set cannot be published. The rules of an earlier set come back with their versions."""
        try:
            ActionTopics((*self._settings.own_topics.values(), self._topic.topic)).check(rules)
            if topics_of(rules):
                check_action_topics(self._config, rules)
            if kind == "edit":
                checked_changes(published, rules, base)
        except RuleError as error:
            yield str(error)


def _by_line(problem: Problem) -> str:
    return problem.detail if problem.line is None else f"line {problem.line}: {problem.detail}"


def rule_diffs(before: Sequence[Rule], after: Sequence[Rule]) -> Iterator[RuleDiff]:
    """What differs between the rules of two sets."""
    old, new = ({rule.name: rule for rule in rules} for rules in (before, after))
    for name, rule in new.items():
        if name not in old:
            yield RuleDiff("+", name, f"version {rule.version}", tuple(difference_lines(None, rule)))
        elif old[name] != rule:
            versions = f"version {old[name].version} → {rule.version}"
            yield RuleDiff("~", name, versions, tuple(difference_lines(old[name], rule)))
    for name, rule in old.items():
        if name not in new:
            yield RuleDiff("-", name, f"version {rule.version}")


def rule_text(rule: Rule) -> str:
    """A rule as YAML, texts of several lines as such."""
    document = {"name": rule.name, "version": rule.version, **rule.model_dump(mode="json", exclude_defaults=True)}
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def _title(kind: str, what: str) -> str:
    if kind == "edit":
        return "Publish rules"
    return f"Roll back to set {what}" if kind == "roll_back" else f"Set {what} aside"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
