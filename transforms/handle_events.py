"""The one stateful step. Thin: it opens the journal, calls ``domain.shard.step`` and writes what that says."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import apache_beam as beam
from apache_beam import coders
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from transforms.adapters.lua.engines import Isolation, LuaEngines
from transforms.adapters.telemetry.metric_names import known_counters
from transforms.adapters.telemetry.metrics import (
    LATENCY,
    TELL_EVERY_MS,
    USER_API_BREAKER,
    WorkerMetrics,
    cpu_ms,
    resident_bytes,
)
from transforms.adapters.user_api.client import HttpUserApi, UserApiSettings
from transforms.adapters.user_api.fetch_pool import (
    FetchPool,
    NoUserApi,
    UserApi,
    shared_pool,
)
from transforms.adapters.webhook_sender.send_pool import SendPool
from transforms.domain.events.micro_batch import MicroBatch, decode_batch, shard_of_key
from transforms.domain.events.record import encode_produced
from transforms.domain.rules import actions
from transforms.domain.rules.cloudevents import headers_of
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.model import DebugAction, KafkaAction, Rule
from transforms.domain.rules.quarantine import Quarantine
from transforms.domain.rules.sets import Acknowledgement, RuleSet
from transforms.domain.shard import journal as journals
from transforms.domain.shard import journal_elements
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.journal_elements import JournalElement, JournalEntry
from transforms.domain.shard.step import idle_due_ms, step
from transforms.domain.shard.step_input import Answer, ShardSettings, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.webhooks.delivery_queue import DELAYED, REFUSED, RETRY, DeliveryResult, switch_record
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.runtime.clocks import monotonic_ms
from transforms.runtime.error_letters import DEFAULT_PER_MINUTE, ErrorLetters
from transforms.runtime.event_log import EventLog
from transforms.runtime.outbox import Outbox, tried
from transforms.runtime.shard_memory import memory_of

DEBUG: Final = "debug"
ACTIONS: Final = "actions"
RECORDS: Final = "records"
METRICS_NAMESPACE: Final = "event_trigger"

_SCHEMA_VERSION: Final = 1
_SIZES: Final = ("users", "parked_users", "users_with_webhooks", "journal_bytes")
_LONGEST_POLL_DOUBLINGS: Final = 4
# A shard that gets events tells every second without being woken for it; one that gets none any more is woken.
_TELL_LAST_MS: Final = 5 * TELL_EVERY_MS

Clock = Callable[[], int]


def wall_clock_ms() -> int:
    """Processing time, ms since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where webhooks go. ``harnesses`` is how many workers there are, which share each destination's rate."""

    destinations: tuple[Destination, ...] = ()
    policy: EgressPolicy = field(default_factory=EgressPolicy)
    ca_file: str | None = None
    harnesses: int = 1


@dataclass(frozen=True, slots=True)
class HandleSettings:
    """What ``HandleEvents`` is configured with.

    ``poll_ms`` is how often the user API's answers are looked for, ``look_ms`` those of receivers of webhooks.
    ``inline`` resolves misses before a bundle ends: for runners whose processing-time timers stop with the input.
    ``cloudevents_source`` is what Kafka actions say they come from, a URI reference.
    ``decisions_topic`` is for the decision log, if the shards keep one. With ``writes_actions`` every action is also a
    record of the topic ``actions.FILE``, a line for the actions file.
    ``rules`` are live until a set with a higher number than ``rule_set`` comes from ``rules_topic``.
    """

    rules: tuple[Rule, ...]
    shard: ShardSettings = field(default_factory=ShardSettings)
    user_api: UserApiSettings = field(default_factory=UserApiSettings)
    dead_letter_topic: str | None = None
    inspection_topic: str | None = None
    audit_topic: str | None = None
    compact_bytes: int = journals.DEFAULT_COMPACT_BYTES
    isolation: Isolation = "none"
    error_letters_per_minute: int = DEFAULT_PER_MINUTE
    poll_ms: int = 25
    look_ms: int = 100
    sweep_every_ms: int = 1000
    inline: bool = False
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    rule_set: int = 0
    rules_topic: str | None = None
    control_topic: str | None = None
    user_shards: int = 0
    cloudevents_source: str = "event-trigger"
    decisions_topic: str | None = None
    writes_actions: bool = False


