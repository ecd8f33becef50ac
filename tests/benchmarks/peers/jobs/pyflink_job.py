"""PyFlink DataStream: KafkaSource, a KeyedProcessFunction with keyed state, KafkaSink.

The history is a list state that is appended to and cut every hundred rows: a value state would be written whole for
each event. Idle users are found by a timer that is set anew when it fires: state TTL would switch PyFlink's state cache
off, and fails in thread mode. Calls of the user API block: 1.19 has no asynchronous I/O for DataStream in Python.
"""

from __future__ import annotations

import argparse
import sysconfig
from collections.abc import Iterator
from typing import Any

import orjson
from pyflink.common import Configuration, SimpleStringSchema, Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor
from user_actions import HISTORY, TTL_S, UserApi, action, advance_visit, allows, row_of

TTL_MS = TTL_S * 1000


class UserActions(KeyedProcessFunction):
    """The stateful function."""

    def __init__(self, api_url: str) -> None:
        self._api_url = api_url

    def open(self, runtime_context: RuntimeContext) -> None:
        self._api = UserApi(self._api_url)
        self._profile = runtime_context.get_state(ValueStateDescriptor("profile", Types.STRING()))
        self._user = runtime_context.get_state(ValueStateDescriptor("user", Types.STRING()))
        self._history = runtime_context.get_list_state(ListStateDescriptor("history", Types.STRING()))

    def process_element(self, value: str, ctx: KeyedProcessFunction.Context) -> Iterator[str]:
        event: dict[str, Any] = orjson.loads(value)
        now_ms = ctx.timer_service().current_processing_time()
        profile, stored = self._profile.value(), self._user.value()
        if profile is None or stored is None:
            fetched = self._api.fetch(ctx.get_current_key())
            profile, visit, count = fetched.profile, fetched.visit, len(fetched.rows)
            self._profile.update(profile)
            self._history.update(fetched.rows)
            ctx.timer_service().register_processing_time_timer(now_ms + TTL_MS)
        else:
            visit, count, _ = orjson.loads(stored)
        advance_visit(visit, event)
        if allows(event, profile):
            yield action(event, profile, visit, list(self._history.get())[-HISTORY:]).decode()
        if count >= 2 * HISTORY:
            self._history.update(list(self._history.get())[-HISTORY:])
            count = HISTORY
        self._history.add(row_of(event))
        self._user.update(orjson.dumps([visit, count + 1, now_ms]).decode())

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[str]:
        stored = self._user.value()
        if stored is None:
            return
        due_ms = orjson.loads(stored)[2] + TTL_MS
        if due_ms > timestamp:
            ctx.timer_service().register_processing_time_timer(due_ms)
            return
        for state in (self._profile, self._user, self._history):
            state.clear()
        yield from ()


def main() -> None:
    """Submit; `flink run --detached` returns at once."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "events", "actions", "group", "user_api", "mode", "name"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--checkpoint_ms", type=int, required=True)
    parser.add_argument("--cached_users", type=int, required=True)
    given = parser.parse_args()
    settings = {
        "python.execution-mode": given.mode,
        # An interpreter inside the JVM does not find a virtual environment by itself.
        "python.pythonpath": sysconfig.get_path("purelib"),
        # Its defaults, 100,000 elements and 1 s, are for throughput alone; in our pipeline an event waits up to 10 ms
        # for a micro-batch and 6 to 9 for a bundle.
        "python.fn-execution.bundle.size": "1000",
        "python.fn-execution.bundle.time": "20",
        # Entries, not users; 1000 by default.
        "python.state.cache-size": str(given.cached_users * 4),
    }
    configuration = Configuration()
    for key, value in settings.items():
        configuration.set_string(key, value)
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(given.slots)
    env.enable_checkpointing(given.checkpoint_ms)
    env.get_checkpoint_config().set_min_pause_between_checkpoints(given.checkpoint_ms // 2)
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(given.bootstrap)
        .set_topics(given.events)
        .set_group_id(given.group)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_property("fetch.max.wait.ms", "10")
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )
    serializer = (
        KafkaRecordSerializationSchema.builder()
        .set_topic(given.actions)
        .set_value_serialization_schema(SimpleStringSchema())
        .build()
    )
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers(given.bootstrap)
        .set_record_serializer(serializer)
        .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
        .set_property("linger.ms", "1")
        .build()
    )
    (
        env.from_source(source, WatermarkStrategy.no_watermarks(), "events")
        .key_by(lambda value: orjson.loads(value)["user_id"], key_type=Types.STRING())
        .process(UserActions(given.user_api), output_type=Types.STRING())
        .sink_to(sink)
    )
    env.execute(given.name)


if __name__ == "__main__":
    main()
