"""Rule sets that somebody has edited: a letter a record, a line a problem, never an exception."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.cli.main import main
from pipeline.kafka.rules_topic import _published_sets
from pipeline.launch.options.settings import Settings
from pipeline.launch.run import _newest_usable_set
from tests.builders import NOW_MS, Shard, batch, event, fetched, filter_set, load_rules, rule
from tests.hostile.edits import LUA_TOKENS, YAML_TOKENS, edited_bytes, edited_json, edited_text, json_text
from transforms.adapters.lua.engines import Isolation
from transforms.domain.events.micro_batch import CONTROL, VERSION, MicroBatch, control_keys, is_for_all, shard_of_key
from transforms.domain.events.record import Record
from transforms.domain.rules.engine import EngineError
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet, encode_rule_set
from transforms.domain.shard.step_input import Answer

ROOT = Path(__file__).parent.parent.parent
SHARDS = 2
RICH = """\
name: rich
version: 3
description: Every field.
filter: |
  local n = 0
  for _, past in ipairs(history) do if past.event_name == "view" then n = n + 1 end end
  return n >= 0 and event.parameters ~= nil
actions:
  - type: kafka
    name: k
    topic: offers
    body: {id: "${event.event_id}", n: [1, 2.5, "${user.country} x"], deep: {a: {b: null}}}
  - {type: webhook, destination: crm, history: true}
  - {type: debug}