@dataclass
class HandleEvents(beam.PTransform):
    """Find each user's state, ask the rules, decide the actions.

    Input: ``KV<bytes, bytes>``, user shard and micro-batch (``domain.batches``), events and control records mixed.
    Output: ``debug``, enriched events (JSON bytes) of debug actions; ``actions`` and ``records``, produced records
    (``domain.batches``) for the actions topic, and dead letters, inspections, decisions and audit records for theirs.
    Events of a user keep their order. State is exactly once with the runner's checkpoint; what is emitted is a pure
    function of it.
    """

    settings: HandleSettings
    clock: Clock = wall_clock_ms

    def expand(self, batches: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """One ParDo with tagged outputs."""
        outputs = batches | "Shard" >> beam.ParDo(_HandleFn(self.settings, self.clock)).with_outputs(
            DEBUG, ACTIONS, RECORDS
        )
        for tag in (DEBUG, ACTIONS, RECORDS):
            # Beam takes tagged outputs for Any, which would pickle them and which Java cannot read.
            outputs[tag].element_type = bytes
        return outputs


class JournalCoder(coders.Coder):
    """``journal_v1``: see ``domain.journal``. Part of the state's contract; old bytes stay readable."""

    def encode(self, value: JournalElement) -> bytes:
        """Bytes of an element."""
        stored = journal_elements.encode_element(value)
        if isinstance(value, JournalEntry):
            value.is_written = True
        return stored

    def decode(self, encoded: bytes) -> JournalElement:
        """An element of bytes."""
        return journal_elements.decode_element(encoded)

    def is_deterministic(self) -> bool:
        """Equal elements have equal bytes."""
        return True

    def to_type_hint(self) -> Any:
        """Journal elements have no common Beam type."""
        return Any


class _HandleFn(beam.DoFn):
    JOURNAL = BagStateSpec("journal_v1", JournalCoder())
    JOURNAL_2 = BagStateSpec("journal_v2", JournalCoder())
    META = ReadModifyWriteStateSpec("meta_v1", coders.BytesCoder())
    IDLE = TimerSpec("idle", TimeDomain.REAL_TIME)
    PENDING = TimerSpec("pending", TimeDomain.REAL_TIME)
    STREAM = TimerSpec("stream", TimeDomain.WATERMARK)

    def __init__(self, settings: HandleSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    def setup(self) -> None:
        settings = self._settings
        initial = RuleSet(settings.rule_set, settings.rules)
        lua = LuaEngines(settings.isolation)
        compile_rules = functools.partial(FilterSet, lua=lua, clock_ms=monotonic_ms, quarantine=_quarantine())
        self._rule_sets = RuleSets(initial, compile_rules, settings.rules_topic)
        self._letters = _error_letters(self._settings.error_letters_per_minute)
        self._pool = _pool(self._settings)
        self._send_pool = _send_pool(self._settings.webhooks)
        self._measures = _measures()
        self._notes = _notes()
        # Of this bundle: a Beam counter takes ten times as long as a dict.
        self._counts: dict[str, int] = {}
        self._counters: dict[str, Any] = {}
        self._gauges: dict[str, Any] = {}
        self._counters_shown = False

    def start_bundle(self) -> None:
        self._counts.clear()  # a bundle that failed has not happened

    def finish_bundle(self) -> None:
        for name, value in self._counts.items():
            counter = self._counters.get(name)
            if counter is None:
                counter = self._counters[name] = Metrics.counter(METRICS_NAMESPACE, name)
            counter.inc(value)

    def teardown(self) -> None:
        self._rule_sets.close()

    def process(
        self,
        element: tuple[bytes, bytes],
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
    ) -> Iterator[Any]:
        key, payload = element
        shard = _OpenShard(self, (journal, journal_2), meta, idle, pending, stream)
        shard.number = shard.memory.number = shard_of_key(key) if self._settings.user_shards else None
        yield from shard.advance(decode_batch(payload))

    @on_timer(IDLE)
    def on_idle(
        self,
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
    ) -> Iterator[Any]:
        shard = _OpenShard(self, (journal, journal_2), meta, idle, pending, stream)
        shard.memory.idle_due_ms = None
        yield from shard.advance(None)

    @on_timer(PENDING)
    def on_pending(
        self,
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
    ) -> Iterator[Any]:
        shard = _OpenShard(self, (journal, journal_2), meta, idle, pending, stream)
        shard.memory.pending_due_ms = None
        yield from shard.advance(None)

    @on_timer(STREAM)
    def on_stream(
        self,
        journal: Any = beam.DoFn.StateParam(JOURNAL),
        journal_2: Any = beam.DoFn.StateParam(JOURNAL_2),
        meta: Any = beam.DoFn.StateParam(META),
        idle: Any = beam.DoFn.TimerParam(IDLE),
        pending: Any = beam.DoFn.TimerParam(PENDING),
        stream: Any = beam.DoFn.TimerParam(STREAM),
        due: Timestamp = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        shard = _OpenShard(self, (journal, journal_2), meta, idle, pending, stream)
        shard.memory.stream_due_ms = None
        yield from shard.advance(None, stream_ms=due.micros // 1000)

    def count(self, name: str, value: int) -> None:
        self._counts[name] = self._counts.get(name, 0) + value

    def show(self, name: str, value: int) -> None:
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = Metrics.gauge(METRICS_NAMESPACE, name)
        gauge.set(value)

    def tell(self) -> None:
        """Tell what the worker measured. From the first time on every counter is there, with 0 if need be."""
        if not self._counters_shown:
            self._counters_shown = True
            destinations = [one.name for one in self._settings.webhooks.destinations]
            for name in known_counters([rule.name for rule in self._rule_sets.initial.filters.rules], destinations):
                self.count(name, 0)
        for name, value in self._measures.take().items():
            self.count(name, value)
        for name, value in self._measures.gauges().items():
            self.show(name, value)
        self._notes.breaker("the user API", bool(self._measures.gauges().get(USER_API_BREAKER)), self._clock())
        for name, is_failing in self._send_pool.failing().items():
            self.show(f"destination.{name}.breaker_open", int(is_failing))
            self._notes.breaker(f"destination {name}", is_failing, self._clock())
        self.show("worker_rss_bytes", resident_bytes())
        self.show("worker_cpu_ms", cpu_ms())


class _OpenShard:
    """One user shard while an element or timer of it is handled: its journal, opened, and its timers."""

    def __init__(self, fn: _HandleFn, bags: tuple[Any, Any], meta: Any, idle: Any, pending: Any, stream: Any) -> None:
        self._fn = fn
        self._settings = fn._settings
        self._meta, self._idle, self._pending, self._stream = meta, idle, pending, stream
        # Of a batch; a timer tells nothing that only one shard may tell.
        self.number: int | None = None
        self._now_ms = fn._clock()
        self._journal = Journal(bags, self._settings.shard.history_size, self._settings.compact_bytes)
        self.folded = self._journal.folded
        self.memory = memory_of(self.folded)
        if self._journal.refolded:
            fn.count("refolds", 1)
            self._read_meta()

    def advance(self, batch: MicroBatch | None, stream_ms: int | None = None) -> Iterator[Any]:
        yield from self._take(batch, self._answers(), stream_ms)
        if self._settings.inline:
            while self.memory.fetch_started_ms or self._outbox.in_flight:
                yield from self._take(
                    None, [Answer(one, self._fn._pool.wait(one)) for one in self.memory.fetch_started_ms]
                )
        if self._journal.used and self.folded.state.is_empty:
            self._forget_shard()
        self._arm_stream_timer()
        if not self._settings.inline:
            self._arm_timers()

    def _forget_shard(self) -> None:
        """Leave nothing behind: with ``user_shards=0`` the key is a user, and a timer would still name it."""
        memory = self.memory
        self._journal.clear()
        self._meta.clear()
        if memory.idle_due_ms is not None:
            self._idle.clear()
        if memory.pending_due_ms is not None:
            self._pending.clear()
        if memory.stream_due_ms is not None:
            self._stream.clear()
        memory.idle_due_ms = memory.pending_due_ms = memory.stream_due_ms = None
        memory.fetch_started_ms.clear()

    def _answers(self) -> list[Answer]:
        memory, pool = self.memory, self._fn._pool
        for user_id in (*self.folded.state.parked, *self.folded.state.waiting_for_profile):
            if user_id not in memory.fetch_started_ms:  # after a restore nobody asks any more
                memory.fetch_started_ms[user_id] = pool.request(user_id, self._now_ms)
        return [Answer(user_id, fetched) for user_id, fetched in pool.poll(memory.fetch_started_ms, self._now_ms)]

    def _take(self, batch: MicroBatch | None, answers: list[Answer], stream_ms: int | None = None) -> Iterator[Any]:
        settings, memory = self._settings, self.memory
        with self._journal.changing():
            for answer in answers:
                del memory.fetch_started_ms[answer.user_id]
            rules = self._fn._rule_sets
            tries = self._tries()
            asked_ms = memory.fetch_started_ms
            given = StepInput(self._now_ms, batch, answers, tries, asked_ms, stream_ms)
            done = step(self.folded.state, StepContext(settings.shard, rules), given)
            self._write(done)
            memory.empty_fetch_polls = 0 if answers or done.users_to_fetch else memory.empty_fetch_polls + 1
            memory.empty_delivery_polls = (
                0 if tries or done.users_with_new_deliveries else memory.empty_delivery_polls + 1
            )
        self._send()
        for user_id in done.users_to_fetch:
            memory.fetch_started_ms[user_id] = self._fn._pool.request(user_id, self._now_ms)
        for user_id in done.users_given_up:
            # More is asked than the user API can answer; what nobody waits for must not stay in the queue.
            if self._fn._pool.withdraw(user_id):
                memory.fetch_started_ms.pop(user_id, None)
        if self._journal.compactions:
            done.counts["compactions"] += self._journal.compactions
            self._journal.compactions = 0
        if not self.number:
            done.include_shared_dead_letters()
        self._choose_letters(done)
        for name, value in done.counts.items():
            if value:
                self._fn.count(name, value)
        for (rule, what), value in done.rule_counts.items():
            self._fn.count(f"rule.{rule}.{what}", value)
        self._measure(done)
        yield from _outputs(done, settings, self._now_ms)
        yield from self._acknowledged(done)
        yield from self._disabled(done)

    def _measure(self, done: StepResult) -> None:
        """Take in what the step measured, and tell now and then."""
        fn, memory, now_ms = self._fn, self.memory, self._fn._clock()
        fn._notes.step(done, memory.number, now_ms)
        for histogram, took_ms in done.durations_ms:
            fn._measures.observe(histogram, (took_ms,))
        if done.produced_ms:
            fn._measures.observe(LATENCY, [now_ms - produced_ms for produced_ms in done.produced_ms])
        if done.evaluated_events:
            fn._measures.evaluated(fn._rule_sets.live(self.folded.state.rules).filters.rules, done.evaluated_events)
        if fn._measures.is_due(now_ms) or self._settings.inline:
            fn.tell()
            self._show_rules()
        if memory.number is not None:
            memory.has_unpublished_size = (
                now_ms - memory.published_ms < TELL_EVERY_MS and not self.folded.state.is_empty
            )
            if not memory.has_unpublished_size:
                memory.published_ms = now_ms
                self._show_size(memory.number)

    def _show_rules(self) -> None:
        view = self.folded.state
        live = self._fn._rule_sets.live(view.rules)
        self._fn.show("rule_set", live.number)
        self._fn.show("rules_live", len(live.filters.rules))
        for destination in self._settings.webhooks.destinations:
            self._fn.show(f"destination.{destination.name}.disabled", int(destination.name in view.disabled))

    def _show_size(self, number: int) -> None:
        view = self.folded.state
        size = (len(view.users), len(view.parked), len(view.deliveries), sum(self.folded.log_bytes))
        for name, value, before in zip(_SIZES, size, self.memory.published_size or (None,) * len(size), strict=True):
            if value != before:
                self._fn.show(f"shard.{number}.{name}", value)
        self.memory.published_size = size

    def _disabled(self, done: StepResult) -> Iterator[Any]:
        """Tell every shard of destinations that want no more; with ``user_shards=0`` nobody could."""
        topic = self._settings.control_topic
        if topic is not None and self._settings.user_shards:
            for name in dict.fromkeys(done.gone_destinations):
                if name not in self.folded.state.disabled:
                    record = encode_produced(topic, name.encode(), switch_record(name, False), [])
                    yield beam.pvalue.TaggedOutput(RECORDS, record)

    def _acknowledged(self, done: StepResult) -> Iterator[Any]:
        for number in done.applied_rule_sets:
            said = Acknowledgement(number, self.number or 0, self._settings.user_shards, self._now_ms)
            record = encode_produced(self._settings.audit_topic, said.key, said.to_json(), [])
            yield beam.pvalue.TaggedOutput(RECORDS, record)

    @property
    def _outbox(self) -> Outbox:
        memory = self.memory
        if memory.outbox is None:
            memory.outbox = Outbox(self.folded.state.deliveries)
        return memory.outbox

    def _tries(self) -> list[DeliveryResult]:
        """What tries to deliver webhooks have come to; on DirectRunner, where time does not go on, all of them."""
        outbox, pool = self._outbox, self._fn._send_pool
        if self._settings.inline:
            results = [(action_id, pool.wait(action_id)) for action_id in outbox.in_flight]
        else:
            results = pool.poll(outbox.in_flight)
        tries = [tried(outbox.finished(action_id), action_id, result) for action_id, result in results]
        if self._settings.inline:
            # There is no later to try again.
            tries = [replace(one, outcome=REFUSED) if one.outcome in (RETRY, DELAYED) else one for one in tries]
        return tries

    def _send(self) -> None:
        """Hand the pool what is due; what it has no room for stays due."""
        outbox, deliveries = self._outbox, self.folded.state.deliveries
        for user_id, one in outbox.due(deliveries, self._now_ms):
            if self._fn._send_pool.request(one.action_id, one.destination, one.body):
                outbox.sent(deliveries, user_id, one.action_id)

    def _choose_letters(self, done: StepResult) -> None:
        if done.dead_letters:
            chosen = self._fn._letters.choose(done.dead_letters, self._now_ms)
            left_out = len(done.dead_letters) - len(chosen)
            done.dead_letters = chosen
            done.counts.update(f"dead_letter.{one.reason}" for one in chosen)
            done.counts.update(dead_letters=-left_out, rule_errors_not_sampled=left_out)

    def _write(self, done: StepResult) -> None:
        outbox = self._outbox
        outbox.changed(self.folded.state.deliveries, done.users_with_new_deliveries)
        for erasure in done.erasures:
            self._fn._pool.cancel(erasure.user_id)
            self.memory.fetch_started_ms.pop(erasure.user_id, None)
            for action_id in [one for one, user_id in outbox.in_flight.items() if user_id == erasure.user_id]:
                self._fn._send_pool.withdraw(action_id)
                outbox.finished(action_id)
        if done.erasures:
            self._journal.rewrite(self._now_ms)
        elif done.facts:
            self._journal.append(self._now_ms, done.facts)

    def _arm_timers(self) -> None:
        memory, now_ms = self.memory, self._now_ms
        due_ms = idle_due_ms(self.folded.state, self._settings.shard)
        tick_ms = self._settings.sweep_every_ms
        if due_ms is not None and (memory.idle_due_ms is None or memory.idle_due_ms > due_ms + tick_ms):
            # Not for every user a wake-up: those whose time ends within the same tick are swept together.
            memory.idle_due_ms = max(due_ms, now_ms) + tick_ms
            self._idle.set(Timestamp(micros=memory.idle_due_ms * 1000))
            self._meta.write(b"%d %d" % (_SCHEMA_VERSION, memory.idle_due_ms))
        # The next look whether the user API or a receiver has answered, a webhook's next try, the end of quiet hours.
        due = [self.folded.state.clock_due.next_ms()]
        if memory.fetch_started_ms:
            # A user API that is down must not keep every shard polling: the pause doubles while nothing comes.
            due.append(now_ms + (self._settings.poll_ms << min(memory.empty_fetch_polls, _LONGEST_POLL_DOUBLINGS)))
        # Nobody waits for what receivers say but the next webhook of the same user, so it need not be looked for often.
        look_ms = now_ms + (self._settings.look_ms << min(memory.empty_delivery_polls, _LONGEST_POLL_DOUBLINGS))
        if self._outbox.in_flight:
            due.append(look_ms)
        elif (next_ms := self._outbox.next_ms()) is not None:
            due.append(max(next_ms, look_ms))  # due already: the pool had no room
        if memory.has_unpublished_size:
            due.append(max(now_ms, memory.published_ms + _TELL_LAST_MS))  # what was measured last is told, too
        pending_due_ms = min((one for one in due if one is not None), default=None)
        if pending_due_ms is not None and (memory.pending_due_ms is None or memory.pending_due_ms > pending_due_ms):
            memory.pending_due_ms = pending_due_ms
            self._pending.set(Timestamp(micros=pending_due_ms * 1000))

    def _arm_stream_timer(self) -> None:
        memory, tick_ms = self.memory, self._settings.sweep_every_ms
        due_ms = self.folded.state.stream_due.next_ms()
        if due_ms is not None and (memory.stream_due_ms is None or memory.stream_due_ms > due_ms + tick_ms):
            memory.stream_due_ms = due_ms + tick_ms - due_ms % tick_ms
            self._stream.set(Timestamp(micros=memory.stream_due_ms * 1000))

    def _read_meta(self) -> None:
        stored = self._meta.read()
        if stored is None:
            return
        schema, idle_due_ms_ = (int(number) for number in stored.split())
        if schema > _SCHEMA_VERSION:
            raise ValueError(f"state schema {schema}: this worker reads up to {_SCHEMA_VERSION}; use the newer release")
        self.memory.idle_due_ms = idle_due_ms_


def _outputs(done: StepResult, settings: HandleSettings, now_ms: int) -> Iterator[Any]:
    for fired in done.actions:
        if isinstance(fired.action, DebugAction):
            yield beam.pvalue.TaggedOutput(DEBUG, fired.body)
        elif isinstance(fired.action, KafkaAction):
            headers = headers_of(fired, settings.cloudevents_source)
            record = encode_produced(fired.action.topic, fired.user_id.encode(), fired.body, headers)
            yield beam.pvalue.TaggedOutput(ACTIONS, record)
    if settings.writes_actions:
        for fired in done.decided_actions:
            record = encode_produced(actions.FILE, fired.user_id.encode(), actions.action_line(fired, now_ms), [])
            yield beam.pvalue.TaggedOutput(RECORDS, record)
    for decision in done.decisions:
        record = encode_produced(settings.decisions_topic, decision.user_id.encode(), decision.to_json(), [])
        yield beam.pvalue.TaggedOutput(RECORDS, record)
    for letter in done.dead_letters:
        record = encode_produced(settings.dead_letter_topic, letter.key, letter.to_json(), [])
        yield beam.pvalue.TaggedOutput(RECORDS, record)
    for erasure in done.erasures:
        record = encode_produced(settings.audit_topic, erasure.user_sha256.encode(), erasure.to_json(), [])
        yield beam.pvalue.TaggedOutput(RECORDS, record)
    for inspection in done.inspections:
        record = encode_produced(settings.inspection_topic, inspection.user_id.encode(), inspection.body, [])
        yield beam.pvalue.TaggedOutput(RECORDS, record)


@functools.cache
def _quarantine() -> Quarantine:
    """The worker's one list of rules that are set aside: DoFn instances come and go."""
    return Quarantine()


@functools.cache
def _measures() -> WorkerMetrics:
    """What the worker measures: a user API's calls are no shard's."""
    return WorkerMetrics()


@functools.cache
def _notes() -> EventLog:
    """What the worker writes to its log: lines are limited for all of its shards together."""
    return EventLog()


_send_pools: dict[Any, SendPool] = {}
_send_pools_lock = threading.Lock()


def _send_pool(settings: WebhookSettings) -> SendPool:
    """The worker's one pool for these destinations: rates, breakers and connections are the worker's."""
    key = (
        tuple(one.model_dump_json() for one in settings.destinations),
        settings.policy,
        settings.ca_file,
        settings.harnesses,
    )
    with _send_pools_lock:
        if key not in _send_pools:
            _send_pools[key] = SendPool(
                settings.destinations, settings.policy, harnesses=settings.harnesses, ca_file=settings.ca_file
            )
        return _send_pools[key]


@functools.cache
def _error_letters(per_minute: int) -> ErrorLetters:
    """The worker's one account of rule errors, for the same reason."""
    return ErrorLetters(per_minute)


def _pool(settings: HandleSettings) -> FetchPool:
    api = settings.user_api
    deadline_s = settings.shard.enrichment_deadline_ms / 1000

    def make() -> FetchPool:
        client: UserApi = NoUserApi()
        if api.base_url is not None:
            client = HttpUserApi(api, deadline_s, settings.shard.history_fields, measures=_measures())
        return FetchPool(client, api.concurrency)

    return shared_pool((api, deadline_s, settings.shard.history_fields), make)
