"""The page over HTTP, as browsers request it, and in a real browser."""

from __future__ import annotations

import contextlib
import html
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from pipeline.cli.main import main
from pipeline.job.jobs import NoJobError
from pipeline.job.snapshot import JobSnapshot
from pipeline.job.stored_letters import StoredLetter
from pipeline.launch.options import Settings
from pipeline.ui.app import build
from pipeline.ui.guard import Guard
from pipeline.ui.hour import Recorder
from pipeline.ui.overview import cards
from pipeline.ui.users import timeline
from pipeline.ui.watch import Watch
from tests.axe import violations
from tests.browser import chromium, follow
from tests.builders import NOW_MS, Shard, batch, event, fetched, rule
from tests.pipeline.ui.pages import GivenJob, GivenWatch, serving, snapshot
from tests.pipeline.ui.screenshot import PAGES as PICTURED
from tests.pipeline.ui.screenshot import a_job
from tests.waiting import eventually
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision
from transforms.domain.shard.step_input import Answer

TOKEN = "correct-horse-battery-staple-7"
EVIL = (
    """"'><script>document.title='taken'</script><img src=x onerror="document.title='taken'"></textarea>{{7*7}}\x1b"""
)
VISIBLE = EVIL.replace("\x1b", "\\x1b")
LOST = DeadLetter(
    "undelivered",
    f"HTTP 400: {EVIL}",
    *("", -1, -1, 9, b"u2", b""),
    rule=EVIL,
    action=LostAction("9f1c", 2, "webhook", f"crm{EVIL}", f"u2{EVIL}", "e", EVIL.encode(), 5, 3, 400),
)
EVENT = DeadLetter("key_mismatch", EVIL, "events", 0, 7, 9, EVIL.encode(), EVIL.encode())
CONTROL = DeadLetter("bad_control_record", "why", "control", 0, 1, 9, None, b"{}")
PAGES = (
    "/",
    "/rules",
    "/rules/offer",
    "/decisions",
    "/dead-letters",
    "/dead-letters/0/1",
    "/dead-letters/0/2",
    "/dead-letters/0/3",
    "/user",
    "/user?user_id=u1",
)
# Pages that renew themselves, with the only script that there is.
LIVE = ("/", "/rules")


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the token is, unless a test says otherwise."""
    monkeypatch.setenv("UI_TOKEN", TOKEN)
    return "env:UI_TOKEN"


@pytest.fixture
def job() -> GivenJob:
    """A job in which every text that others may choose is hostile."""
    offer = rule("offer", f"-- {EVIL}\nreturn true", description=EVIL)
    shard = Shard(rule("offer", cap={"count": 3, "window": "7d"}), history_fields=("page",))
    shard.step(batch(event("u1", event_id=EVIL, event_name=EVIL, page=EVIL)))
    shard.step(answers=[Answer("u1", fetched({"profile": {EVIL: EVIL}, "visit": None, "history": []}))])
    decisions = [
        Decision(
            decision="fired", time=NOW_MS, user_id="u1", event_id=EVIL, event_name=EVIL, rule=EVIL, version=1,
            action=EVIL, action_id=f"9f1c{EVIL}", destination=EVIL, attempts=2, status=503, detail=EVIL,
        ),
        Decision(decision=EVIL, time=10**17, user_id="u2", event_id="e2", rule="offer"),
    ]  # fmt: skip
    letters = [StoredLetter(0, number, NOW_MS, letter) for number, letter in enumerate((LOST, EVENT, CONTROL), 1)]
    return GivenJob(
        rules=RuleSet(4, (offer,), NOW_MS, EVIL, EVIL),
        log=decisions,
        dead={stored.place: stored for stored in letters},
        users={"u1": shard.inspect("u1")},
        snapshots=[snapshot(0), snapshot(60, rule__offer__allowed=124, rule__offer__fired=31, rule__gone__error=3)],
    )


class Visitor(requests.Session):
    """A browser without a window: cookies, and forms filled in as the page gave them."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.trust_env = False

    def page(self, path: str, **options: Any) -> requests.Response:
        return self.get(self.url + path, allow_redirects=False, timeout=30, **options)

    def submit(self, path: str, fields: dict[str, Any], **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(self.url + path, fields, headers=named, allow_redirects=False, timeout=30)

    def secret(self, path: str) -> str:
        (found, *_) = re.findall(r'name="form" value="([^"]+)"', self.page(path).text)
        return str(found)

    def sign_in(self, given: str = TOKEN) -> requests.Response:
        return self.submit("/sign-in", {"form": self.secret("/sign-in"), "token": given})

    def redrive(self, *places: str, **headers: str) -> requests.Response:
        """Submit the form that sends."""
        fields = {"form": self.secret("/dead-letters"), "place": places, "execute": "1"}
        return self.submit("/dead-letters/redrive", fields, **headers)


@pytest.fixture
def visitor(job: GivenJob, token: str) -> Iterator[Visitor]:
    """A visitor of a page that was started with a token."""
    with serving(job, token) as url, Visitor(url) as found:
        yield found


class Parsed(HTMLParser):
    """The elements, attributes and text that a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.text += " "
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


# What is shown


def test_rules_have_their_matches_per_minute(visitor: Visitor) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", visitor.page("/rules").text, re.DOTALL)
    cells = [" ".join(Parsed(row).text.split()) for row in rows]
    assert cells == [
        "Rule Matches/min Fired/min Matches Fired Errors Quarantined",
        "offer v1 124.0 31.0 124 31 0 0",
        "gone not in the set 0.0 0.0 0 0 3 0",
    ]


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ({}, '<p class="quiet">Stream time: unknown.</p>'),
        ({"partition__3__time_behind_ms": 5_000}, '<p class="quiet">Stream time: 5 s behind the clock.</p>'),
        (
            {"partition__3__time_behind_ms": 62_000, "partition__3__time_hold": 2, "position_resets": 1},
            '<p class="notice bad">Stream time: partition 3 holds it at 1970-01-01 00:00:38 UTC: an open transaction; '
            "0 records skipped that Kafka had deleted, 1 positions out of range.</p>",
        ),
    ],
)
def test_the_page_says_what_holds_the_stream_s_time(job: GivenJob, metrics: dict[str, int], line: str) -> None:
    job.snapshots = [snapshot(0), snapshot(60, events=1, **metrics)]
    with serving(job) as url, Visitor(url) as visitor:
        assert line in visitor.page("/").text


def failed(cause: str) -> JobSnapshot:
    trace = f"java.lang.Exception: a task failed\nCaused by: java.io.IOException: {cause}"
    of_now = snapshot(60, events=1)
    return replace(of_now, job=of_now.job | {"state": "FAILED"}, failures=[{"timestamp": 90_000, "stacktrace": trace}])


@pytest.mark.parametrize(
    ("now", "code", "verdict", "cause", "section"),
    [
        (snapshot(60, events=1), 200, "HEALTHY", None, None),
        (
            snapshot(60, user_api_breaker_open=1),
            200,
            "DEGRADED",
            "the user API fails and is spared (its breaker is open), 0 users wait for it",
            "UserApiFails",
        ),
        (failed("user u7"), 503, "DOWN", "the job is FAILED", "JobNotRunning"),
    ],
)
def test_health_is_a_code_and_a_cause_for_anyone_and_no_text_of_others(
    job: GivenJob, now: JobSnapshot, code: int, verdict: str, cause: str | None, section: str | None
) -> None:
    job.snapshots = [snapshot(0, events=0), now]
    with serving(job, reads_need_it=True, token="env:UI_TOKEN") as url, Visitor(url) as visitor:
        assert visitor.page("/").status_code == 303  # everything else needs a sign-in
        answer = visitor.page("/health")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (code, "no-store")
        assert "Set-Cookie" not in answer.headers
        found = answer.json()
        assert found.pop("seen_seconds_ago") < 60
        assert found == {"verdict": verdict, "cause": cause, "section": section}
        assert visitor.page("/health", headers={"Host": "evil.example"}).status_code == 400


def test_health_without_any_answer_is_down(job: GivenJob) -> None:
    job.snapshots = []
    with serving(job) as url, Visitor(url) as visitor:
        answer = visitor.page("/health")
        assert (answer.status_code, answer.json()["verdict"]) == (503, "DOWN")


def test_the_overview_shows_the_verdict_with_cause_detail_and_command(job: GivenJob) -> None:
    job.snapshots = [snapshot(0, events=0), replace(failed(EVIL), restarts=1)]
    with serving(job) as url, Visitor(url) as visitor:
        text = Parsed(visitor.page("/").text).text
    assert "DOWN the job is FAILED: java.io.IOException: " in " ".join(text.split())
    assert "event-trigger resume --flink_master=flink:8081 --job_name=shop" in text


def test_a_lag_that_nobody_can_tell_is_unknown(job: GivenJob) -> None:
    job.snapshots = [snapshot(0, events=0), replace(snapshot(60, events=1), lag=None)]
    with serving(job) as url, Visitor(url) as visitor:
        assert "Lag unknown" in words(visitor.page("/"))


def test_decisions_are_filtered_by_user_rule_and_action(visitor: Visitor) -> None:
    def shown(query: str) -> list[str]:
        text = visitor.page(f"/decisions?{query}").text
        return [user for user in ("u1", "u2") if f"user_id={user}" in text]

    assert [shown(query) for query in ("", "user=u1", "user=u2", "rule=offer", "action=x", "user=u1&rule=offer")] == [
        ["u1", "u2"], ["u1"], ["u2"], ["u2"], [], []
    ]  # fmt: skip


def words(answer: requests.Response) -> str:
    return " ".join(Parsed(answer.text).text.split())


def test_the_overview_has_charts_with_their_words_and_all_outcomes_of_destinations(job: GivenJob) -> None:
    counts = {"events_handled": 2400, "user_api_calls": 30, "user_api_breaker_open": 1}
    sent = {
        name: number
        for number, name in enumerate(("delivered", "retried", "delayed", "refused", "given_up", "dropped"), 7)
    }
    metrics = counts | {f"action__webhook__crm__{name}": number for name, number in sent.items()}
    job.snapshots = [snapshot(0, rule_set=3, **dict.fromkeys(metrics, 0)), snapshot(60, rule_set=4, **metrics)]
    with serving(job) as url, Visitor(url) as visitor:
        answer = visitor.page("/")
    text = words(answer)
    assert answer.text.count('<svg viewBox="0 0 600 60"') == 6
    assert "the last hour: 40 to 40, last 40/s. Marks: rule set 4 is live, by" in text
    assert f"rule set 4 is live, by {VISIBLE}: {VISIBLE}" in text
    assert "Breaker failing Calls 0.5 /s" in text
    assert "Destination State Delivered/s Delivered Retried Delayed Refused Given up Dropped crm" in text
    assert "7 8 9 10 11 12" in text


@pytest.mark.parametrize(
    ("lag", "shown"), [(None, ("unknown", "")), (0, ("0", " events")), (12_345, ("12,345", " events"))]
)
def test_a_lag_that_nobody_can_tell_is_no_number(lag: int | None, shown: tuple[str, str]) -> None:
    found = cards(Recorder().hour(NOW_MS), [], {"events": {"lag": lag}})
    assert [(card.value, card.unit) for card in found if card.chart.name == "Lag"] == [shown]


def test_an_overview_without_anything_says_what_is_missing(job: GivenJob) -> None:
    job.snapshots, job.rules = (), None
    with serving(job) as url, Visitor(url) as visitor:
        text = words(visitor.page("/"))
    assert "Flink has not told anything yet" in text
    assert text.count("the last hour: nothing seen yet") == 6
    assert "Nothing in this hour" in text


def test_decisions_are_paged_and_filters_stay(job: GivenJob) -> None:
    kinds = ("fired", "capped")
    job.log = [
        Decision(decision=kinds[n % 2], time=NOW_MS - n, user_id=f"u{n}", event_id=f"e{n}", rule="offer")
        for n in range(120)
    ]
    with serving(job) as url, Visitor(url) as visitor:
        pages = [visitor.page(f"/decisions?outcome=capped&rule=offer&page={number}").text for number in (1, 3, 99)]
        shown = [re.findall(r"user_id=(u\d+)", page) for page in pages]
        assert [(len(found), found[0]) for found in shown] == [(25, "u1"), (10, "u101"), (10, "u101")]
        assert "60 decisions, page 1 of 3" in words(visitor.page("/decisions?outcome=capped"))
        older = html.unescape(re.findall(r'href="([^"]+)" rel="next"', pages[0])[0])
        assert re.findall(r"user_id=(u\d+)", visitor.page(older).text)[0] == "u51"
        assert "fired 60" in words(visitor.page("/decisions"))
        assert [visitor.page(f"/decisions?page={page}").status_code for page in ("0", "x", "-1", "9" * 30)] == [400] * 4


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/decisions?outcome=caped", 400, "outcome is 'caped', did you mean capped?"),
        ("/decisions?outcome=x", 400, "outcome is 'x', allowed: fired, held,"),
        ("/decisions?rule=ofer", 200, "None of the 2 decisions looked at has rule ofer. rule: did you mean offer?"),
        ("/decisions?user=u1&outcome=capped", 200, "None of the 2 decisions looked at has user u1, outcome capped."),
        ("/dead-letters?reason=keymismatch", 400, "reason is 'keymismatch', did you mean key_mismatch?"),
        ("/dead-letters?reason=too_large", 200, "None of the 3 letters looked at has reason too_large."),
        ("/dead-letters?since=yesterday", 400, "since is 'yesterday', allowed: a time like 2024-01-31T08:00:00Z"),
        ("/dead-letters?until=2020-01-01", 200, "None of the 3 letters looked at has until 2020-01-01."),
    ],
)
def test_what_a_filter_cannot_find_it_names(visitor: Visitor, path: str, status: int, text: str) -> None:
    answer = visitor.page(path)
    assert answer.status_code == status
    assert text in words(answer)


def test_letters_are_counted_and_filtered(job: GivenJob, visitor: Visitor) -> None:
    def shown(query: str) -> list[str]:
        return re.findall(r'href="/dead-letters/(\d+/\d+)"', visitor.page(f"/dead-letters?{query}").text)

    job.dead["0/3"] = replace(job.dead["0/3"], at_ms=NOW_MS - 3_600_000)
    text = words(visitor.page("/dead-letters"))
    assert "undelivered 1" in text
    assert "key_mismatch 1" in text
    assert shown("") == ["0/1", "0/2", "0/3"]
    assert shown("reason=key_mismatch") == ["0/2"]
    assert shown("since=2023-12-31T23:30Z") == ["0/1", "0/2"]
    assert shown("until=2023-12-31T23:30Z&reason=bad_control_record") == ["0/3"]
    job.dead["0/2"] = replace(job.dead["0/2"], letter=msgspec.structs.replace(EVENT, rule="offer"))
    assert shown("rule=offer") == ["0/2"]


def test_a_user_s_events_are_a_timeline_with_the_decisions_on_them(job: GivenJob) -> None:
    rows = [{"timestamp": NOW_MS + n, "event_id": f"e{n}", "event_name": "view", "page": f"/{n}"} for n in range(3)]
    log = [
        Decision(decision=kind, time=NOW_MS + 9, user_id="u1", event_id=event_id, event_time=at_ms, rule="offer")
        for kind, event_id, at_ms in (
            ("delivered", "e1", None),
            ("fired", "e1", NOW_MS + 1),
            ("capped", "gone", NOW_MS - 5),
        )
    ]
    found = timeline(rows, log)
    assert [(moment.event_id, [made.decision for made in moment.decisions]) for moment in found] == [
        ("e2", []), ("e1", ["fired", "delivered"]), ("e0", []), ("gone", ["capped"])
    ]  # fmt: skip
    assert (found[0].name, found[0].fields, found[3].name) == ("view", "page=/2", None)
    job.log = [*log, *(job.log or ())]
    with serving(job) as url, Visitor(url) as visitor:
        assert "fired offer" in words(visitor.page("/user?user_id=u1"))


def test_a_letter_is_shown_with_everything(visitor: Visitor) -> None:
    text = Parsed(visitor.page("/dead-letters/0/2").text).text
    assert VISIBLE in text  # the event as it was
    assert {"reason", "record.topic", "record.offset", "record.value"} <= set(text.split())
    assert "2024-01-01T00:00:00.000Z (0 s ago)" in text  # times as times
    assert "base64" not in text


def test_bytes_that_are_no_text_are_base64(job: GivenJob, visitor: Visitor) -> None:
    job.dead["0/2"] = replace(job.dead["0/2"], letter=msgspec.structs.replace(EVENT, value=b"\xff\xfe", key=None))
    text = " ".join(Parsed(visitor.page("/dead-letters/0/2").text).text.split())
    assert "record.value.base64 //4=" in text


@pytest.mark.parametrize("path", ["/nowhere", "/rules/nobody", "/dead-letters/0/99", "/dead-letters/x/1"])
def test_what_is_not_there_is_not_found(visitor: Visitor, path: str) -> None:
    answer = visitor.page(path)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


def test_an_error_says_what_to_do(visitor: Visitor) -> None:
    assert "There is no page at this address: choose one above." in words(visitor.page("/nowhere"))
    assert "There is no such dead letter." in words(visitor.page("/dead-letters/0/99"))
    assert "This address takes a form" in words(visitor.page("/sign-out"))
    form = {"form": visitor.secret("/sign-in"), "what": "x" * 100_000}
    assert "The form is larger than 64 KB" in words(visitor.submit("/rule-sets/change", form))


def test_a_job_without_a_decision_log_says_how_to_have_one(job: GivenJob) -> None:
    job.log = None
    with serving(job) as url, Visitor(url) as visitor:
        for path in ("/decisions", "/rules/offer", "/user?user_id=u1"):
            assert "<code>--decisions_topic</code>" in visitor.page(path).text


def test_an_unknown_user_and_a_silent_job_are_different_messages(job: GivenJob) -> None:
    job.users["nobody"] = Shard(rule()).inspect("nobody")
    with serving(job) as url, Visitor(url) as visitor:
        assert "The job knows nothing of this user" in visitor.page("/user?user_id=nobody").text
        assert "no answer about silent" in visitor.page("/user?user_id=silent").text


def test_without_kafka_or_flink_pages_say_what_is_wrong(job: GivenJob) -> None:
    job.trouble, job.snapshots = f"the broker is away {EVIL}", ()
    with serving(job) as url, Visitor(url) as visitor:
        for path in LIVE:
            live = visitor.page(path)
            assert live.status_code == 200
            assert "Flink has not told anything yet" in live.text
        for path in PAGES[:-2]:
            answer = visitor.page(path)
            assert answer.status_code == (200 if path in LIVE else 502)
            assert "the broker is away" in answer.text
            assert "<script>" not in answer.text


# Texts of others


@pytest.mark.parametrize(
    "path", [*PAGES, f"/user?user_id={EVIL}", f"/decisions?user={EVIL}", f"/rules/{EVIL}", f"/{EVIL}"]
)
def test_hostile_texts_stay_texts(visitor: Visitor, path: str) -> None:
    visitor.sign_in()
    answer = visitor.page(path)
    page = Parsed(answer.text.replace('<script src="/static/live.js" defer></script>', "", path in LIVE))
    assert page.tags & {"script", "iframe", "object", "textarea", "style", "base"} == set()
    assert [name for name, _ in page.attributes if name.startswith("on") or name == "style"] == []
    links = [value for name, value in page.attributes if name in ("href", "src", "action")]
    assert [link for link in links if not re.fullmatch(r"#main|/[^/].*|/", link)] == []
    assert "49" not in page.text  # no template in a template
    assert "\x1b" not in page.text


def test_hostile_texts_are_shown_as_they_are(visitor: Visitor) -> None:
    for path in ("/decisions", "/dead-letters", "/user?user_id=u1"):
        assert VISIBLE in Parsed(visitor.page(path).text).text


# Who may read


def test_every_answer_forbids_foreign_scripts_frames_and_copies(visitor: Visitor) -> None:
    paths = (*PAGES, "/nowhere", "/static/style.css", "/sign-in")
    for path, answer in [
        *zip(paths, map(visitor.page, paths), strict=True),
        ("", visitor.submit("/dead-letters/redrive", {})),
    ]:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy.get("script-src"), policy.get("connect-src")) == (
            ("'self'",) * 2 if path in LIVE else (None, None)
        )
        assert "'unsafe-inline'" not in str(policy)
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "0.0.0.0", ""])
def test_another_host_name_is_refused(visitor: Visitor, host: str) -> None:
    for path in ("/", "/dead-letters", "/static/style.css", "/nowhere"):
        answer = visitor.page(path, headers={"Host": host})
        assert answer.status_code == 400
        assert "undelivered" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8085", "127.0.0.1", "[::1]:8085"])
def test_this_machine_s_names_are_fine(visitor: Visitor, host: str) -> None:
    assert visitor.page("/", headers={"Host": host}).status_code == 200


def fetch(site: str, mode: str, dest: str) -> dict[str, str]:
    return {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}


def test_other_sites_may_link_and_not_embed(visitor: Visitor) -> None:
    for site in ("cross-site", "same-site"):  # another port of this machine is the same site
        assert visitor.page("/user?user_id=u1", headers=fetch(site, "navigate", "document")).status_code == 200
        assert visitor.page("/user?user_id=u1", headers=fetch(site, "navigate", "iframe")).status_code == 403
        assert visitor.page("/user?user_id=u1", headers=fetch(site, "no-cors", "image")).status_code == 403
    assert visitor.page("/user?user_id=u1", headers=fetch("none", "navigate", "document")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        fetch("cross-site", "navigate", "document"),
        fetch("same-site", "navigate", "document"),
        {"Referer": "https://evil.example/"},
        {"Referer": "http://["},
        {"Referer": "no address"},
    ],
)
def test_a_link_of_another_site_asks_the_job_nothing(visitor: Visitor, job: GivenJob, headers: dict[str, str]) -> None:
    page = visitor.page("/user?user_id=u1", headers=headers)
    assert page.status_code == 200
    assert "Ask the job" in page.text
    assert job.asked == []
    for own in (fetch("same-origin", "navigate", "document"), fetch("none", "navigate", "document"), {}):
        assert "Ask the job" not in visitor.page("/user?user_id=u1", headers=own).text
    assert job.asked == ["u1"] * 3


def test_slow_look_ups_leave_threads_for_others(job: GivenJob) -> None:
    job.waiting = threading.Event()
    with serving(job) as url, ThreadPoolExecutor(10) as pool:
        try:
            waiting = [pool.submit(requests.get, f"{url}/user?user_id=u1", timeout=60) for _ in range(10)]
            # Two wait for the job, the others are refused at once.
            refused = [done.result() for done in islice(as_completed(waiting), 8)]
            assert {answer.status_code for answer in refused} == {503}
            assert {answer.headers["Retry-After"] for answer in refused} == {"3"}
            for path in ("/rules", "/static/style.css"):
                assert requests.get(url + path, timeout=30).status_code == 200
            assert "verdict" in requests.get(f"{url}/health", timeout=30).json()
        finally:
            job.waiting.set()
        assert sorted(done.result().status_code for done in waiting) == [200] * 2 + [503] * 8
        assert requests.get(f"{url}/user?user_id=u1", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("given", "host", "status"),
    [
        ("fd00::1", "[fd00::1]:8085", 200),
        ("fd00::1", "[fd00:0:0:0::0001]", 200),
        ("FD00::A", "[fd00::a]:1", 200),
        ("[fd00::1]", "[fd00::1]", 200),
        ("fe80::1%eth0", "[fe80::1]", 200),
        ("fd00::1", "[fd00::2]", 400),
        ("fd00::1", "fd00::1", 400),
        ("ui.example.com", "UI.example.com.:443", 200),
    ],
)
def test_hosts_are_names_and_addresses_in_any_form(job: GivenJob, given: str, host: str, status: int) -> None:
    app = build(job, GivenWatch(job.snapshots), Guard(None, [given]))  # type: ignore[arg-type]
    assert app.test_client().get("/rules", headers={"Host": host}).status_code == status


def test_the_page_is_served_on_an_ipv6_address(job: GivenJob) -> None:
    with serving(job, address="::1") as url:
        assert url.startswith("http://[::1]:")
        assert requests.get(f"{url}/rules", timeout=30).status_code == 200


def test_beyond_this_machine_nothing_is_shown_without_signing_in(job: GivenJob, token: str) -> None:
    with serving(job, token, reads_need_it=True) as url, Visitor(url) as visitor:
        for path in (*PAGES, "/nowhere"):
            answer = visitor.page(path)
            assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")
            assert "offer" not in answer.text
        assert visitor.page("/static/style.css").status_code == 200
        visitor.sign_in()
        assert visitor.page("/dead-letters").status_code == 200


# Who may change something


def test_a_signed_in_visitor_redrives_the_chosen_letters_oldest_first(visitor: Visitor, job: GivenJob) -> None:
    assert visitor.sign_in().status_code == 303
    answer = visitor.redrive("0/2", "0/1", "0/2", "0/77", "x", "1/2/3", "-1/0")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/dead-letters")
    assert job.redriven == ["0/1", "0/2"]
    shown = Parsed(visitor.page("/dead-letters").text).text
    assert "sent: 1 actions, 1 events; skipped: 1: there is no such letter any more" in shown
    assert shown.count("sent again") == 2
    assert "sent: 1 actions" not in visitor.page("/dead-letters").text  # a notice is shown once


def test_the_first_form_only_shows_what_would_be_sent_where(visitor: Visitor, job: GivenJob) -> None:
    visitor.sign_in()
    fields = {"form": visitor.secret("/dead-letters"), "place": ["0/1", "0/2"], "accept_unsigned": "on"}
    shown = visitor.submit("/dead-letters/redrive", fields)
    assert shown.status_code == 200
    assert job.redriven == []
    assert job.flags == [(True, False)]
    text = Parsed(shown.text).text
    assert "Would be sent: 1 actions, 1 events." in text
    assert "unsigned" in text
    assert 'name="execute"' in shown.text
    visitor.submit("/dead-letters/redrive", fields | {"execute": "1", "again": "on"})
    assert (job.redriven, job.flags[-1]) == (["0/1", "0/2"], (True, True))


def test_letters_that_cannot_be_redriven_say_why(visitor: Visitor, job: GivenJob) -> None:
    visitor.sign_in()
    assert "It cannot be sent again: control records, which are not redriven." in visitor.page("/dead-letters/0/3").text
    job.settings = Settings(job_name="shop")
    assert "It cannot be sent again: actions, which need --control_topic." in visitor.page("/dead-letters/0/1").text
    assert "It cannot be sent again" not in visitor.page("/dead-letters/0/2").text


def test_without_a_token_the_page_is_read_only(job: GivenJob) -> None:
    with serving(job) as url, Visitor(url) as visitor:
        for path in PAGES:
            assert 'method="post" action="/dead-letters/redrive"><input' not in visitor.page(path).text
            assert '<button class="primary">Redrive' not in visitor.page(path).text
        assert visitor.page("/sign-in").status_code == 404
        secret = visitor.secret("/dead-letters")
        answer = visitor.submit("/dead-letters/redrive", {"form": secret, "place": "0/1"})
        assert answer.status_code == 403
        assert "read-only" in answer.text
        for given in ("", "None"):
            assert visitor.submit("/sign-in", {"form": secret, "token": given}).status_code == 404
    assert job.redriven == []


def test_who_has_not_signed_in_cannot_redrive(visitor: Visitor, job: GivenJob) -> None:
    assert visitor.redrive("0/1").status_code == 403
    for given in ("", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "ü"):
        assert visitor.sign_in(given).status_code == 403
        assert visitor.redrive("0/1").status_code == 403
    assert job.redriven == []


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        (None, {}),
        ("", {}),
        ("-", {}),
        ("another session's", {}),
        ("own", {"Origin": "http://evil.example"}),
        ("own", {"Origin": "http://127.0.0.1:1"}),
        ("own", {"Origin": "null"}),
        ("own", {"Origin": ""}),
        ("own", {"Origin": "http://["}),
        ("own", {"Origin": "http://[::1"}),
        ("own", {"Origin": "ftp://{page}"}),
        ("own", {"Origin": "http://{page} http://evil.example"}),
        ("own", {"Origin": "http://evil.example@{page}"}),
        ("own", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}),
        ("own", {"Sec_Fetch_Site": "same-site"}),
    ],
)
def test_other_sites_forms_are_refused(
    visitor: Visitor, job: GivenJob, form: str | None, headers: dict[str, str]
) -> None:
    visitor.sign_in()
    with Visitor(visitor.url) as other:
        known = {"own": visitor.secret("/dead-letters"), "another session's": other.secret("/dead-letters")}
    fields = {"place": "0/1"} | ({} if form is None else {"form": known.get(form, form)})
    sent = {name: value.format(page=visitor.url.removeprefix("http://")) for name, value in headers.items()}
    for path in ("/dead-letters/redrive", "/sign-out", "/sign-in"):
        assert visitor.submit(path, fields, **sent).status_code == 403
    assert job.redriven == []
    assert visitor.redrive("0/1", Origin=visitor.url).status_code == 303
    assert job.redriven == ["0/1"]


@pytest.mark.parametrize("form", ["", "-", "x"])
def test_a_form_without_the_session_s_secret_signs_nobody_in(visitor: Visitor, form: str) -> None:
    assert visitor.submit("/sign-in", {"form": form, "token": TOKEN}).status_code == 403
    assert visitor.redrive("0/1").status_code == 403


def test_reading_never_redrives(visitor: Visitor, job: GivenJob) -> None:
    visitor.sign_in()
    assert visitor.page("/dead-letters/redrive?place=0/1").status_code in (404, 405)
    assert visitor.page("/sign-out").status_code == 405
    assert job.redriven == []


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(visitor: Visitor) -> None:
    cookie = visitor.sign_in().headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie


def test_behind_a_trusted_proxy_with_tls_the_cookie_stays_in_tls(job: GivenJob, token: str) -> None:
    with serving(job, token, trusted_proxy="127.0.0.1") as url, Visitor(url) as visitor:
        through_tls = {"X-Forwarded-Proto": "https"}
        page = visitor.page("/sign-in", headers=through_tls)
        assert "Secure" in parts_of(page.headers["Set-Cookie"])
        visitor.cookies.clear()
        # A form that came without TLS could be of somebody between.
        visitor.cookies.update({"event_trigger_ui": page.cookies["event_trigger_ui"]})
        form = {"form": secret_of(page.text), "token": TOKEN}
        site = url.removeprefix("http://")
        for scheme, status in (("http", 403), ("https", 303)):
            answer = visitor.submit("/sign-in", form, Origin=f"{scheme}://{site}", **{"X-Forwarded-Proto": "https"})
            assert answer.status_code == status
        assert "Secure" in parts_of(answer.headers["Set-Cookie"])


def test_what_any_sender_says_of_tls_does_not_count(visitor: Visitor) -> None:
    page = visitor.page("/sign-in", headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"})
    assert page.status_code == 200
    assert "Secure" not in parts_of(page.headers["Set-Cookie"])


def parts_of(cookie: str) -> set[str]:
    return {part.strip() for part in cookie.split(";")}


def secret_of(page: str) -> str:
    (secret,) = set(re.findall(r'name="form" value="([^"]+)"', page))
    return secret


def test_who_tries_tokens_has_to_wait_and_others_need_not(job: GivenJob, token: str) -> None:
    with serving(job, token, trusted_proxy="127.0.0.1") as url, Visitor(url) as visitor:

        def tried(given: str, address: str) -> requests.Response:
            form = {"form": visitor.secret("/sign-in"), "token": given}
            return visitor.submit("/sign-in", form, **{"X-Forwarded-For": address})

        answers = [tried("wrong", "192.0.2.1") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [403] * 5 + [429]
        assert answers[-1].headers["Retry-After"] == "1"
        assert "Too many wrong tokens. Try again in 1 s." in answers[-1].text
        assert tried(TOKEN, "192.0.2.1").status_code == 429
        assert tried(TOKEN, "192.0.2.2").status_code == 303


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "FOO"])
def test_only_a_form_tries_a_token(visitor: Visitor, caplog: pytest.LogCaptureFixture, method: str) -> None:
    for given in ("wrong", TOKEN):
        fields = {"form": visitor.secret("/sign-in"), "token": given}
        visitor.request(method, f"{visitor.url}/sign-in", data=fields, params=fields, allow_redirects=False, timeout=30)
    assert caplog.messages == []
    assert visitor.redrive("0/1").status_code == 403


def test_signing_out_ends_every_copy_of_the_session(visitor: Visitor, job: GivenJob) -> None:
    visitor.sign_in()
    secret = visitor.secret("/dead-letters")
    with Visitor(visitor.url) as copy:
        copy.cookies.update(visitor.cookies)
        assert visitor.submit("/sign-out", {"form": secret}).status_code == 303
        assert visitor.redrive("0/1").status_code == 403
        assert copy.submit("/dead-letters/redrive", {"form": secret, "place": "0/1"}).status_code == 403
    assert job.redriven == []


def test_a_forged_cookie_signs_nobody_in(visitor: Visitor, job: GivenJob) -> None:
    visitor.sign_in()
    (cookie,) = list[Any](visitor.cookies)
    payload, _, rest = str(cookie.value).partition(".")
    visitor.cookies.set(cookie.name, f"{payload[:-2]}AA.{rest}", domain=cookie.domain, path="/")
    assert visitor.redrive("0/1").status_code == 403
    assert job.redriven == []


def test_a_session_ends_after_half_a_day(job: GivenJob, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    now_s = [0.0]
    before = Guard.__init__
    monkeypatch.setattr(Guard, "__init__", lambda *given, **named: before(*given, **named, clock=lambda: now_s[0]))
    with serving(job, token) as url, Visitor(url) as visitor:
        visitor.sign_in()
        now_s[0] = 12 * 3600 - 1
        assert visitor.redrive("0/1").status_code == 303
        now_s[0] += 2
        assert visitor.redrive("0/1").status_code == 403
    assert job.redriven == ["0/1"]


def test_a_form_that_is_too_large_is_refused(visitor: Visitor) -> None:
    visitor.sign_in()
    fields = {"form": visitor.secret("/"), "place": "0" * 100_000}
    assert visitor.submit("/dead-letters/redrive", fields).status_code == 413


@pytest.mark.parametrize("length", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_no_more_of_a_body_is_kept_than_of_a_form(visitor: Visitor, length: str) -> None:
    host, port = visitor.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(f"POST /sign-in HTTP/1.1\r\nHost: {host}:{port}\r\n{length}\r\n\r\n".encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the page may have hung up
            connection.sendall((b"20000\r\n" + b"a" * 0x20000 + b"\r\n") * 9)  # 1.2 MB, and more would follow
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_silent_connections_leave_room_for_others(visitor: Visitor) -> None:
    host, port = visitor.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as silent:
        for _ in range(300):
            silent.enter_context(socket.create_connection((host, int(port)), 30)).sendall(b"GET / HTTP/1.1\r\n")
        assert visitor.page("/health").status_code == 200


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("browser")) as found:
        yield found


def complaints(browser: Chrome) -> list[str]:
    """What the browser refused or could not load, but for missing pages."""
    entries = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [entry["message"] for entry in entries]


@contextmanager
def wide(browser: Chrome, width: int) -> Iterator[None]:
    """Make the browser's window so wide while the context is open."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def sign_in(browser: Chrome, url: str) -> None:
    browser.get(f"{url}/sign-in")
    browser.find_element(By.NAME, "token").send_keys(TOKEN)
    follow(browser, browser.find_element(By.CSS_SELECTOR, "main button").click)


@pytest.mark.browser
def test_a_browser_runs_nothing_of_what_it_is_shown(job: GivenJob, browser: Chrome) -> None:
    with serving(job) as url:
        for path in (*PAGES, f"/user?user_id={EVIL}", f"/decisions?user={EVIL}"):
            browser.get(url + path)
            assert browser.title.endswith(" · shop")
            sources = browser.execute_script("return [...document.scripts, ...document.images].map((each) => each.src)")
            ours = ["/static/live.js"] if path in LIVE else []
            assert [source.removeprefix(url) for source in sources] == [*ours, "/static/icon.svg"]
            assert complaints(browser) == []


@pytest.mark.browser
@pytest.mark.parametrize(("path", "title"), [("/", "Overview · shop"), ("/decisions", "Decisions · shop")])
def test_the_policy_itself_would_stop_a_script(job: GivenJob, browser: Chrome, path: str, title: str) -> None:
    with serving(job) as url:
        browser.get(url + path)
        browser.execute_script(
            "const script = document.createElement('script'); script.textContent = \"document.title = 'taken'\";"
            "document.body.append(script)"
        )
        assert browser.title == title
        assert any("Content Security Policy" in message for message in complaints(browser))


@pytest.mark.browser
def test_a_letter_is_redriven_with_the_button(job: GivenJob, browser: Chrome, token: str) -> None:
    assert LOST.action is not None
    action = replace(LOST.action, action_id="9f1c" * 8, destination="crm")
    job.dead["0/1"] = replace(job.dead["0/1"], letter=msgspec.structs.replace(LOST, rule="offer", action=action))
    with serving(job, token) as url:
        browser.get(f"{url}/dead-letters")
        assert browser.find_elements(By.CSS_SELECTOR, "main button.primary") == []
        follow(browser, browser.find_element(By.LINK_TEXT, "Sign in to change things").click)
        browser.find_element(By.NAME, "token").send_keys(TOKEN)
        follow(browser, browser.find_element(By.CSS_SELECTOR, "main button").click)
        follow(browser, browser.find_element(By.LINK_TEXT, "Dead letters").click)
        boxes = browser.find_elements(By.NAME, "place")
        assert [box.is_enabled() for box in boxes] == [True, True, False]
        boxes[1].click()
        follow(browser, browser.find_element(By.XPATH, "//button[text()='Redrive the chosen ones …']").click)
        assert job.redriven == []
        follow(browser, browser.find_element(By.XPATH, "//button[text()='Send']").click)
        assert browser.find_element(By.CSS_SELECTOR, "[role=status]").text == "sent: 0 actions, 1 events"
        follow(browser, browser.find_element(By.LINK_TEXT, "0/1").click)
        follow(browser, browser.find_element(By.XPATH, "//button[text()='Redrive …']").click)
        follow(browser, browser.find_element(By.XPATH, "//button[text()='Send']").click)
        assert browser.find_element(By.CSS_SELECTOR, "[role=status]").text == "sent: 1 actions, 0 events"
        assert job.redriven == ["0/2", "0/1"]
        browser.refresh()  # a page that was come to by a form is not sent again
        assert job.redriven == ["0/2", "0/1"]
        follow(browser, browser.find_element(By.XPATH, "//button[text()='Sign out']").click)
        assert browser.find_elements(By.XPATH, "//button[text()='Sign out']") == []


@pytest.mark.browser
def test_another_site_s_page_cannot_redrive(job: GivenJob, browser: Chrome, token: str, tmp_path: Path) -> None:
    with serving(job, token) as url:
        browser.get(f"{url}/sign-in")
        browser.find_element(By.NAME, "token").send_keys(TOKEN)
        follow(browser, browser.find_element(By.CSS_SELECTOR, "main button").click)
        browser.get(f"{url}/dead-letters")
        secret = browser.find_element(By.NAME, "form").get_attribute("value")
        (tmp_path / "evil.html").write_text(
            f"<form method=post action={url}/dead-letters/redrive><input name=form value={secret}>"
            "<input name=place value=0/1><button>Win</button></form>"
        )
        browser.get(f"file://{tmp_path / 'evil.html'}")
        follow(browser, browser.find_element(By.TAG_NAME, "button").click)
        assert browser.find_element(By.TAG_NAME, "h1").text == "Forbidden"
    assert job.redriven == []


@pytest.mark.browser
def test_the_overview_renews_itself_unless_somebody_pauses_it(job: GivenJob, browser: Chrome) -> None:
    with serving(job) as url:
        # Ten seconds would be long: the page's clock is made to run faster.
        every = "const every = window.setInterval; window.setInterval = (run, ms) => every(run, ms / 100);"
        added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": every})
        try:
            browser.get(url)
            complaints(browser)  # those of earlier pages
            job.trouble = "the broker went away"
            eventually(lambda: "the broker went away" in browser.page_source, "a newer page", 30)
            browser.find_element(By.ID, "pause").click()
            assert browser.find_element(By.ID, "pause").text == "Resume updates"
            job.trouble = "and it is back"
            browser.execute_async_script("setTimeout(arguments[0], 500)")
            assert "and it is back" not in browser.page_source
            browser.find_element(By.ID, "pause").click()
            eventually(lambda: "and it is back" in browser.page_source, "a newer page", 30)
            assert complaints(browser) == []
        finally:
            browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def prefer(browser: Chrome, scheme: str, media: str = "screen") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


@pytest.mark.browser
def test_nothing_keeps_people_from_using_a_page(browser: Chrome, token: str) -> None:
    found: dict[str, list[str]] = {}

    def look(name: str) -> None:
        prefer(browser, "light")
        found[name] = violations(browser)
        prefer(browser, "dark")  # what is not about colours is the same in both
        found[f"{name}, dark"] = violations(browser, "color-contrast")

    job = a_job()
    job.log, job.dead = (job.log or [])[:8], dict(list(job.dead.items())[:8])  # more rows would say nothing new
    with serving(job, token) as url:
        browser.get(f"{url}/sign-in")
        look("sign in")
        sign_in(browser, url)
        for name, path in {**PICTURED, "edit": "/rule-sets/edit?rule=offer", "error": "/nowhere"}.items():
            browser.get(url + path)
            look(name)
        browser.get(f"{url}/rules/offer")
        follow(browser, browser.find_element(By.XPATH, "//button[text()='Set aside …']").click)
        look("set aside")
        browser.execute_script("document.querySelector('main p').style = 'color: #999; background: #888'")
        assert any("color-contrast" in line for line in violations(browser, "color-contrast"))
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.browser
def test_a_rule_is_set_aside_with_the_keyboard(browser: Chrome, token: str) -> None:
    job = a_job()

    def press(*keys: str) -> WebElement:
        browser.switch_to.active_element.send_keys(*keys)
        return browser.switch_to.active_element

    with serving(job, token) as url:
        sign_in(browser, url)
        browser.get(f"{url}/rules/offer")
        assert press(Keys.TAB).text == "Skip to content"
        assert press(Keys.ENTER).get_attribute("id") == "main"
        assert press(Keys.TAB).text == "Edit and publish …"
        assert press(Keys.TAB).text == "Set aside …"
        follow(browser, lambda: press(Keys.ENTER))
        browser.find_element(By.NAME, "note").send_keys("too many")
        follow(browser, lambda: press(Keys.ENTER) and None)
        assert browser.find_element(By.CSS_SELECTOR, "[role=status]").text == "published set 13"
    assert job.sets is not None
    assert (job.sets[-1].note, "offer" in job.sets[-1].versions) == ("too many", False)


@pytest.mark.browser
def test_paper_has_the_content_alone(browser: Chrome) -> None:
    with serving(a_job()) as url:
        browser.get(f"{url}/decisions")
        shown = (
            "return ['nav', '.filters', 'table']"
            ".map((each) => document.querySelector(each).getClientRects().length > 0)"
        )
        assert browser.execute_script(shown) == [True, True, True]
        prefer(browser, "dark", "print")
        try:
            assert browser.execute_script(shown) == [False, False, True]
            ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        finally:
            prefer(browser, "light")
    assert ground == "rgb(255, 255, 255)"


@pytest.mark.browser
def test_a_phone_s_pages_end(browser: Chrome) -> None:
    with serving(a_job()) as url, wide(browser, 390):
        for path in PICTURED.values():
            browser.get(url + path)
            assert browser.execute_script("return document.documentElement.scrollHeight") < 8_000, path


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 800, 1400, 1600])
def test_nothing_is_cut_off_at_any_width(job: GivenJob, browser: Chrome, width: int) -> None:
    with serving(job) as url, wide(browser, width):
        for path in PAGES:
            browser.get(url + path)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, path


