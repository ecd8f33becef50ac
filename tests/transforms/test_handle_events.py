"""``HandleEvents`` through Beam: on FnApiRunner, with timers on TestStream, and on Beam's own state cache."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import orjson
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing.test_stream import TestStream as BeamTestStream
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.builders import (
    NOW_MS,
    batch,
    control,
    event,
    oracle_of,
    oracle_rules,
    random_stream,
    record,
    rule,
    sample_rules,
    user_api_of,
)
from tests.oracle import Oracle, SeenAction, action_differences, dead_letter_differences, state_differences
from tests.receiver import SECRET, receiving
from tests.transforms.harness import FailedBundleError, Harness, wait_for_answers
from transforms.adapters.user_api.client import UserApiSettings
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.events.micro_batch import CONTROL, EVENTS, split_by_shard
from transforms.domain.events.record import Record, decode_produced
from transforms.domain.rules.actions import action_id
from transforms.domain.rules.model import Rule
from transforms.domain.shard import journal
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.redrive import redrive_record
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.handle_events import ACTIONS, DEBUG, RECORDS, HandleEvents, HandleSettings, WebhookSettings, _HandleFn
from transforms.runtime.process import PROCESS

Element = tuple[bytes, bytes]


@pytest.fixture
def serve(httpserver: HTTPServer) -> Callable[[dict[str, Any]], UserApiSettings]:
    """Starts a user API with the users of an oracle's ``api``."""

    def start(api: dict[str, Any]) -> UserApiSettings:
        def answer(request: Request) -> Response:
            _, _, user_id, call = request.path.split("/")
            document = api.get(user_id, {}).get(call)
            return Response(orjson.dumps(document), 200 if document is not None else 404)

        for call in ("profile", "visit", "history"):
            httpserver.expect_request(uri_of(call)).respond_with_handler(answer)
        return UserApiSettings(httpserver.url_for(""), concurrency=4)

    return start


def uri_of(call: str) -> Any:
    return re.compile(rf"/users/[^/]+/{call}")


def batched(records: Iterable[tuple[bytes | None, bytes]], user_shards: int, size: int = 50) -> Iterator[Element]:
    """Records as ``ReadEvents`` gives them."""
    numbered = (Record(0, offset, 0, key, value) for offset, (key, value) in enumerate(records))
    while chunk := list(itertools.islice(numbered, size)):
        yield from split_by_shard(EVENTS, "events", chunk, user_shards, "record")


def inspections_of(user_ids: Iterable[str], user_shards: int) -> list[Element]:
    """Control records that inspect users."""
    values = [orjson.dumps({"inspect": user_id}) for user_id in user_ids]
    return list(
        split_by_shard(CONTROL, "control", [Record(0, 0, 0, None, value) for value in values], user_shards, "record")
    )


# Outputs by tag. The runners of these tests are in this process, so a step can store them here.
SEEN: dict[str, list[bytes]] = defaultdict(list)


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


def remember(value: bytes, tag: str) -> None:
    SEEN[tag].append(value)


def remembered(outputs: Any) -> None:
    for tag in (DEBUG, ACTIONS, RECORDS):
        outputs[tag] | f"Remember {tag}" >> beam.Map(remember, tag)


def seen_actions() -> list[SeenAction]:
    produced = [decode_produced(packed) for packed in SEEN[ACTIONS]]
    return [SeenAction.of_kafka(record.value, record.headers) for record in produced]


def seen_records(topic: str) -> list[dict[str, Any]]:
    produced = [decode_produced(packed) for packed in SEEN[RECORDS]]
    return [orjson.loads(record.value) for record in produced if record.topic == topic]


# On FnApiRunner, where misses are resolved before a bundle ends


