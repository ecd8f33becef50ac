"""Every metric by name: the table of docs/metrics.md, and the counters that a worker publishes from its start.

Parts in capitals are placeholders: ``rule.RULE.fired`` is ``rule.us_page_view.fired``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from transforms.adapters.telemetry.metrics import bucket_names
from transforms.domain.events import dead_letter as dead_letters
from transforms.domain.users import fetched_user as profiles

METRICS_NAMESPACE: Final = "event_trigger"

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

RULE, DESTINATION, SHARD, PARTITION = "RULE", "DESTINATION", "SHARD", "PARTITION"
REASON, KIND, TOPIC = "REASON", "KIND", "TOPIC"

REASONS: Final = tuple(value for name, value in vars(dead_letters).items() if name.isupper() and isinstance(value, str))
KINDS: Final = tuple(getattr(profiles, name) for name in profiles.__annotations__ if name != "NOTHING_KNOWN")


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table; ``name`` is without the namespace."""

    name: str
    kind: str
    meaning: str


METRICS: Final = (
    # Input
    Metric("events", COUNTER, "records of the events topic"),
    Metric("bytes", COUNTER, "their keys and values"),
    Metric("events_handled", COUNTER, "events evaluated"),
    Metric("events_rejected", COUNTER, "records that are no event, and control records that cannot be used"),
    Metric("duplicates", COUNTER, "events whose id is in the user's history"),
    Metric("records_skipped", COUNTER, "records that Kafka had deleted before they were read"),
    Metric("position_resets", COUNTER, "times that a position was out of a partition's range, and reading went on"),
    Metric("partition.PARTITION.time_behind_ms", GAUGE, "how far the stream's time of a partition is behind the clock"),
    Metric(
        "partition.PARTITION.time_hold",
        GAUGE,
        "why it stands: 1 not read to the end, 2 an open transaction, 3 no answer from the broker, 4 a partition that "
        "no reader has yet; 0 nothing holds it",
    ),
    Metric(
        "partition.PARTITION.unread",
        GAUGE,
        "offsets between what was read and the partition's end; -1 while the broker does not say where it ends",
    ),
    Metric("latency_ms", HISTOGRAM, "from the broker's time of an event to the decision of its action"),
    # State
    Metric("state_hits", COUNTER, "events whose user was in the state"),
    Metric("state_misses", COUNTER, "events whose user was not"),
    Metric("users_loaded", COUNTER, "users taken into the state with what the user API said"),
    Metric("users_expired", COUNTER, "users whose TTL ended"),
    Metric("users_forgotten", COUNTER, "`forget` records"),
    Metric("events_forgotten", COUNTER, "events that waited for a user who was forgotten"),
    Metric("history_rows_cut", COUNTER, "rows of history dropped to hold a user to its size"),
    Metric("compactions", COUNTER, "journals rewritten"),
    Metric("refolds", COUNTER, "shards read from RocksDB and folded anew; if it keeps rising, raise `state_cache_mb`"),
    Metric("shard.SHARD.users", GAUGE, "users in a shard"),
    Metric("shard.SHARD.parked_users", GAUGE, "of them those whose events wait for the user API"),
    Metric("shard.SHARD.users_with_webhooks", GAUGE, "users of a shard with webhooks that have not ended"),
    Metric("shard.SHARD.journal_bytes", GAUGE, "the shard's journal, uncompressed"),
    Metric("worker_rss_bytes", GAUGE, "memory of the Python worker; subtasks that share one show the same"),
    Metric("worker_cpu_ms", GAUGE, "CPU time that the Python worker has taken since it started; likewise"),
    Metric(
        "worker_cpu_percent", GAUGE, "how busy the Python worker was in ten seconds, in percent of a core; likewise"
    ),
    # User API
    Metric("user_api_calls", COUNTER, "HTTP calls"),
    Metric("user_api_call_errors", COUNTER, "those of them that failed, before they were tried again"),
    Metric("user_api_incomplete_users", COUNTER, "users whose visit or rows of whose history could not be used"),
    Metric("user_api_call_ms", HISTOGRAM, "how long a call took"),
    Metric("user_api_breaker_open", GAUGE, "1 while the worker spares the user API"),
    Metric("users_fetched", COUNTER, "answers about a user"),
    Metric("users_unknown", COUNTER, "answers that there is no such user"),
    Metric("users_unavailable", COUNTER, "users for whom no answer came"),
    Metric("enrichment_errors_KIND", COUNTER, "why not"),
    Metric("refreshes", COUNTER, "profiles replaced by newer ones"),
    Metric("refreshes_failed", COUNTER, "profiles asked for in vain while something older, or nothing, is in use"),
    # Rules
    Metric("rules_live", GAUGE, "rules of the live set"),
    Metric("rule_set", GAUGE, "its number"),
    Metric(
        "rule.RULE.evaluated", COUNTER, "events that the rule was asked about, or would have been but for quarantine"
    ),
    Metric("rule.RULE.allowed", COUNTER, "events that its filter allowed"),
    Metric("rule.RULE.fired", COUNTER, "firings, after cooldown and cap; of a group's rule once it is picked"),
    Metric("rule.RULE.error", COUNTER, "events at which its Lua failed"),
    Metric(
        "rule.RULE.tripped",
        COUNTER,
        "events at which it hit a limit of time or memory, or used up its share of a worker's time",
    ),
    Metric("rule.RULE.quarantined", COUNTER, "events at which it was not asked because it had tripped too often"),
    Metric("rule.RULE.cooled_down", COUNTER, "firings that its cooldown stopped"),
    Metric("rule.RULE.capped", COUNTER, "firings that its cap stopped"),
    Metric("rule.RULE.capped_by_group", COUNTER, "firings that its group's cap stopped"),
    Metric("rule.RULE.outranked", COUNTER, "firings for which its group picked another rule"),
    Metric("rule.RULE.suppressed", COUNTER, "firings and waiting actions for users who get nothing of its group"),
    Metric("rule.RULE.expired", COUNTER, "waiting actions that expired"),
    Metric("rule.RULE.pending", COUNTER, "actions that waited for its group to pick"),
    Metric("rule.RULE.inactive", COUNTER, "events that its filter allowed outside of its `active`"),
    Metric("rule.RULE.dropped", COUNTER, "firings that its quiet hours dropped (`mode: drop`)"),
    Metric("rule.RULE.held", COUNTER, "actions held by quiet hours"),
    Metric("rule.RULE.released", COUNTER, "actions let go after them"),
    Metric("rule.RULE.recheck_refused", COUNTER, "held actions that its `recheck` did not allow after them"),
    Metric("rule.RULE.begun", COUNTER, "sequences begun"),
    Metric("rule.RULE.followed", COUNTER, "sequences that were followed"),
    Metric("rule.RULE.timed_out", COUNTER, "sequences that nothing followed in time"),
    Metric("rule.RULE.skipped", COUNTER, "sequences that ended without the profile the rule needs"),
    Metric("rule_matches", COUNTER, "`allowed` of all rules"),
    Metric("rule_errors", COUNTER, "`error` of all rules"),
    Metric("rule_errors_not_sampled", COUNTER, "rule errors that made no dead letter"),
    Metric("rules_tripped", COUNTER, "`tripped` of all rules"),
    Metric("rules_quarantined", COUNTER, "`quarantined` of all rules"),
    Metric("rules_skipped", COUNTER, "rules passed over because the profile is missing"),
    Metric("rules_cooled_down", COUNTER, "`cooled_down` of all rules"),
    Metric("rules_capped", COUNTER, "`capped` of all rules"),
    Metric("rules_capped_by_group", COUNTER, "`capped_by_group` of all rules"),
    Metric("rules_outranked", COUNTER, "`outranked` of all rules"),
    Metric("rules_suppressed", COUNTER, "`suppressed` of all rules"),
    Metric("actions_expired", COUNTER, "`expired` of all rules"),
    Metric("actions_pending", COUNTER, "`pending` of all rules"),
    Metric("suppressions_set", COUNTER, "control records that suppress a group for a user"),
    Metric("suppressions_lifted", COUNTER, "control records that lift that"),
    Metric("suppressions_forgotten", COUNTER, "suppressions of users who were forgotten"),
    Metric("rules_inactive", COUNTER, "`inactive` of all rules"),
    Metric("rules_dropped", COUNTER, "`dropped` of all rules"),
    Metric("rule_sets_applied", COUNTER, "published sets that became live, in each shard"),
    Metric("rule_sets_ignored", COUNTER, "published sets with a number that is not higher"),
    Metric("actions_held", COUNTER, "`held` of all rules"),
    Metric("held_released", COUNTER, "`released` of all rules"),
    Metric("held_dropped", COUNTER, "held actions whose rule is gone, or whose rule's recheck did not allow them"),
    Metric("actions_refused", COUNTER, "actions that a user with too many held ones lost"),
    Metric("sequences_begun", COUNTER, "`begun` of all rules"),
    Metric("sequences_followed", COUNTER, "`followed` of all rules"),
    Metric("sequences_timed_out", COUNTER, "`timed_out` of all rules"),
    Metric("sequences_dropped", COUNTER, "sequences whose rule is gone"),
    Metric("sequences_refused", COUNTER, "sequences that a user with too many open ones lost"),
    Metric("cooldowns_cut", COUNTER, "cooldowns forgotten early because a user has too many keys"),
    Metric("time_zones_unknown", COUNTER, "firings at which the user's time zone was none"),
    # Actions
    Metric("actions", COUNTER, "actions decided"),
    Metric("action.debug.log.emitted", COUNTER, "debug actions printed"),
    Metric("action.kafka.TOPIC.emitted", COUNTER, "Kafka actions written; `default` is `actions_topic`"),
    Metric("action.webhook.DESTINATION.queued", COUNTER, "webhooks decided"),
    Metric("action.webhook.DESTINATION.delivered", COUNTER, "webhooks that were answered with 2xx"),
    Metric("action.webhook.DESTINATION.retried", COUNTER, "tries that failed for now"),
    Metric("action.webhook.DESTINATION.delayed", COUNTER, "turns put off by rate or breaker"),
    Metric("action.webhook.DESTINATION.refused", COUNTER, "webhooks that the receiver refused for good"),
    Metric("action.webhook.DESTINATION.given_up", COUNTER, "webhooks that were tried for too long"),
    Metric(
        "action.webhook.DESTINATION.dropped", COUNTER, "webhooks that were not sent: full, too large, disabled, unknown"
    ),
    Metric("action.webhook.DESTINATION.suppressed", COUNTER, "webhooks that ended because their user is suppressed"),
    Metric("action.webhook.DESTINATION.expired", COUNTER, "webhooks that expired before they arrived"),
    Metric("deliveries_queued", COUNTER, "`queued` of all destinations"),
    Metric("deliveries_delivered", COUNTER, "`delivered` of all"),
    Metric("deliveries_retried", COUNTER, "`retried` of all"),
    Metric("deliveries_delayed", COUNTER, "`delayed` of all"),
    Metric("deliveries_refused", COUNTER, "`refused` of all"),
    Metric("deliveries_given_up", COUNTER, "`given_up` of all"),
    Metric("deliveries_suppressed", COUNTER, "`suppressed` of all"),
    Metric("deliveries_expired", COUNTER, "`expired` of all"),
    Metric("deliveries_forgotten", COUNTER, "webhooks of users who were forgotten"),
    Metric("deliveries_found", COUNTER, "webhooks that the ledger of deliveries had: settled without a request"),
    Metric("deliveries_unguarded", COUNTER, "requests made while the ledger did not answer, as without one"),
    Metric("ledger_appends", COUNTER, "records that the ledger acknowledged: ends of webhooks, and claims of shards"),
    Metric("ledger_appends_lost", COUNTER, "records that the ledger did not get; these webhooks may be repeated"),
    Metric("ledger_claims_lost", COUNTER, "shards that another worker claimed while this one had them"),
    Metric("ledger_foreign_records", COUNTER, "records in the ledger that are of another job, or of a newer release"),
    Metric("ledger_ids_forgotten", COUNTER, "ids of the ledger dropped unasked, being more than 50,000 of a shard"),
    Metric("ledger_unacknowledged", GAUGE, "records on their way to the ledger"),
    Metric("ledger_shards_waiting", GAUGE, "shards of the worker whose webhooks wait until the ledger has been read"),
    Metric(
        "ledger_shards_unguarded", GAUGE, "shards of the worker that send without the ledger, which does not answer"
    ),
    Metric("redrives", COUNTER, "webhooks sent again by control records"),
    Metric("redrives_ignored", COUNTER, "of these records those whose webhook still waits"),
    Metric("delivery_attempts", COUNTER, "HTTP requests"),
    Metric("webhook_ms", HISTOGRAM, "how long the last request of a try took"),
    Metric("delivery_ms", HISTOGRAM, "from the decision of a webhook to its delivery"),
    Metric("destination.DESTINATION.breaker_open", GAUGE, "1 while the worker spares the destination"),
    Metric("destination.DESTINATION.disabled", GAUGE, "1 after a 410 or a control record, until it is enabled"),
    Metric("destinations_disabled", COUNTER, "destinations disabled, in each shard"),
    Metric("destinations_enabled", COUNTER, "destinations enabled, in each shard"),
    Metric("dead_letters", COUNTER, "dead letters written"),
    Metric("dead_letter.REASON", COUNTER, "of them those of a reason"),
)