@pytest.mark.browser
def test_colours_follow_the_system(job: GivenJob, browser: Chrome) -> None:
    def ground(scheme: str) -> str:
        feature = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    with serving(job) as url:
        browser.get(url)
        assert sum(map(int, re.findall(r"\d+", ground("dark")))) < 100
        assert sum(map(int, re.findall(r"\d+", ground("light")))) > 700


# Looking


def watching(*snapshots: JobSnapshot | Exception, window_s: float = 60) -> Callable[[], Watch]:
    coming = iter(snapshots)

    def take() -> JobSnapshot:
        found = next(coming)
        if isinstance(found, Exception):
            raise found
        return found

    watch = Watch(take, 1.0, window_s)

    def step() -> Watch:
        watch.take()
        return watch

    return step


def per_minute(watch: Watch) -> float:
    assert watch.status is not None
    return float(watch.status["rules"]["each"][0]["allowed_per_minute"])


def test_rates_are_of_the_last_minute() -> None:
    counts = [0, 10, 40, 100, 100]
    step = watching(*(snapshot(30.0 * number, rule__r__allowed=count) for number, count in enumerate(counts)))
    assert [per_minute(step()) for _ in counts] == [0, 20, 40, 90, 60]


def test_one_match_in_a_minute_is_not_rounded_away() -> None:
    step = watching(snapshot(0, rule__r__allowed=0), snapshot(60, rule__r__allowed=1))
    step()
    assert per_minute(step()) == 1


