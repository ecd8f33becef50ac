"""docs/metrics.md on a real cluster: what Flink's Prometheus reporters show while a job runs."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from pathlib import Path

import orjson
import pytest
import requests
import yaml

from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.local.processes import LOCALHOST, free_ports
from tests.builders import event
from tests.flink_cluster import wait_for_checkpoint
from tests.integration.jobs import PARTITIONS, Topics, control_record, inspect, reading, running
from tests.integration.user_api import serve_users
from tests.readme import METRICS as PAGE
from tests.receiver import SECRET, receiving
from tests.waiting import eventually
from transforms.adapters.telemetry.metric_names import HISTOGRAM, METRICS, expanded
from transforms.adapters.telemetry.metrics import BOUNDS_MS, bucket_names
from transforms.domain.events.micro_batch import shard_of

pytestmark = pytest.mark.stack

SHARDS = 8
USERS = [f"user-{number:02d}" for number in range(60)]
PREFIX = "flink_taskmanager_job_task_operator_event_trigger_"
SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)",?')


class Scraped:
    """The metrics that all processes of a cluster report of one job and of themselves."""

    def __init__(self, flink: LocalFlink, job_name: str) -> None:
        # By name: each subtask's value.
        self.values: dict[str, list[float]] = defaultdict(list)
        for url in flink.metrics_urls:
            for name, labels, value in SAMPLE.findall(requests.get(url, timeout=10).text):
                of_job = dict(LABEL.findall(labels)).get("job_name")
                if of_job in (None, job_name.replace("-", "_")):
                    self.values[name].append(float(value))

    def ours(self, name: str) -> list[float]:
        return self.values[PREFIX + re.sub(r"[^a-zA-Z0-9]", "_", name)]

    def total(self, name: str) -> float:
        return sum(self.ours(name))


def launch_options(folder: Path, receiver: str) -> list[str]:
    """Rules that fire, fail and do nothing; a destination that answers and one where nobody listens."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    (closed,) = free_ports(1)
    destinations = [
        {"name": name, "url": url, "secrets": [f"file:{secret}"]}
        for name, url in (("crm", f"{receiver}/crm"), ("gone", f"http://{LOCALHOST}:{closed}/"))
    ]
    (folder / "destinations.yaml").write_text(yaml.safe_dump({"destinations": destinations}))
    rules = [
        {
            "name": "welcome",
            "version": 1,
            "filter": 'event.event_name == "page_view"',
            "actions": [{"type": "kafka"}, {"type": "debug"}, {"type": "webhook", "destination": "crm"}],
        },
        {
            "name": "lost",
            "version": 1,
            "filter": 'event.event_name == "lost"',
            "actions": [{"type": "webhook", "destination": "gone"}],
        },
        {"name": "broken", "version": 1, "filter": "event.no_such.field", "actions": [{"type": "debug"}]},
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump_all(rules))
    return [f"--destinations={folder / 'destinations.yaml'}", "--allow_private_destinations"]


# Gauges that a job without --deliveries_topic does not set.
WITH_A_LEDGER = ("ledger_unacknowledged", "ledger_shards_waiting", "ledger_shards_unguarded")