@pytest.mark.slow
@pytest.mark.parametrize("user_shards", [0, 8])
@pytest.mark.parametrize("compact_bytes", [262_144, 1500])
def test_a_bounded_run_does_what_the_oracle_says(
    serve: Callable[..., UserApiSettings], user_shards: int, compact_bytes: int
) -> None:
    users = [f"user-{number:04d}" for number in range(20)]
    api = user_api_of(users)
    records = list(random_stream(3, len(users), 500))
    settings = HandleSettings(
        sample_rules("kafka"),
        ShardSettings(history_size=20),
        serve(api),
        dead_letter_topic="dead",
        inspection_topic="inspected",
        compact_bytes=compact_bytes,
        inline=True,
    )
    elements = [*batched(records, user_shards), *inspections_of(users, user_shards)]
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    batches = pipeline | beam.Impulse() | beam.FlatMap(lambda _: elements).with_output_types(Element)
    remembered(batches | "HandleEvents" >> HandleEvents(settings))
    result = pipeline.run()
    result.wait_until_finish()

    oracle = oracle_of(records, api, history_size=20)
    assert len(oracle.actions) > 100
    assert action_differences(oracle, seen_actions()) == []
    assert dead_letter_differences(oracle, seen_records("dead")) == []
    inspected = {state["user_id"]: state for state in seen_records("inspected")}
    assert sorted(inspected) == users
    assert state_differences(oracle, inspected) == []
    counts = counters(result)
    assert counts["events"] == len(records)
    assert counts["events_handled"] == oracle.handled
    assert counts["duplicates"] == len(oracle.duplicates)
    assert counts["actions"] == len(oracle.actions)
    assert counts["events_rejected"] == len(oracle.dead_letters)
    assert (counts["compactions"] > 0) is (compact_bytes == 1500)


def counters(result: Any) -> dict[str, int]:
    committed = result.metrics().query(MetricsFilter().with_namespace("event_trigger"))["counters"]
    return {counter.key.metric.name: counter.committed for counter in committed}


def test_debug_and_kafka_actions_leave_by_their_own_outputs() -> None:
    both = rule("both", actions=[{"type": "debug"}, {"type": "kafka", "topic": "offers"}])
    settings = HandleSettings((both,), inline=True, cloudevents_source="shop/triggers")
    elements = list(batched([(b"u1", orjson.dumps(event("u1", event_id="e1")))], 8))
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    batches = pipeline | beam.Impulse() | beam.FlatMap(lambda _: elements).with_output_types(Element)
    remembered(batches | "HandleEvents" >> HandleEvents(settings))
    pipeline.run().wait_until_finish()
    (body,), (packed,) = SEEN[DEBUG], SEEN[ACTIONS]
    produced = decode_produced(packed)
    assert produced.value == body
    assert (produced.topic, produced.key) == ("offers", b"u1")
    assert {name: value.decode() for name, value in produced.headers} == {
        "action-id": action_id("u1", "e1", "both", 1, "kafka"),
        "rule": "both",
        "rule-version": "1",
        "rule-set": "0",
        "ce_specversion": "1.0",
        "ce_id": action_id("u1", "e1", "both", 1, "kafka"),
        "ce_source": "shop/triggers",
        "ce_type": "event-trigger.action",
        "ce_subject": "u1",
        "ce_time": "2024-01-01T00:00:00.000Z",
        "content-type": "application/json",
    }
    assert SEEN[RECORDS] == []