def test_a_job_s_first_metrics_are_no_matches_of_this_minute() -> None:
    step = watching(snapshot(0), snapshot(10, rule__r__allowed=5000), snapshot(20, rule__r__allowed=5010))
    assert step().trouble == "Flink has not told the job's metrics yet"
    assert per_minute(step()) == 0
    assert per_minute(step()) == 60


def test_another_job_begins_anew() -> None:
    other = replace(snapshot(20, rule__r__allowed=7), job=snapshot(0).job | {"jid": "other"})
    step = watching(snapshot(0, rule__r__allowed=5), snapshot(10, rule__r__allowed=6), other)
    assert [per_minute(step()) for _ in range(3)] == [0, 6, 0]


def test_an_error_is_shown_and_the_last_status_kept() -> None:
    step = watching(snapshot(0, rule__r__allowed=5), NoJobError("no job 'shop'"), snapshot(10, rule__r__allowed=6))
    assert step().trouble is None
    assert (per_minute(watch := step()), watch.trouble) == (0, "no job 'shop'")
    assert step().trouble is None


# The command


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--flink_master=x:1"], "--bootstrap_servers is missing: give HOST:PORT of a broker"),
        (["--bootstrap_servers=x:1"], "--flink_master is missing: give HOST:PORT of Flink's REST endpoint"),
        (["both", "--port=65536"], "--port is 65536, allowed: 0 to 65535"),
        (["both", "--address=localhost"], "--address is 'localhost', allowed: an IP address"),
        (["both", "--address=0.0.0.0"], "--address is 0.0.0.0, allowed without --token are 127.0.0.1 and ::1"),
        (["both", "--allowed_host=a:1"], "--allowed_host is 'a:1', allowed: a host's name or IP address, without"),
        (["both", "--token=hunter2hunter2hunter2"], "--token is no reference, allowed: env:NAME or file:/ABSOLUTE"),
        (["both", "--token=env:UI_TOKEN_MISSING"], "--token is env:UI_TOKEN_MISSING: no such environment variable"),
        (["both", "--token=env:UI_TOKEN_SHORT"], "--token is env:UI_TOKEN_SHORT: 15 characters, 70 bits at most"),
        (["both", "--trusted_proxy=proxy"], "--trusted_proxy is 'proxy', allowed: an IP address"),
        (["both", "--tokn=env:X"], "unknown option '--tokn': did you mean --token?"),
    ],
)
def test_an_unusable_option_is_one_error(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UI_TOKEN_SHORT", "x" * 15)
    both = ["--flink_master=x:1", "--bootstrap_servers=x:1"]
    assert main(["ui", *(both if options[0] == "both" else options[:1]), *options[1:]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {error}")
    assert "hunter2" not in line
