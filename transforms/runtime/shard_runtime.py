"""One user shard at work: it opens the journal, gives ``domain.shard.step`` its input and carries out the result."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

from transforms.adapters.lua.engines import LuaEngines
from transforms.adapters.telemetry.metrics import USER_API_BREAKER
from transforms.domain.events.micro_batch import MicroBatch
from transforms.domain.rules.action_topics import topics_of
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import Answer, StepContext, StepInput, never_missing
from transforms.domain.shard.step_result import StepResult
from transforms.runtime.clocks import Clock, monotonic_ms
from transforms.runtime.metrics_publisher import MetricsPublisher
from transforms.runtime.outbox import Outbox
from transforms.runtime.outputs import outputs_of
from transforms.runtime.process import PROCESS
from transforms.runtime.settings import HandleSettings
from transforms.runtime.shard_memory import ShardMemory
from transforms.runtime.timers import ShardTimers

# How often a shard looks for fetches that are missing. That takes a look at each user who waits.
_CHECK_FETCHES_MS: Final = 1000


class ShardServices:
    """Everything that the shards of one DoFn instance share; pools, quarantine, log and sampler are the process's.

    Raises:
        RuleError: Lua of the initial rule set does not compile.
        TokenError: the token of the user API cannot be read.
        SecretError: the key of dead letters or of users' hashes cannot be read.
        CaFileError: a CA file cannot be used.
    """

    def __init__(self, settings: HandleSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        initial = RuleSet(settings.rule_set, settings.rules)
        lua = LuaEngines(settings.isolation)
        PROCESS.quarantine.time_share = settings.rule_time_share
        new_filters = functools.partial(FilterSet, lua=lua, clock_ms=monotonic_ms, quarantine=PROCESS.quarantine)
        api_fields = PROCESS.history_fields(settings.shard.history_fields)
        topics = None if settings.kafka_config is None else PROCESS.existing_topics(settings.kafka_config)

        def compile_rules(rules: tuple[Rule, ...]) -> FilterSet:
            if topics is not None:
                topics.expect(topics_of(rules))  # Kafka has answered before the first action, but for a moment
            filters = new_filters(rules)
            api_fields.extend(name for name in filters.history_fields if name not in api_fields)
            return filters

        self.rule_sets = RuleSets(initial, compile_rules, settings.rules_topic)
        self.step_context = StepContext(
            settings.shard,
            self.rule_sets,
            PROCESS.letter_signer(settings.dead_letters_key),
            never_missing if topics is None else topics.is_missing,
        )
        self.fetch_pool = PROCESS.fetch_pool(settings)
        self.send_pool = PROCESS.send_pool(settings.webhooks)
        self.ledger = PROCESS.delivery_ledger(settings)
        self.rule_error_sampler = PROCESS.rule_error_sampler(settings.error_letters_per_minute)
        self.event_log = PROCESS.event_log
        self.user_hash = self.event_log.user_hash = PROCESS.user_hash(settings.user_hash_key)
        self.worker_metrics = PROCESS.metrics
        destinations = [destination.name for destination in settings.webhooks.destinations]
        self.metrics = MetricsPublisher(self.worker_metrics, [rule.name for rule in settings.rules], destinations)

    def publish_worker(self, state: ShardState, now_ms: int) -> None:
        """Publish the worker's metrics, and log which breakers have opened or closed."""
        failing = self.send_pool.failing()
        self.metrics.publish_worker(failing)
        self.metrics.publish_rules(self.rule_sets.live(state.rules), state)
        self.event_log.breaker("the user API", bool(self.worker_metrics.gauges().get(USER_API_BREAKER)), now_ms)
        for name, is_failing in failing.items():
            self.event_log.breaker(f"destination {name}", is_failing, now_ms)


