"""Rule sets on the page: their history, and publishing, rolling back and setting aside."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pipeline.kafka.announcements import Announcement
from pipeline.ui.outcomes import outcomes_over_time
from pipeline.ui.rule_changes import rule_text
from tests.builders import NOW_MS, rule
from tests.pipeline.ui.pages import GivenJob, serving
from tests.pipeline.ui.test_ui import EVIL, VISIBLE, Parsed, Visitor, words
from tests.pipeline.ui.test_ui import token as token
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision

OFFER = rule("offer", "event.price > 5", version=2)
OLD_OFFER = rule("offer", "event.price > 3", version=1)
WELCOME = rule("welcome")
EDITED = "name: offer\nversion: 3\nfilter: event.price > 7\nactions: [{type: debug}]\n"
CHANGE = "/rule-sets/change"


@pytest.fixture
def job() -> GivenJob:
    return GivenJob(
        sets=[
            RuleSet(4, (OLD_OFFER,), NOW_MS, "ann", "first"),
            RuleSet(7, (OFFER, WELCOME), NOW_MS, EVIL, f"note {EVIL}"),
        ],
        log=[],
    )


@pytest.fixture
def visitor(job: GivenJob, token: str) -> Iterator[Visitor]:
    """A visitor who has signed in."""
    with serving(job, token) as url, Visitor(url) as found:
        found.sign_in()
        yield found


def submit(visitor: Visitor, kind: str, what: str, **fields: str) -> tuple[int, str]:
    """Submit the form; status and text of the page."""
    given = {"form": visitor.secret("/rule-sets"), "kind": kind, "what": what, **fields}
    answer = visitor.submit(CHANGE, given)
    return answer.status_code, words(answer)


def publish(visitor: Visitor, kind: str, what: str, note: str = "because", highest: str = "7") -> tuple[int, str]:
    return submit(visitor, kind, what, note=note, highest=highest, execute="1")


def live(job: GivenJob) -> tuple[int, dict[str, int], str]:
    assert job.sets is not None
    return job.sets[-1].number, job.sets[-1].versions, job.sets[-1].note


def test_sets_are_shown_with_who_why_and_what_changed(visitor: Visitor) -> None:
    text = words(visitor.page("/rule-sets"))
    assert text.index("Set 7 live") < text.index("Set 4")
    assert f"by {VISIBLE}: note {VISIBLE}" in text
    assert "What it changed: 2 rules changed offer version 1 → 2 filter: - event.price > 3 + event.price > 5" in text
    assert "added welcome version 1" in text
    assert "The topic keeps no set from before this one." in text


def test_a_changed_rule_is_shown_first_and_published_then(visitor: Visitor, job: GivenJob) -> None:
    status, text = submit(visitor, "edit", EDITED)
    assert status == 200
    assert "nothing is published yet" in text
    assert "changed offer version 2 → 3 filter: - event.price > 5 + event.price > 7" in text
    assert live(job)[0] == 7
    assert publish(visitor, "edit", EDITED, note=" offers\nare rarer ")[0] == 303
    assert live(job) == (8, {"offer": 3, "welcome": 1}, "offers are rarer")
    assert "published set 8" in words(visitor.page("/rule-sets"))


def test_a_rule_is_edited_from_its_own_text(visitor: Visitor) -> None:
    text = visitor.page("/rule-sets/edit?rule=offer").text
    assert "filter: event.price &gt; 5" in text
    assert visitor.page("/rule-sets/edit?rule=nobody").status_code == 404
    assert "name: new_rule" in visitor.page("/rule-sets/edit").text


def test_an_edited_rule_is_checked_as_by_the_commands(visitor: Visitor) -> None:
    status, text = submit(visitor, "edit", EDITED.replace("event.price > 7", "event.evnt_name == visit.pages"))
    assert status == 200
    for warning in (
        "line 3: filter reads event.evnt_name: the specification has no such field; did you mean 'event_name'?",
        "line 3: filter reads visit.pages: visit has no such field; did you mean 'page_count'? "
        "(the next release refuses it)",
        "line 1: offer has no test",
    ):
        assert warning in text


def test_a_webhook_goes_to_a_destination_that_the_job_has_announced(visitor: Visitor, job: GivenJob) -> None:
    edited = EDITED.replace("type: debug", "type: webhook, destination: crm")
    status, text = submit(visitor, "edit", edited)
    assert (status, "destinations are not checked: no job has announced them" in text) == (200, True)
    job.announced = Announcement("shop", "rules", ("mail",), {}, NOW_MS)
    status, text = publish(visitor, "edit", edited)
    assert (status, "destination is 'crm', allowed: mail, of job 'shop'" in text) == (422, True)
    assert live(job)[0] == 7
    job.announced = Announcement("shop", "rules", ("crm",), {}, NOW_MS)
    assert publish(visitor, "edit", edited)[0] == 303
    # Going back is possible all the same.
    job.announced = Announcement("shop", "rules", ("mail",), {}, NOW_MS)
    status, text = submit(visitor, "set_aside", "welcome")
    assert (status, "destination is 'crm', allowed: mail" in text) == (200, True)


def test_texts_of_several_lines_are_blocks() -> None:
    assert "filter: |-\n  local a = 1\n  return a" in rule_text(rule("offer", "local a = 1\nreturn a"))


def test_a_rollback_brings_an_earlier_set_back_under_a_new_number(visitor: Visitor, job: GivenJob) -> None:
    status, text = submit(visitor, "roll_back", "4")
    assert (status, "removed welcome version 1" in text) == (200, True)
    assert publish(visitor, "roll_back", "4")[0] == 303
    assert live(job) == (8, {"offer": 1}, "because")


def test_a_rule_is_set_aside(visitor: Visitor, job: GivenJob) -> None:
    assert "Set aside" in words(visitor.page("/rules/offer"))
    status, text = submit(visitor, "set_aside", "offer")
    assert (status, "removed offer version 2" in text) == (200, True)
    assert publish(visitor, "set_aside", "offer", note="too many")[0] == 303
    assert live(job) == (8, {"welcome": 1}, "too many")
    status, text = publish(visitor, "set_aside", "welcome", highest="8")
    assert (status, "it is the only rule, and a set needs one" in text) == (422, True)
    assert live(job)[0] == 8


@pytest.mark.parametrize(
    ("kind", "what", "problem"),
    [
        (
            "edit",
            EDITED.replace("version: 3", "version: 2"),
            "filter differ from the live version 2: raise the version",
        ),
        ("edit", EDITED.replace("version: 3", "version: 1"), "version 1 is lower than the live 2"),
        ("edit", EDITED.replace("event.price > 7", "event.price >"), "filter does not compile"),
        ("edit", "name: [", "line 1: "),
        ("edit", "", "no rule in it"),
        ("edit", EDITED.replace("debug", "bug"), "line 4: "),
        ("edit", EDITED + "filter_file: /etc/passwd\n", "filter_file"),
        (
            "edit",
            EDITED + "tests: [{name: fires, events: [{price: 1}], expect: [debug]}]\n",
            "case 'fires' of offer failed",
        ),
        ("edit", EDITED.replace("type: debug", "type: kafka, topic: event-audit"), "a topic of the job itself"),
        ("edit", rule_text(OFFER), "nothing changes: these are the rules of the live set 7"),
        ("roll_back", "9", "set is '9', allowed: 4"),
        ("roll_back", "7", "set is '7', allowed: 4"),
        ("set_aside", "ofer", "rule is 'ofer', allowed: offer, welcome"),
    ],
)
def test_what_cannot_be_published_is_named_and_changes_nothing(
    visitor: Visitor, job: GivenJob, kind: str, what: str, problem: str
) -> None:
    if "event-audit" in what:
        what = what.replace("event-audit", job.settings.own_topics["audit_topic"])
    for status, text in (submit(visitor, kind, what), publish(visitor, kind, what)):
        assert status == 422
        assert problem in text
        assert "event-trigger-page-" not in text  # no name of a temporary folder
    assert live(job)[0] == 7


def test_a_note_and_the_set_that_was_seen_are_needed(visitor: Visitor, job: GivenJob) -> None:
    for note in ("", " \n ", "x" * 1001):
        status, text = publish(visitor, "edit", EDITED, note)
        assert (status, "the note has" in text) == (422, True)
    for highest in ("6", "", "x"):
        status, text = publish(visitor, "edit", EDITED, highest=highest)
        assert (status, "set 7 was published meanwhile" in text) == (422, True)
    assert submit(visitor, "drop", "offer")[0] == 400
    assert live(job)[0] == 7


def test_rules_of_files_stay_when_the_first_set_is_published(job: GivenJob, visitor: Visitor) -> None:
    job.sets, job.rules = [], RuleSet(0, (OFFER, WELCOME))
    assert publish(visitor, "edit", EDITED, highest="0")[0] == 303
    assert live(job)[:2] == (1, {"offer": 3, "welcome": 1})
    job.sets, job.rules = [], None
    status, text = publish(visitor, "edit", EDITED, highest="0")
    assert (status, "the live rules are not known" in text) == (502, True)
    assert job.sets == []


def test_only_who_has_signed_in_with_the_form_of_the_session_changes_rules(job: GivenJob, token: str) -> None:
    with serving(job, token) as url, Visitor(url) as visitor:
        secret = visitor.secret("/sign-in")
        fields = {"kind": "set_aside", "what": "offer", "note": "x", "highest": "7", "execute": "1"}
        assert visitor.submit(CHANGE, {**fields, "form": secret}).status_code == 403
        assert visitor.page("/rule-sets/edit").status_code == 403
        assert "Roll back" not in visitor.page("/rule-sets").text
        visitor.sign_in()
        for form in ("", "x"):
            assert visitor.submit(CHANGE, {**fields, "form": form}).status_code == 403
        given = {**fields, "form": visitor.secret("/rule-sets")}
        assert visitor.submit(CHANGE, given, Origin="http://evil.example").status_code == 403
        assert visitor.page(f"{CHANGE}?kind=set_aside&what=offer").status_code == 405
    assert live(job)[0] == 7


def test_without_a_rules_topic_the_page_says_how_to_have_one(job: GivenJob, visitor: Visitor) -> None:
    job.sets = None
    assert "--rules_topic" in words(visitor.page("/rule-sets"))
    answer = visitor.submit(CHANGE, {"form": visitor.secret("/dead-letters"), "kind": "edit", "what": EDITED})
    assert (answer.status_code, "--rules_topic" in words(answer)) == (502, True)
    job.sets = []
    assert "No set was published yet" in words(visitor.page("/rule-sets"))


def test_hostile_texts_of_sets_stay_texts(visitor: Visitor, job: GivenJob) -> None:
    assert job.sets is not None
    job.sets.append(RuleSet(8, (rule("offer", f"-- {EVIL}\nreturn true", version=9),), NOW_MS, EVIL, EVIL))
    answer = visitor.page("/rule-sets")
    parsed = Parsed(answer.text)
    assert parsed.tags & {"script", "iframe", "textarea", "style", "base"} == set()
    assert [name for name, _ in parsed.attributes if name.startswith("on") or name == "style"] == []
    edited = visitor.page("/rule-sets/edit?rule=offer").text
    (text,) = re.findall(r"<textarea[^>]*>(.*?)</textarea>", edited, re.DOTALL)
    assert "&lt;/textarea&gt;" in text


def test_a_rule_s_decisions_are_counted_by_outcome_over_time(job: GivenJob, visitor: Visitor) -> None:
    def decided(outcome: str, ago_min: float) -> Decision:
        time = NOW_MS - round(60_000 * ago_min)
        return Decision(decision=outcome, time=time, user_id="u", event_id="e", rule="offer")

    log = [decided("fired", 0), decided("fired", 0.01), decided("capped", 9), decided("fired", 10)]
    found = outcomes_over_time(log, NOW_MS - 15 * 60_000, NOW_MS, [(NOW_MS - 600_000, "set 7 was published")])
    assert (found.span, [(name, count) for name, count, _ in found.charts]) == ("hour", [("fired", 3), ("capped", 1)])
    (values,) = found.charts[0][2].lines.values()
    assert (len(values), values[-1], values[-2], values[-11]) == (60, 1, 1, 1)
    assert [values[-16], values[-17]] == [0, None]  # before the log begins nothing is known
    assert [mark.text for mark in found.charts[0][2].marks] == ["set 7 was published"]
    assert [outcomes_over_time([decided("fired", ago)], 0, NOW_MS).span for ago in (61, 900, 60 * 24 * 30)] == [
        "six hours", "day", "week"
    ]  # fmt: skip
    assert outcomes_over_time([decided("fired", 60 * 24 * 30)], 0, NOW_MS).charts == []
    job.log = log
    text = words(visitor.page("/rules/offer"))
    assert "Decisions by outcome, the last hour fired 3" in text
