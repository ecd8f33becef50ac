"""Every block of every page is run or read by what it is for."""

from __future__ import annotations

import pytest

from tests.docs.blocks import check_block
from tests.docs.pages import PAGES, Block, PageError

BLOCKS = [block for page in PAGES for block in page.blocks]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_holds(block: Block) -> None:
    check_block(block)


@pytest.mark.parametrize(
    ("language", "text", "message"),
    [
        ("", "ok\n", None),
        ("cobol", "ADD 1 TO X\n", r"a\.md:7: a block of language 'cobol' has no check"),
        ("sh", "make test\nmake nonsense\n", r"a\.md:9: make nonsense: there is no such target"),
        ("sh", "make demo RATS=2\n", r"a\.md:8: make RATS=2: the Makefile has no variable RATS"),
        ("sh", "make demo RATE=2   # comment\n", None),
        ("sh", "cat <x | frobnicate\n", r"a\.md:8: 'frobnicate' is a program that .* has no check for"),
        ("sh", "if true; then\n", r"bash -n"),
        ("sh", "event-trigger --rules=r --rate=5\n", r"a\.md:8: unknown option '--rate'"),
        ("sh", "python -m pipeline --user_shards=many\n", r"a\.md:8: --user_shards is 'many'"),
        ("sh", "event-trigger \\\n  --bootstrap_servers=b:9092\n", r"a\.md:8: --rules is missing"),
        ("sh", "event-trigger rulez check rules/\n", r"a\.md:8: unknown command 'rulez'"),
        (
            "sh",
            "event-trigger rules chek rules/\n",
            r"a\.md:8: unknown command 'rules chek': did you mean check\?",
        ),
        ("sh", "event-trigger rules test rules/ --junit-xml=out.xml\n", None),
        (
            "sh",
            "event-trigger rules test rules/ --xml=out.xml\n",
            r"unknown option '--xml': event-trigger rules test --help",
        ),
        ("sh", "event-trigger rules backtest rules/ --events e.jsonl --history_fields=x\n", None),
        ("sh", "event-trigger rules backtest rules/ --evnts e.jsonl\n", r"unknown option '--evnts'"),
        ("sh", "event-trigger doctor --flink_master=nobody\n", r"--flink_master is 'nobody'"),
        ("sh", "python -m pipeline --runner=FlinkRunner OPTIONS --detached\n", None),
        ("sh", "event-trigger status --flink_master=f:8081 --once\n", None),
        ("sh", "event-trigger demo --rate=fast\n", r"--rate is 'fast', allowed: a number"),
        ("sh", "event-trigger rules rollback --rules_topic=t --bootstrap_servers=…\n", r"cannot be typed"),
        ("sh", "python -m tests.nothing\n", r"there is no such module|No module named"),
        ("sh", "cat > e.json <<'END'\n{\"event_id\": 1}\nEND\nmake run\n", None),
        ("sh", "cat > e.yaml <<'END'\nname: a\nversion: 1\nfilter: 1 +\nactions: [{type: debug}]\nEND\n", r"filter"),
        ("sh", "terraform apply -var regoin=x\n", r"has no such variable"),
        ("sh", "cd infra/terraform/examples/medium\nterraform apply -var region=x\n", None),
        ("json", '{"event": 1}', None),
        ("json", '{"event": 1', r"a\.md:7: JSONDecodeError"),
        ("json", '{"forget": "u"}\n{"inspect_typo": "u"}', r"the code knows nothing called inspect_typo"),
        ("json", '{"event_id": "e", "event_name": "x", "user_id": "u", "timestamp": "now"}', r"timestamp is a str"),
        ("yaml", "cap: {count: 1, per: day}\n", None),
        ("yaml", "cap: {count: 1, per: fortnight}\n", r"(?s)a\.md:7: .*fortnight"),
        ("yaml", "cooldown: 1d\ncooldown: {time: 1d}\n", None),
        ("yaml", "colour: red\n", r"does not know, with \['colour'\]"),
        (
            "yaml",
            "name: a\nversion: 1\nfilter: event.\nactions: [{type: debug}]\n",
            r"a\.md:1\d: filter does not compile",
        ),
        ("yaml", "tests:\n  - {name: x, events: [{}], expect: maybe, nonsense: 1}\n", r"nonsense"),
        ("yaml", "# $schema=../docs/no.json\n", r"checked is a \$schema that is there"),
        ("yaml", "a: [", r"a\.md:8: "),
        ("lua", "return event.x", None),
        ("lua", "return return", r"a\.md:7: "),
        ("python", "a = (", r"a\.md:7: SyntaxError"),
        ("toml", "a = ", r"a\.md:7: TOMLDecodeError"),
        ("ini", "a = b\n", None),
        ("hcl", 'a = "b\n', r"a\.md:7: terraform fmt"),
    ],
)
def test_a_wrong_block_is_reported_with_its_place(language: str, text: str, message: str | None) -> None:
    block = Block("a.md", 7, language, text)
    if message is None:
        check_block(block)
    else:
        with pytest.raises(PageError, match=message):
            check_block(block)


def test_a_rule_whose_case_fails_is_no_example() -> None:
    text = """\
name: a
version: 1
filter: event.event_name == "b"
actions: [{type: debug}]
tests:
  - {name: fires, events: [{event_name: c}], expect: [debug]}
"""
    with pytest.raises(PageError, match=r"a\.md:1: fires: "):
        check_block(Block("a.md", 1, "yaml", text))