class ShardRuntime:
    """A shard while one element or timer of it is handled: its journal, opened, its memory and its timers.

    Args:
        services: what the shards of the DoFn instance share.
        bags: the two bags of the journal.
        meta: the cell of the idle timer's time.
        idle: the timer of users' TTL, in processing time.
        pending: the timer of fetches, deliveries and other things that are due in processing time.
        stream: the timer of what is due in the stream's time.
        number: the shard's number, if the ledger of deliveries needs it before a batch shows it.

    Raises:
        ValueError: what is stored is no journal, or of a newer release.
    """

    __slots__ = ("_journal", "_now_ms", "_services", "_settings", "_shard", "_state", "_timers", "memory")

    def __init__(
        self,
        services: ShardServices,
        bags: tuple[Any, Any],
        meta: Any,
        idle: Any,
        pending: Any,
        stream: Any,
        number: int | None = None,
    ) -> None:
        self._services = services
        settings = self._settings = services.settings
        self._now_ms = services.clock()
        self._journal = Journal(bags, settings.shard.history_size, settings.compact_bytes)
        folded = self._journal.folded
        self._state: ShardState = folded.state
        if folded.memory is None:
            folded.memory = ShardMemory(Outbox(folded.state.deliveries))
        self.memory: ShardMemory = folded.memory
        if number is not None:
            self.memory.number = number
        self._shard: int | None = None
        self._timers = ShardTimers(meta, idle, pending, stream, self.memory)
        if self._journal.refolded:
            services.metrics.count("refolds", 1)
            self._timers.restore()
            self._open_ledger()

    def handle_batch(self, batch: MicroBatch, shard: int | None) -> Iterator[Any]:
        """Handle a batch; ``shard`` is its number, None if each user is a key. Yields tagged outputs."""
        self._shard = self.memory.number = shard
        return self.handle_due(batch)

    def handle_due(self, batch: MicroBatch | None = None, stream_ms: int | None = None) -> Iterator[Any]:
        """Handle answers, delivery results and what is due; yields tagged outputs.

        Args:
            batch: the batch that came, if the shard was not woken by a timer.
            stream_ms: of the stream timer, the time until which every record has been handled.
        """
        memory = self.memory
        yield from self._step(batch, self._poll_fetches(), stream_ms)
        while memory.outbox.found:
            # A user's next webhook may be in the ledger, too; no call has to be waited for.
            yield from self._step(None, [])
        if self._settings.inline:
            while memory.fetch_started_ms or memory.outbox.in_flight:
                yield from self._step(None, self._wait_for_fetches())
        if self._journal.used and self._state.is_empty:
            self._journal.clear()
            self._timers.clear()
            memory.fetch_started_ms.clear()
        self._timers.arm(self._state, self._settings, self._now_ms)

    def _poll_fetches(self) -> list[Answer]:
        memory, pool = self.memory, self._services.fetch_pool
        if self._now_ms >= memory.fetches_checked_ms + _CHECK_FETCHES_MS or memory.fetches_checked_ms > self._now_ms:
            memory.fetches_checked_ms = self._now_ms
            for user_id in (*self._state.parked, *self._state.rule_states.waiting_for_profile):
                if user_id not in memory.fetch_started_ms:  # a restore has lost the fetch
                    memory.fetch_started_ms[user_id] = pool.request(user_id, self._now_ms)
            pool.restart(memory.fetch_started_ms, self._now_ms)
        if not memory.fetch_started_ms:
            return []
        return [Answer(user_id, fetched) for user_id, fetched in pool.poll(memory.fetch_started_ms, self._now_ms)]

    def _wait_for_fetches(self) -> list[Answer]:
        pool = self._services.fetch_pool
        return [Answer(user_id, pool.wait(user_id)) for user_id in self.memory.fetch_started_ms]

    def _step(self, batch: MicroBatch | None, answers: list[Answer], stream_ms: int | None = None) -> Iterator[Any]:
        services, memory, outbox = self._services, self.memory, self.memory.outbox
        with self._journal.changing():
            for answer in answers:
                del memory.fetch_started_ms[answer.user_id]
            # Inline there is no later bundle to poll, or to attempt a webhook again.
            results = outbox.wait(services.send_pool) if self._settings.inline else outbox.poll(services.send_pool)
            started_ms, in_flight, position = memory.fetch_started_ms, outbox.in_flight, None
            if memory.ledger is not None:
                position = memory.ledger.fold([result.action_id for result in results], self._now_ms)
            step_input = StepInput(self._now_ms, batch, answers, results, started_ms, stream_ms, in_flight, position)
            result = step(self._state, services.step_context, step_input)
            self._store(result)
            memory.empty_fetch_polls = 0 if answers or result.users_to_fetch else memory.empty_fetch_polls + 1
            has_news = results or result.users_with_new_deliveries
            memory.empty_delivery_polls = 0 if has_news else memory.empty_delivery_polls + 1
        self._start_calls(result)
        if not self._shard:
            result.include_shared_dead_letters()
        self._sample_rule_errors(result)
        self._measure(result)
        signer = services.step_context.signer
        result.dead_letters = [signer.signed(letter) for letter in result.dead_letters]
        yield from outputs_of(result, self._settings, self._state, self._shard, self._now_ms, services.user_hash)

    def _store(self, result: StepResult) -> None:
        outbox = self.memory.outbox
        outbox.changed(self._state.deliveries, result.users_with_new_deliveries)
        for erasure in result.erasures:
            self._services.fetch_pool.cancel(erasure.user_id)
            self.memory.fetch_started_ms.pop(erasure.user_id, None)
            outbox.withdraw(self._services.send_pool, erasure.user_id)
        if result.erasures:
            self._journal.rewrite(self._now_ms)
        elif result.facts:
            self._journal.append(self._now_ms, result.facts)
        if self._journal.compactions:
            result.counts["compactions"] += self._journal.compactions
            self._journal.compactions = 0

    def _start_calls(self, result: StepResult) -> None:
        services, fetch_started_ms, outbox = self._services, self.memory.fetch_started_ms, self.memory.outbox
        if result.stopped_deliveries:
            services.send_pool.stop(result.stopped_deliveries)
        if services.ledger is not None and self.memory.ledger is None and outbox.next_ms() is not None:
            self._open_ledger()
        outbox.send_due(services.send_pool, self._state.deliveries, self._now_ms, self.memory.ledger)
        for user_id in result.users_to_fetch:
            fetch_started_ms[user_id] = services.fetch_pool.request(user_id, self._now_ms)
        for user_id in result.users_given_up:
            # The user API cannot keep up: fetches without a waiting user must leave the queue.
            if services.fetch_pool.withdraw(user_id):
                fetch_started_ms.pop(user_id, None)

    def _open_ledger(self) -> None:
        ledger, number = self._services.ledger, self.memory.number
        if ledger is not None and number is not None:
            self.memory.ledger = ledger.open(number, self._state.ledger)

    def _sample_rule_errors(self, result: StepResult) -> None:
        if result.dead_letters:
            chosen = self._services.rule_error_sampler.choose(result.dead_letters, self._now_ms)
            left_out = len(result.dead_letters) - len(chosen)
            result.dead_letters = chosen
            result.counts.update(f"dead_letter.{letter.reason}" for letter in chosen)
            result.counts.update(dead_letters=-left_out, rule_errors_not_sampled=left_out)

    def _measure(self, result: StepResult) -> None:
        """Count and log the step, and publish metrics that are due."""
        services, metrics, memory = self._services, self._services.metrics, self.memory
        now_ms = services.clock()
        services.event_log.step(result, memory.number, now_ms)
        metrics.count_step(result)
        rules = services.rule_sets.live(self._state.rules).filters.rules if result.evaluated_events else None
        metrics.observe_step(result, rules, now_ms)
        if services.worker_metrics.is_due(now_ms) or self._settings.inline:
            services.publish_worker(self._state, now_ms)
        if memory.number is not None:
            metrics.publish_shard(self._state, sum(self._journal.folded.log_bytes), memory, now_ms)