on_missing_profile: run
sequence: {followed_by: event.event_name == "buy", within: 30m, match: parameters.cart_id}
cooldown: {time: 1d, key: event.event_name}
cap: {count: 3, per: week}
quiet_hours: {start: "22:00", end: "07:00"}
time_zone: {profile_field: timezone, default: Europe/Berlin}
"""
TESTED = RICH + "\ntests:\n  - {name: t, profile: {country: US}, events: [{parameters: {}}], expect: nothing}\n"


def valid_rules() -> list[str]:
    return [TESTED, *(path.read_text() for path in sorted((ROOT / "examples" / "rules").glob("*.yaml")))]


@pytest.fixture(scope="module")
def valid_set(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("rules") / "rich.yaml"
    path.write_text(RICH)
    rules = (*load_rules(path), *load_rules(ROOT / "examples" / "rules"), *load_rules(ROOT / "examples" / "groups"))
    document: dict[str, Any] = orjson.loads(encode_rule_set(RuleSet(7, rules, NOW_MS, "ann", "why")))
    return document


def edited_record(valid_set: dict[str, Any], rng: random.Random) -> bytes:
    """A record of the rules topic."""
    kind = rng.randrange(4)
    if kind == 0:
        return edited_bytes(orjson.dumps(valid_set), rng)
    if kind == 1:
        return edited_json(valid_set, rng)
    # Only one rule, so that the edit is often the first problem.
    one = rng.choice(valid_set["rules"]["rules"])
    changed = {"rules": valid_set["rules"] | {"rules": [one]}}
    if kind == 2:
        return edited_json(changed, rng)
    changed["rules"]["rules"] = [one | {"filter": edited_text(one["filter"], LUA_TOKENS, rng)}]
    return edited_json(changed, rng) if rng.random() < 0.2 else json_text(changed).encode()


def seeds(config: pytest.Config, share: float = 1.0) -> range:
    return range(max(1, int(config.getoption("--hostile_seeds") * share)))


@pytest.mark.parametrize(("isolation", "share"), [("none", 1.0), ("process", 0.05)])
def test_an_edited_record_is_applied_or_becomes_one_letter(
    valid_set: dict[str, Any], isolation: Isolation, share: float, pytestconfig: pytest.Config
) -> None:
    sets = rule_sets_of(isolation)
    for seed in seeds(pytestconfig, share):
        record = Record(0, seed, NOW_MS, b"set-7", edited_record(valid_set, random.Random(seed)))
        try:
            applied, letters = outcome(record, sets)
        except Exception as error:  # says which seed it was
            raise AssertionError(f"seed {seed}: {record.value[:3000]!r}") from error
        assert (applied, letters) in {(SHARDS, 0), (0, 1)}, (
            f"seed {seed}: {applied}, {letters}: {record.value[:3000]!r}"
        )
    sets.close()


def rule_sets_of(isolation: Isolation) -> RuleSets:
    return RuleSets(RuleSet(0, (rule(),)), lambda rules: filter_set(rules, isolation=isolation), "rules")


def outcome(record: Record, sets: RuleSets) -> tuple[int, int]:
    """In how many shards a record of the rules topic is live, and the number of letters; an event follows."""
    applied = letters = 0
    for number in shards_reached(record):
        shard = Shard(filters=sets)
        done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [record]))
        if number == 0:
            done.include_shared_dead_letters()
        applied += len(done.applied_rule_sets)
        for letter in done.dead_letters:
            assert letter.reason == "bad_control_record"
            assert orjson.loads(letter.to_json())["detail"]
            letters += 1
        steps = [shard.step(batch(event("u", event_id="e")))]
        steps.append(shard.step(answers=[Answer(user, fetched(None)) for user in steps[0].users_to_fetch]))
        assert sum(handled.counts["events_handled"] for handled in steps) == 1
    return applied, letters


def shards_reached(record: Record) -> set[int]:
    """The shards that get a record. Like ``json``, Java's reader takes some bytes for JSON that Python's does not."""
    try:
        document = json.loads(record.value, parse_constant=_no_json)
    except (ValueError, RecursionError):
        document = None
    return set(range(SHARDS)) if is_for_all(document) else {shard_of_key(key) for key in control_keys(record, SHARDS)}


def _no_json(constant: str) -> None:
    raise ValueError(constant)  # NaN is none for Java either


class _Message:
    def __init__(self, value: bytes | None, key: bytes = b"set-7") -> None:
        self._value = value
        self._key = key

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes | None:
        return self._value


def test_a_launch_goes_past_edited_records(
    valid_set: dict[str, Any], pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in seeds(pytestconfig, 0.3):
        value = edited_record(valid_set, random.Random(seed))
        try:
            published = _published_sets([_Message(value)])
            found = _newest_usable_set(Settings(), "rules", published)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {value[:3000]!r}") from error
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1, shown
        assert (found is None) == ("warning: rules topic 'rules': " in shown)


def test_a_number_out_of_reach_pins_neither_publishers_nor_launches(valid_set: dict[str, Any]) -> None:
    far = orjson.dumps({"rules": valid_set["rules"] | {"number": 2**53 - 1}})
    messages = [
        _Message(far, b"set-9007199254740991"),
        _Message(orjson.dumps(valid_set)),
        _Message(None, b"set-9" + b"0" * 15),
    ]
    published = _published_sets(messages)
    assert (published.highest, [found.number for found in published.sets]) == (7, [7])
    allowed = "allowed are up to 1000007, 1,000,000 beyond the last one"
    assert sorted(published.unreadable) == [
        f"set {number}: rule set: number is {number}, {allowed}" for number in (9 * 10**15, 2**53 - 1)
    ]


PLACE = re.compile(r"^error: [^\n]*\.(yaml|lua)(:\d+)?: .+", re.MULTILINE)


@pytest.mark.parametrize("command", ["check", "test"])
def test_an_edited_file_is_fine_or_each_problem_has_its_place(
    command: str, pytestconfig: pytest.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = rule_sets_of("none")
    for seed in seeds(pytestconfig, 0.5):
        rng = random.Random(f"{command} {seed}")
        content = edited_file(rng)
        path = tmp_path / "rule.yaml"
        path.write_bytes(content)
        try:
            code = main(["rules", command, str(path)])
        except Exception as error:
            raise AssertionError(f"seed {seed}: {content[:3000]!r}") from error
        shown = capsys.readouterr()
        assert code in (0, 1), f"seed {seed}: {shown.err}"
        if code == 1 and "failed in" not in shown.out:
            assert PLACE.search(shown.err), f"seed {seed}: {shown.err}"
        if code == 0:
            published = encode_rule_set(RuleSet(1, load_rules(path)))
            assert outcome(Record(0, 0, NOW_MS, b"set-1", published), sets) == (SHARDS, 0)


def edited_file(rng: random.Random) -> bytes:
    text = rng.choice(valid_rules())
    kind = rng.randrange(4)
    if kind == 0:
        return edited_bytes(text.encode(), rng)
    if kind == 1:
        return edited_text(text, YAML_TOKENS, rng).encode("utf-8", "surrogatepass")
    if kind == 2:
        return edited_text(text, LUA_TOKENS, rng).encode("utf-8", "surrogatepass")
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at:at] = rng.sample(lines, rng.randint(1, 3))
    return "".join(lines).encode()


def test_the_edits_reach_beyond_the_reader_of_json(valid_set: dict[str, Any]) -> None:
    """Otherwise the tests above would show little."""
    details = set()
    for seed in range(120):
        record = Record(0, seed, NOW_MS, b"set-7", edited_record(valid_set, random.Random(seed)))
        details |= set(_kinds(record))
    assert details >= {"not JSON", "does not compile", "is missing", "applied"}, details


def _kinds(record: Record) -> Iterator[str]:
    shard = Shard(filters=rule_sets_of("none"))
    done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [record]))
    done.include_shared_dead_letters()
    if done.applied_rule_sets:
        yield "applied"
    for letter in done.dead_letters:
        for kind in ("not JSON", "does not compile", "is missing"):
            if kind in letter.detail:
                yield kind


FOUND = {
    "name with a zero byte": (r"""event["a\0b"] == 1""", {}),
    "name that is no UTF-8": (r"""event["\xff"] == 1 or user["\xed\xa0\x80"] == "\0" """, {}),
    "version that no id can hold": ("true", {"version": 2**64 - 1}),
    "topic that is a folder": ("true", {"actions": [{"type": "kafka", "topic": ".."}]}),
    "upvalues": (
        "".join(f"local a{n}\n" for n in range(100))
        + f"local function f() return {'+'.join(f'a{n}' for n in range(100))}"
        " end\nreturn f",
        {},
    ),
    "locals": ("".join(f"local a{n}\n" for n in range(250)) + "return true", {}),
    "levels": ("(" * 300 + "1" + ")" * 300, {}),
    "closes and opens brackets": ("event.a) or (event.b", {}),
    "bytecode": ("\x1bLJ\x02", {}),
    "number of C": ("event.a == 1LL", {}),
}


@pytest.mark.parametrize("isolation", ["none", "process"])
@pytest.mark.parametrize("name", FOUND)
def test_what_edits_have_found_is_applied_or_becomes_one_letter(
    valid_set: dict[str, Any], name: str, isolation: Isolation
) -> None:
    source, fields = FOUND[name]
    made = {"name": "r", "version": 1, "filter": source, "actions": [{"type": "debug"}]} | fields
    value = json.dumps({"rules": valid_set["rules"] | {"rules": [made]}}).encode()
    sets = rule_sets_of(isolation)
    works = name.startswith("name ")
    assert outcome(Record(0, 0, NOW_MS, b"set-7", value), sets) == ((SHARDS, 0) if works else (0, 1))
    sets.close()


def test_half_a_surrogate_pair_is_one_letter_and_not_one_a_shard(valid_set: dict[str, Any]) -> None:
    value = json.dumps(valid_set | {"x": "\ud800"}).encode()
    assert shards_reached(Record(0, 0, NOW_MS, None, value)) == {0, 1}
    assert outcome(Record(0, 0, NOW_MS, None, value), rule_sets_of("none")) == (0, 1)


def test_an_engine_that_never_starts_is_a_letter_and_one_that_starts_at_last_is_none(valid_set: dict[str, Any]) -> None:
    def sets(failures: int) -> RuleSets:
        tries = iter([False, *[True] * failures])  # the first is that of the launched set

        def compile_rules(rules: tuple[Rule, ...]) -> FilterSet:
            if next(tries, False):
                raise EngineError("the sandbox's process did not start: no answer in time")
            return filter_set(rules)

        return RuleSets(RuleSet(0, (rule(),)), compile_rules, "rules")

    record = Record(0, 0, NOW_MS, b"set-7", orjson.dumps(valid_set))
    assert outcome(record, sets(2)) == (SHARDS, 0)
    assert outcome(record, sets(99)) == (0, 1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            'description: "\\ud800"',
            "rule.yaml:5: not YAML: '\\ud800' has half a surrogate pair, which is no Unicode text",
        ),
        ("version: 99999999999999999999", "rule.yaml:2: version is 99999999999999999999: "),
        ("filter: event.a) or (event.b", "rule.yaml:3: filter does not compile: "),
    ],
)
def test_what_edits_have_found_in_files_is_a_line_with_its_place(
    text: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {"name": "r", "version": "1", "filter": "'true'", "actions": "[{type: debug}]"}
    name, _, value = text.partition(": ")
    path = tmp_path / "rule.yaml"
    path.write_text("".join(f"{field}: {given}\n" for field, given in (lines | {name: value}).items()))
    for command in (["check", str(path)], ["test", str(path)], ["backtest", str(path), "--events=-"]):
        assert main(["rules", *command]) == 1
        assert f"error: {tmp_path}/{shown}" in capsys.readouterr().err