# Those that Flink's source counts, in Java.
OF_THE_SOURCE: Final = frozenset(
    metric.name
    for metric in METRICS
    if metric.name in ("records_skipped", "position_resets") or metric.name.startswith("partition.")
)


def known_counters(rules: Sequence[str], destinations: Sequence[str]) -> list[str]:
    """The names of all counters of a worker with these rules and destinations, except those of topics."""
    counters = []
    for metric in METRICS:
        if metric.name in OF_THE_SOURCE:
            continue
        if metric.kind == HISTOGRAM:
            counters += bucket_names(metric.name)
        elif metric.kind == COUNTER and TOPIC not in metric.name:
            counters += expanded(metric.name, rules, destinations)
    return counters


def expanded(
    name: str,
    rules: Iterable[str],
    destinations: Iterable[str],
    shards: Iterable[int] = (),
    partitions: Iterable[int] = (),
) -> list[str]:
    """All metrics of a name in the table: each placeholder is filled with each of its values."""
    names = {
        RULE: list(rules),
        DESTINATION: list(destinations),
        SHARD: [str(shard) for shard in shards],
        PARTITION: [str(partition) for partition in partitions],
        REASON: list(REASONS),
        KIND: list(KINDS),
    }
    filled_names = [name]
    for placeholder, values in names.items():
        if placeholder in name:
            filled_names = [filled.replace(placeholder, value) for filled in filled_names for value in values]
    return filled_names


def with_dots(shown: str) -> str:
    """The name of a metric that Flink shows with underscores instead of dots; a name outside the table stays."""
    if shown not in _NAMES_WITHOUT_DOTS:
        for pattern, name in _PATTERNS:
            match = pattern.fullmatch(shown)
            if match:
                for placeholder, value in match.groupdict().items():
                    name = name.replace(placeholder, value)
                return name
    return shown


def _pattern(name: str) -> re.Pattern[str]:
    shown = name.replace(".", "_")
    for placeholder in (SHARD, PARTITION):
        shown = shown.replace(placeholder, rf"(?P<{placeholder}>\d+)")
    for placeholder in (RULE, DESTINATION, REASON, KIND, TOPIC):
        shown = shown.replace(placeholder, f"(?P<{placeholder}>.+)")
    return re.compile(shown)


_PATTERNS: Final = tuple((_pattern(metric.name), metric.name) for metric in METRICS if "." in metric.name)
_NAMES_WITHOUT_DOTS: Final = {name for name in (*known_counters([], []), *OF_THE_SOURCE) if "." not in name}
