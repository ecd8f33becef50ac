from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.builders import rule
from transforms.adapters.user_api.client import UserApiSettings
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.webhooks.destinations import Destination
from transforms.runtime.process import ProcessResources
from transforms.runtime.settings import HandleSettings, WebhookSettings


def test_one_pool_is_shared_by_equal_settings() -> None:
    process = ProcessResources()
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    key = object()
    assert process.once(key, make) is process.once(key, make)
    assert len(made) == 1


def test_settings_that_differ_get_pools_of_their_own() -> None:
    process = ProcessResources()
    variants = [
        HandleSettings((rule(),)),
        HandleSettings((rule("other"),)),
        HandleSettings((rule(),), ShardSettings(enrichment_deadline_ms=1)),
        HandleSettings((rule(),), user_api=UserApiSettings(concurrency=1)),
    ]
    pools = [process.fetch_pool(variant) for variant in variants]
    assert pools[0] is pools[1]
    assert len(set(map(id, pools))) == 3
    crm = Destination(name="crm", url="https://hooks.example.com/", secrets=("env:KEY",))
    send_pools = [process.send_pool(WebhookSettings((crm,), harnesses=harnesses)) for harnesses in (1, 1, 2)]
    assert send_pools[0] is send_pools[1]
    assert send_pools[0] is not send_pools[2]
    assert process.rule_error_sampler(1) is process.rule_error_sampler(1)
    assert process.rule_error_sampler(1) is not process.rule_error_sampler(2)


def test_threads_that_ask_at_the_same_time_get_the_same_thing() -> None:
    process, start = ProcessResources(), threading.Barrier(8)

    def slow() -> object:
        time.sleep(0.01)
        return object()

    def ask(_: int) -> object:
        start.wait()
        return process.once("key", slow)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(map(id, threads.map(ask, range(8))))) == 1


def test_after_a_reset_everything_is_made_anew() -> None:
    process = ProcessResources()
    before = (process.quarantine, process.metrics, process.event_log)
    process.reset()
    after = (process.quarantine, process.metrics, process.event_log)
    assert not set(map(id, before)) & set(map(id, after))