def test_every_documented_name_is_there_with_a_plausible_value(
    kafka: LocalKafka, flink: LocalFlink, tmp_path: Path
) -> None:
    topics = Topics(kafka)
    known = {user: {"profile": {"country": "US"}} for user in USERS[:50]}
    views = [event(user, event_id=f"{user}-{n}", event_name="page_view") for n in range(5) for user in USERS]
    lost = [event(USERS[0], event_id="lost", event_name="lost")]
    records = [(body["user_id"].encode(), orjson.dumps(body)) for body in [*views, *views[:7], *lost]]
    bad = [(b"user-00", b"no JSON"), (b"user-01", b"[1]"), (b"user-02", b"[2]")]
    topics.produce([*records, *bad])
    # What was counted is what was produced.
    counted = {
        "events": len(records) + len(bad),
        "bytes": sum(len(key) + len(value) for key, value in [*records, *bad]),
        "events_handled": len(views) + 1,
        "duplicates": 7,
        "events_rejected": 3,
        "dead_letter.not_json": 1,
        "dead_letter.not_an_object": 2,
        "users_loaded": len(USERS),
        "users_fetched": 50,
        "users_unknown": 10,
        "users_unavailable": 0,
        "user_api_call_errors": 0,
        "actions": 3 * len(views) + 1,
        "rule.welcome.allowed": len(views),
        "rule.welcome.fired": len(views),
        "rule.welcome.error": 0,
        "rule.broken.error": len(views) + 1,
        "rule.broken.fired": 0,
        "rule.lost.fired": 1,
        "action.kafka.default.emitted": len(views),
        "action.debug.log.emitted": len(views),
        "action.webhook.crm.queued": len(views),
        "action.webhook.crm.delivered": len(views),
        "action.webhook.gone.queued": 1,
        "action.webhook.gone.delivered": 0,
        "deliveries_delivered": len(views),
        "latency_ms_le_inf": 3 * len(views) + 1,
        "delivery_ms_le_inf": len(views),
        "rule.welcome.evaluated": len(views) + 1,
    }
    with (
        receiving() as receiver,
        serve_users(known) as api,
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
        running(
            flink,
            topics,
            tmp_path / "rules.yaml",
            *launch_options(tmp_path, receiver.url),
            f"--control_topic={topics.control}",
            f"--user_api_url={api}",
            f"--user_shards={SHARDS}",
            "--parallelism=2",
            "--checkpointing_interval_ms=1000",
        ) as job_id,
    ):
        actions.until(len(views), 60)
        receiver.until(lambda: len(set(receiver.ids("/crm"))) == len(views), 60)
        wait_for_checkpoint(flink.rest, job_id, 2, 30)
        name = f"test-{topics.tag}"
        seen: list[Scraped] = []

        def complete() -> bool:
            # Each inspection is a step of its shard, and a step a second tells all there is.
            inspect(topics, inspections, USERS)
            seen[:] = [Scraped(flink, name)]
            now = seen[0]
            return (
                {name: now.total(name) for name in counted} == counted
                and sum(now.total(f"shard.{shard}.users_with_webhooks") for shard in range(SHARDS)) == 1
                and now.total("action.webhook.gone.delayed") + now.total("action.webhook.gone.retried") > 0
            )

        with contextlib.suppress(AssertionError):  # the assertions below name what is missing
            eventually(complete, "all measured values are published", 60, 1.0)
        scraped = seen[0]

    # Every name is there.
    missing = {
        name
        for metric in METRICS
        if metric.name not in WITH_A_LEDGER
        for name in (
            bucket_names(metric.name)
            if metric.kind == HISTOGRAM
            else expanded(
                metric.name.replace("TOPIC", "default"),
                ["welcome", "lost", "broken"],
                ["crm", "gone"],
                range(SHARDS),
                range(PARTITIONS),
            )
        )
        if not scraped.ours(name)
    }
    assert missing == set()
    documented = re.findall(r"^\| `(flink_\w+)`", PAGE.read_text(), re.MULTILINE)
    assert len(documented) > 20
    assert [name for name in documented if name not in scraped.values] == []

    assert {name: scraped.total(name) for name in counted} == counted
    assert sum(scraped.total(f"shard.{shard}.users_with_webhooks") for shard in range(SHARDS)) == 1
    assert scraped.total("action.webhook.gone.delayed") + scraped.total("action.webhook.gone.retried") > 0
    # A user nobody knows may cost one call alone.
    assert 50 * 3 + 10 <= scraped.total("user_api_calls") <= len(USERS) * 3
    assert scraped.total("user_api_call_ms_le_inf") == scraped.total("user_api_calls")
    assert scraped.total("webhook_ms_le_inf") >= len(views)
    assert scraped.total("dead_letter.rule_error") + scraped.total("rule_errors_not_sampled") == len(views) + 1

    # Histograms add up, and say something of this run.
    for metric in METRICS:
        if metric.kind == HISTOGRAM:
            buckets = [scraped.total(f"{metric.name}_le_{bound}") for bound in (*BOUNDS_MS, "inf")]
            assert buckets == sorted(buckets)
            assert 0 < scraped.total(f"{metric.name}_sum") < buckets[-1] * 180_000

    # What is so right now.
    assert sum(scraped.total(f"shard.{shard}.users") for shard in range(SHARDS)) == len(USERS)
    assert sum(scraped.total(f"shard.{shard}.parked_users") for shard in range(SHARDS)) == 0
    assert all(100 < scraped.total(f"shard.{shard}.journal_bytes") < 10e6 for shard in range(SHARDS))
    assert all(50e6 < value < 2e9 for value in scraped.ours("worker_rss_bytes"))
    assert all(0 <= value <= 200 for value in scraped.ours("worker_cpu_percent"))
    assert set(scraped.ours("rules_live")) == {3}
    assert set(scraped.ours("rule_set")) == {0}
    assert set(scraped.ours("user_api_breaker_open")) == {0}
    assert set(scraped.ours("destination.crm.breaker_open")) == {0}
    assert set(scraped.ours("destination.crm.disabled")) == {0}
    assert scraped.values["flink_jobmanager_job_numberOfCompletedCheckpoints"][-1] >= 2


def test_an_inspection_of_every_user_reaches_every_shard() -> None:
    """The scrape's parser, on which the test above rests."""
    assert {shard_of(control_record("inspect", user)[0], SHARDS) for user in USERS} == set(range(SHARDS))
