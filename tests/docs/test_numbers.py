"""Bounds and times that pages name are those of the code."""

from __future__ import annotations

import inspect
import re

import pytest

from pipeline.cli.doctor.checks import _SKEW_S
from pipeline.kafka import rules_topic
from pipeline.launch.options import Settings
from tests.docs.pages import PAGES, ROOT
from transforms.adapters.http.breaker import Breaker
from transforms.adapters.lua import confinement, sandbox
from transforms.adapters.telemetry import metrics as measures
from transforms.adapters.webhook_sender import lanes
from transforms.adapters.webhook_sender import sender as attempts
from transforms.domain.base import durations
from transforms.domain.events import dead_letter as dead_letters
from transforms.domain.events import event as events
from transforms.domain.events import record
from transforms.domain.rules import sets as rule_sets
from transforms.domain.rules import state as rule_state
from transforms.domain.rules.lua_source import MAX_LUA_BYTES
from transforms.domain.shard import parked_store
from transforms.domain.shard.journal_elements import GARBAGE_LIMITS
from transforms.domain.webhooks import delivery_queue as deliveries
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.runtime import event_log as notes
from transforms.runtime import rule_error_sampler

TEXTS = {page.name: " ".join(page.text.split()) for page in PAGES}
DEFAULTS = Settings()
RETRY = RetrySchedule()
BREAKER = inspect.signature(Breaker).parameters
KB, MB = 1024, 1024 * 1024
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def lua(file: str, name: str) -> int:
    text = (ROOT / "transforms" / "adapters" / "lua" / file).read_text("utf-8")
    constant = re.search(rf"\b{name} = ([\d.e*^ ]+)", text)
    assert constant is not None, name
    return int(float(eval(constant[1].replace("^", "**"))))  # noqa: S307 - our own constant


NAMED = [
    ("docs/concepts.md", f"at most {events.DEFAULT_MAX_EVENT_BYTES // KB} KB"),
    ("docs/concepts.md", f"of the last {DEFAULTS.history_size} events"),
    ("docs/dead-letters.md", f"{dead_letters.MAX_KEY_BYTES // KB}, {dead_letters.MAX_VALUE_BYTES // KB} and "
     f"{deliveries.MAX_BODY_BYTES // KB} KB"),
    ("docs/dead-letters.md", f"a webhook's body is over {deliveries.MAX_BODY_BYTES // KB} KB"),
    ("docs/dead-letters.md", f"is over {record.MAX_PRODUCED_BYTES:,} bytes"),
    ("docs/delivery.md", f"at most {deliveries.MAX_QUEUED} webhooks waiting for a destination, or "
     f"{deliveries.MAX_QUEUE_BYTES // 1_000_000} MB"),
    ("docs/delivery.md", f"A body of more than {deliveries.MAX_BODY_BYTES // KB} KB"),
    ("docs/delivery.md", f"pauses with full jitter, at first up to {RETRY.first.ms // 1000} s, then twice as long each "
     f"time, at most {RETRY.longest.ms // HOUR_MS} h, `Retry-After` on top, "
     f"for {RETRY.give_up_after.ms // DAY_MS} days"),
    ("docs/metrics.md", f"Bounds: {', '.join(map(str, measures.BOUNDS_MS))}."),
    ("docs/operations.md", f"at most {notes.PER_MINUTE} lines a minute"),
    ("docs/operations.md", f"over {('', 'one', 'two', 'three')[round(_SKEW_S)]} seconds apart"),
    ("docs/rules.md", f"| Lua of a rule | {MAX_LUA_BYTES // KB} KB |"),
    ("docs/rules.md", f"| memory of a call | {sandbox._MEMORY_PER_CALL // MB} MB |"),
    ("docs/rules.md", f"| pattern | {lua('sandbox_library.lua', 'PATTERN_BYTES'):,} bytes"),
    ("docs/rules.md", f"| {lua('sandbox_library.lua', 'TABLE_ITEMS'):,} items |"),
    ("docs/rules.md", f"the first {rule_error_sampler.DEFAULT_PER_MINUTE} dead letters of a minute"),
    ("docs/rules.md", f"at most {rule_state.MAX_OPEN} open sequences and {rule_state.MAX_HELD} held actions"),
    ("docs/rules.md", f"{rule_state.MAX_COOLDOWN_KEYS:,} values of cooldown keys"),
    ("docs/rules.md", f"the longest is {durations._LONGEST_MS // DAY_MS} days"),
    ("docs/rules.md", f"The newest {rules_topic.KEPT_SETS} sets are kept"),
    ("docs/rules.md", f"A set may have {rule_sets.MAX_RECORD_BYTES // 1000} KB"),
    ("docs/rules.md", f"{confinement.MEMORY_BYTES // MB} MB"),
    ("docs/rules.md", f"`allowed_lateness_seconds` ({DEFAULTS.allowed_lateness_seconds:g})"),
    ("docs/user-state.md", f"`state_ttl_seconds` ({DEFAULTS.state_ttl_seconds:g})"),
    ("docs/user-state.md", f"`max_waiting_bytes` ({DEFAULTS.max_waiting_bytes // 1_000_000} MB, "
     f"{parked_store.RECORD_OVERHEAD_BYTES} bytes an event included)"),
    ("docs/user-state.md", f"`max_user_bytes` ({DEFAULTS.max_user_bytes // 1_000_000} MB)"),
    ("docs/user-state.md", f"`enrichment_retry_seconds` ({DEFAULTS.enrichment_retry_seconds:g})"),
    ("docs/user-state.md", f"{GARBAGE_LIMITS[0]} to {GARBAGE_LIMITS[1]} times the size of the state"),
    ("docs/user-state.md", f"After {BREAKER['failures'].default} calls in a row"),
    ("docs/webhooks.md", f"at most {('', 'once', 'twice')[lanes.QUICK_RETRIES]} within {lanes.QUICK_S:g} s"),
    ("docs/webhooks.md", f"Of an answer {attempts.MAX_ANSWER_BYTES // KB} KB are read"),
    ("docs/webhooks.md", f"the first {attempts._EXCERPT} characters of the answer"),
]  # fmt: skip


@pytest.mark.parametrize(("page", "sentence"), NAMED)
def test_a_page_names_the_number_of_the_code(page: str, sentence: str) -> None:
    assert sentence in TEXTS[page]