def test_webhooks_are_sent_before_the_run_ends_and_what_cannot_be_is_a_dead_letter(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    names = ["good", "refuses", "busy"]
    hooks = rule("all", "true", actions=[{"type": "webhook", "name": name, "destination": name} for name in names])
    elements = list(batched([(b"u1", orjson.dumps(event("u1", event_id=f"e{n}"))) for n in range(3)], 8))
    with receiving() as receiver:
        receiver.answers = {"/refuses": lambda: 400, "/busy": lambda: 503}
        destinations = tuple(
            Destination(name=name, url=f"{receiver.url}/{name}", secrets=(f"file:{secret}",)) for name in names
        )
        settings = HandleSettings(
            (hooks,),
            ShardSettings(destinations={destination.name: destination.retry for destination in destinations}),
            dead_letter_topic="dead",
            inline=True,
            webhooks=WebhookSettings(destinations, EgressPolicy(allow_private=True)),
        )
        pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
        batches = pipeline | beam.Impulse() | beam.FlatMap(lambda _: elements).with_output_types(Element)
        remembered(batches | "HandleEvents" >> HandleEvents(settings))
        result = pipeline.run()
        result.wait_until_finish()
    sent = [orjson.loads(body)["event"]["event_id"] for _, path, body in receiver.seen if path == "/good"]
    assert (sent, receiver.bad) == (["e0", "e1", "e2"], [])
    lost = [(letter["action"]["destination"], letter["action"]["event_id"]) for letter in seen_records("dead")]
    assert sorted(lost) == [(name, f"e{n}") for name in ("busy", "refuses") for n in range(3)]
    counts = counters(result)
    assert (counts["deliveries_delivered"], counts["deliveries_refused"]) == (3, 6)
    assert (counts["rule.all.allowed"], counts["rule.all.fired"]) == (3, 3)
    assert counts["delivery_attempts"] == len(receiver.seen)


def test_a_refused_webhook_is_redriven_after_a_restore_with_its_id_and_body(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with receiving() as receiver:
        receiver.answers = {"/crm": lambda: 400}
        crm = Destination(name="crm", url=f"{receiver.url}/crm", secrets=(f"file:{secret}",))
        settings = HandleSettings(
            (rule("r", "true", actions=[{"type": "webhook", "destination": "crm"}]),),
            ShardSettings(destinations={"crm": crm.retry}),
            dead_letter_topic="dead",
            inline=True,
            webhooks=WebhookSettings((crm,), EgressPolicy(allow_private=True)),
        )
        harness = Harness(settings)
        harness.now_ms = NOW_MS
        harness.bundle(harness.instance(), batch(event("u1", event_id="e1")))
        letter = DeadLetter.of_json(decode_produced(harness.outputs.pop().value).value)
        assert (letter.reason, letter.rule, harness.outputs) == ("undelivered", "r", [])
        assert letter.action is not None
        receiver.answers = {}
        harness.restore()
        harness.bundle(harness.instance(), control(redrive_record(letter.action, "r", LetterSigner())))
        harness.bundle(harness.instance(), batch(event("u1", event_id="e1")))  # the event itself is a duplicate
    assert harness.outputs == []
    assert [receiver.seen[0]] * 2 == receiver.seen
    assert receiver.seen[0][0] == letter.action.action_id
    assert receiver.bad == []


def test_sequences_come_to_their_end_with_a_bounded_input() -> None:
    sequence = {"not_followed_by": 'event.event_name == "checkout"', "within": "30m", "match": "parameters.cart"}
    kafka = [{"type": "kafka"}]
    left = rule("left", 'event.event_name == "add_to_cart"', sequence=sequence, actions=kafka)
    made = [
        event("u1", event_id="e1", event_name="add_to_cart", parameters={"cart": 1}),
        event("u1", event_id="e2", event_name="add_to_cart", parameters={"cart": 2}),
        event("u1", event_id="e3", event_name="checkout", parameters={"cart": 1}),
        event("u2", event_id="e4", event_name="add_to_cart", parameters={"cart": 1}),
    ]
    elements = list(batched([(body["user_id"].encode(), orjson.dumps(body)) for body in made], 8))
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    batches = pipeline | beam.Impulse() | beam.FlatMap(lambda _: elements).with_output_types(Element)
    remembered(batches | "HandleEvents" >> HandleEvents(HandleSettings((left,), inline=True)))
    pipeline.run().wait_until_finish()
    assert sorted(action.body["event"]["event_id"] for action in seen_actions()) == ["e2", "e4"]


# With timers, on TestStream

# TestStream's processing time starts at 0, so these tests live in the first hours of 1970.
_now_ms = 0


def stream_clock() -> int:
    return _now_ms


def advance_clock(timed: tuple[int, Element | None]) -> Iterator[Element]:
    """The first step: sets the clock to the element's time; None sets the clock only."""
    global _now_ms
    _now_ms, element = timed
    for pool in list(PROCESS._made.values()):
        if isinstance(pool, FetchPool):
            wait_for_answers(pool)
    if element is not None:
        yield element


class Timeline:
    """A TestStream whose elements and clock move together."""

    def __init__(self) -> None:
        self.stream = BeamTestStream()
        self.now_ms = 0

    def at(self, now_ms: int, *elements: Element) -> Timeline:
        """Advance to a time, at which the timers that are due fire, then add elements."""
        if now_ms > self.now_ms:
            self.stream.add_elements([(now_ms, None)])
            self.stream.advance_processing_time((now_ms - self.now_ms) / 1000)
            self.now_ms = now_ms
        if elements:
            self.stream.add_elements([(now_ms, element) for element in elements])
        return self

    def run(self, settings: HandleSettings) -> None:
        options = PipelineOptions([])
        options.view_as(StandardOptions).streaming = True
        pipeline = beam.Pipeline(runner=BundleBasedDirectRunner(), options=options)
        batches = (
            pipeline
            | self.stream.advance_watermark_to_infinity()
            | "Clock" >> beam.FlatMap(advance_clock).with_output_types(Element)
        )
        remembered(batches | "HandleEvents" >> HandleEvents(settings, stream_clock))
        pipeline.run().wait_until_finish()


def early(*event_ids: str, user: str = "u1") -> Element:
    """Events of 1970 as one batch of the user's shard."""
    records = [record(event(user, event_id=event_id)) for event_id in event_ids]
    ((key, payload),) = split_by_shard(EVENTS, "events", records, 8, "record")
    return key, payload


def inspected(user: str = "u1") -> Element:
    return inspections_of([user], 8)[0]


def enriched_ids() -> list[str]:
    return [orjson.loads(body)["event"]["event_id"] for body in SEEN[DEBUG]]


@pytest.fixture
def answers_take_500_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of the test, however fast the machine is."""
    poll = FetchPool.poll

    def poll_later(pool: FetchPool, keys: dict[str, int], now_ms: int) -> list[Any]:
        wait_for_answers(pool)
        return poll(pool, [user for user, started_ms in keys.items() if now_ms >= started_ms + 500], now_ms)

    monkeypatch.setattr(FetchPool, "poll", poll_later)


@pytest.mark.usefixtures("answers_take_500_ms")
def test_the_pending_timer_resumes_waiting_events_in_their_order() -> None:
    settings = HandleSettings((rule(),), inspection_topic="inspected")
    Timeline().at(1000, early("a", "b"), inspected()).at(1001, early("c")).at(2000, inspected()).run(settings)
    assert enriched_ids() == ["a", "b", "c"]
    before, after = seen_records("inspected")
    assert (before["parked"], before["found"]) == (2, False)
    assert (after["parked"], after["found"], len(after["eventHistory"])) == (0, True, 3)


@pytest.mark.usefixtures("answers_take_500_ms")
def test_no_event_runs_before_the_timer() -> None:
    Timeline().at(1000, early("a"), inspected()).run(HandleSettings((rule(),), inspection_topic="inspected"))
    assert [state["parked"] for state in seen_records("inspected")] == [1]


def test_idle_user_is_forgotten_by_the_idle_timer() -> None:
    settings = HandleSettings((rule(),), ShardSettings(ttl_ms=60_000), inspection_topic="inspected")
    (
        Timeline()
        .at(1000, early("a"))
        .at(2000, inspected())
        .at(30_000, early("b"))
        .at(89_000, inspected())  # within a TTL of b, beyond one of a
        .at(92_000, inspected())
        .at(93_000, early("c"))
        .at(94_000, inspected())
        .run(settings)
    )
    states = seen_records("inspected")
    assert [state["found"] for state in states] == [True, True, False, True]
    assert [[row["event_id"] for row in state["eventHistory"]] for state in states] == [["a"], ["a", "b"], [], ["c"]]
    assert enriched_ids() == ["a", "b", "c"]
    assert orjson.loads(SEEN[DEBUG][2])["eventHistory"] == []


def test_users_of_other_shards_keep_their_own_time() -> None:
    settings = HandleSettings((rule(),), ShardSettings(ttl_ms=60_000), inspection_topic="inspected")
    others = [f"u{number}" for number in range(5)]
    timeline = Timeline()
    for number, user in enumerate(others):
        timeline.at(1000 + number * 20_000, early(f"e{number}", user=user)).at(1100 + number * 20_000)
    timeline.at(105_000, *(inspected(user) for user in others)).run(settings)
    found = {state["user_id"]: state["found"] for state in seen_records("inspected")}
    assert found == {"u0": False, "u1": False, "u2": False, "u3": True, "u4": True}


# On Beam's state cache. Its traps: what is read may be the same objects as last time, elements are encoded when the
# bundle commits, a bundle that fails leaves objects changed, and after a restore everything is decoded from bytes.


RULES: tuple[Rule, ...] = sample_rules("kafka")


def chunks_of(seed: int, users: int, events: int, size: int) -> tuple[list[Any], Oracle]:
    """A stream as batches, and the oracle after it."""
    raw = list(random_stream(seed, users, events, poison=False))
    oracle = Oracle(oracle_rules())
    for key, value in raw:
        oracle.feed(key, value)
    records = [record(value, key) for key, value in raw]
    return [batch(*records[start : start + size]) for start in range(0, len(records), size)], oracle


def check(harness: Harness, oracle: Oracle, fn: _HandleFn) -> None:
    assert action_differences(oracle, harness.actions()) == []
    assert state_differences(oracle, {user: harness.state(fn, user) for user in oracle.users}) == []


@pytest.mark.slow
@pytest.mark.parametrize("compact_bytes", [1, 1000, 10**6])
def test_two_instances_that_take_turns_on_one_key_see_each_other_s_state(compact_bytes: int) -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i", compact_bytes=compact_bytes))
    batches, oracle = chunks_of(1, 5, 300, 10)
    instances = itertools.cycle([harness.instance(), harness.instance()])
    for chunk in batches:
        fn = next(instances)
        harness.bundle(fn, chunk)
        if harness.due["pending"] is not None:
            harness.fire_pending(next(instances))
    check(harness, oracle, next(instances))
    check(harness, oracle, next(instances))


@pytest.mark.slow
@pytest.mark.parametrize("compact_bytes", [1, 1000, 10**6])
def test_a_restore_between_any_two_bundles_changes_nothing(compact_bytes: int) -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i", compact_bytes=compact_bytes))
    batches, oracle = chunks_of(2, 5, 300, 10)
    for number, chunk in enumerate(batches):
        fn = harness.instance()
        harness.bundle(fn, chunk)
        if number % 3 == 0:
            harness.restore()
        if harness.due["pending"] is not None:
            harness.fire_pending(fn)
        if number % 3 == 1:
            harness.restore()
    check(harness, oracle, harness.instance())


@pytest.mark.parametrize("compact_bytes", [1, 300])
def test_batches_after_a_compaction_in_the_same_bundle_are_not_counted_twice(compact_bytes: int) -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i", compact_bytes=compact_bytes))
    fn = harness.instance()
    batches, oracle = chunks_of(3, 3, 200, 5)
    for start in range(0, len(batches), 4):
        harness.bundle(fn, *batches[start : start + 4])
        if harness.due["pending"] is not None:
            harness.fire_pending(fn)
        harness.restore()
        assert harness.state(harness.instance()) == harness.state(fn)
    check(harness, oracle, harness.instance())


@pytest.mark.slow
@pytest.mark.parametrize("compact_bytes", [1, 1000, 10**6])
def test_a_bundle_that_fails_leaves_nothing_behind_for_its_retry(compact_bytes: int) -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i", compact_bytes=compact_bytes))
    fn = harness.instance()
    batches, oracle = chunks_of(4, 5, 200, 10)
    for start in range(0, len(batches), 2):
        harness.bundle(fn, *batches[start : start + 2], fail=True)
        harness.bundle(fn, *batches[start : start + 1], fail=True)
        harness.bundle(fn, *batches[start : start + 2])
        if harness.due["pending"] is not None:
            harness.fire_pending(fn)
    check(harness, oracle, fn)
    harness.restore()
    check(harness, oracle, fn)


def test_a_step_that_raises_is_retried_from_what_was_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i"))
    fn = harness.instance()
    batches, oracle = chunks_of(5, 5, 100, 10)
    real_step = step

    def half_a_step(*arguments: Any) -> Any:
        real_step(*arguments)  # the state is changed, and then
        raise FailedBundleError

    for chunk in batches:
        with monkeypatch.context() as broken:
            broken.setattr("transforms.runtime.shard_runtime.step", half_a_step)
            with pytest.raises(FailedBundleError):
                harness.bundle(fn, chunk)
            harness.restore()
        harness.bundle(fn, chunk)
        if harness.due["pending"] is not None:
            harness.fire_pending(fn)
    check(harness, oracle, fn)


def test_timers_that_a_failed_bundle_set_are_set_again_by_its_retry() -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i"))
    fn = harness.instance()
    first, second = batch(event("u1")), batch(event("u2"))
    harness.bundle(fn, first)
    assert harness.due == {"idle": None, "pending": 10_025, "stream": None}
    # The bundle that loads u1 sets the first idle timer, and fails.
    wait_for_answers(fn._services.fetch_pool)
    harness.bundle(fn, second, timer="pending", fail=True)
    harness.bundle(fn, second)
    harness.fire_pending(fn)
    assert harness.due["idle"] is not None
    assert harness.state(fn, "u1")["found"]


def test_the_idle_timer_is_remembered_over_a_restore() -> None:
    harness = Harness(HandleSettings(RULES, ShardSettings(ttl_ms=60_000), inspection_topic="i"))
    fn = harness.instance()
    harness.bundle(fn, batch(event("u1")))
    harness.fire_pending(fn)
    due = harness.due["idle"]
    assert due == harness.now_ms + 60_000 + 1000
    harness.restore()
    harness.due["idle"] = None
    harness.now_ms += 5000
    harness.bundle(fn, batch(event("u1")))
    assert harness.due["idle"] is None  # Flink restored it, nothing sets it again
    harness.now_ms = due
    harness.bundle(fn, timer="idle")
    assert harness.state(fn)["found"]
    assert harness.due["idle"] is not None
    harness.now_ms = harness.due["idle"]
    harness.bundle(fn, timer="idle")
    assert not harness.state(fn)["found"]


def test_a_user_who_waited_through_a_restart_is_fetched_before_it_is_given_up() -> None:
    harness = Harness(HandleSettings(RULES, ShardSettings(enrichment_deadline_ms=10_000), inspection_topic="i"))
    harness.bundle(harness.instance(), batch(event("u1")))
    PROCESS.reset()  # the worker died with its answers
    harness.restore()
    harness.now_ms += 15_000
    fn = harness.instance()
    harness.bundle(fn, timer="pending")
    harness.fire_pending(fn)
    assert harness.state(fn)["enrichment"] == "unknown"


def test_a_rule_that_fails_on_every_event_does_not_flood_the_dead_letters() -> None:
    PROCESS.reset()
    rules = (rule("broken", "event.a.b", on_missing_profile="run"),)
    harness = Harness(HandleSettings(rules, ShardSettings(), error_letters_per_minute=3))
    harness.now_ms = NOW_MS
    counts: Counter[str] = Counter()
    for events in (20, 5):
        fn = harness.instance()  # instances share the sampler
        harness.bundle(fn, batch(*(event() for _ in range(events)), record(b"{", b"u1")))
        counts.update(fn._services.metrics.counts)
    assert (counts["rule_errors"], counts["rule_errors_not_sampled"], counts["dead_letters"]) == (25, 22, 5)
    harness.now_ms += 60_000
    harness.bundle(fn, batch(event()))
    counts.update(fn._services.metrics.counts)
    letters = [orjson.loads(decode_produced(output.value).value) for output in harness.outputs if output.tag == RECORDS]
    assert [letter["reason"] for letter in letters] == ["rule_error"] * 3 + ["not_json"] * 2 + ["rule_error"]
    assert [letter["detail"].rpartition(" ")[2] for letter in letters if "without a letter" in letter["detail"]] == [
        "22]"
    ]
    assert counts["rule_errors"] == 26


def test_nothing_is_stored_for_a_shard_without_users() -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i"))
    fn = harness.instance()
    harness.bundle(fn, batch(record(b"poison", b"u1")))
    assert harness.stored.cells == {}
    harness.bundle(fn, batch(event("u1")))
    harness.fire_pending(fn)
    assert len(harness.stored.cells) == 2
    harness.bundle(fn, batch(event("u2")))
    for user in ("u1", "u2"):
        assert harness.due["idle"] is not None
        assert harness.due["pending"] is not None
        harness.bundle(fn, control({"forget": user}))
    assert harness.stored.cells == {}
    assert harness.due == {"idle": None, "pending": None, "stream": None}
    harness.bundle(fn, batch(event("u1")))
    harness.fire_pending(fn)
    assert harness.state(fn)["found"]


def test_state_of_a_newer_release_is_refused() -> None:
    harness = Harness(HandleSettings(RULES))
    fn = harness.instance()
    harness.bundle(fn, batch(event("u1")))
    harness.fire_pending(fn)
    (meta,) = [name for name in harness.stored.cells if b"meta_v1" in name]
    harness.stored.cells[meta] = harness.stored.cells[meta].replace(b"1 ", b"2 ", 1)
    harness.restore()
    with pytest.raises(ValueError, match="state schema 2: this worker reads up to 1; use the newer release"):
        harness.bundle(fn, batch(event("u1")))


def test_a_cached_shard_is_not_folded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(HandleSettings(RULES, inspection_topic="i"))
    fn, other = harness.instance(), harness.instance()
    batches, _ = chunks_of(6, 5, 100, 10)
    harness.bundle(fn, batches[0])
    harness.fire_pending(fn)
    replayed: list[Any] = []
    real = journal._replay

    def replay(*arguments: Any) -> list[str]:
        replayed.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(journal, "_replay", replay)
    for chunk in batches[1:]:
        harness.bundle(fn, chunk)
        harness.bundle(other)
        harness.state(other)
    assert replayed == []
    harness.restore()
    harness.state(fn)
    assert replayed
