from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.metrics import Metrics, monitoring_infos
from apache_beam.metrics.execution import MetricsContainer
from apache_beam.metrics.metricbase import MetricName
from apache_beam.runners.common import NameContext
from apache_beam.runners.worker import bundle_processor, operations, statesampler
from apache_beam.utils.counters import CounterFactory

from runners.flink.overrides.metrics import reset_processor


def test_a_bundle_reports_the_metrics_that_it_changed_and_no_others() -> None:
    operation = SimpleNamespace(metrics_container=MetricsContainer("step"))
    operation.reset = operation.metrics_container.reset
    processor = SimpleNamespace(
        ops={"step": operation}, counter_factory=CounterFactory(), state_sampler=SimpleNamespace(reset=lambda: None)
    )
    container = operation.metrics_container
    first, second = MetricName("ours", "first"), MetricName("ours", "second")
    container.get_counter(first).inc(3)
    container.get_gauge(second).set(7)

    reset_processor(processor)
    assert container.to_runner_api_monitoring_infos("step") == {}

    container.get_counter(first).inc(2)
    (metric,) = container.to_runner_api_monitoring_infos("step").values()
    assert metric.labels["NAME"] == "first"
    assert monitoring_infos.extract_counter_value(metric) == 2


class CountingOperation(operations.Operation):
    """An operation with a metric of ours, beside those that Beam has of each."""

    def __init__(self, sampler: statesampler.StateSampler, counters: CounterFactory) -> None:
        super().__init__(NameContext("step"), None, counters, sampler)

    def count(self) -> None:
        with self.scoped_process_state:
            Metrics.counter("ours", "seen").inc(5)


@pytest.fixture
def processor() -> Any:
    counters = CounterFactory()
    sampler = statesampler.StateSampler("bundle", counters)
    operation = CountingOperation(sampler, counters)
    descriptor = SimpleNamespace(transforms={"step": SimpleNamespace(outputs={})})
    return SimpleNamespace(
        ops={"step": operation}, counter_factory=counters, state_sampler=sampler, process_bundle_descriptor=descriptor
    )


@pytest.mark.usefixtures("applied")
def test_a_bundle_reports_our_metrics_and_none_of_beams(processor: Any) -> None:
    for _ in range(2):  # a processor is used again
        threads = threading.active_count()
        processor.state_sampler.start()
        assert threading.active_count() == threads
        processor.ops["step"].count()
        processor.state_sampler.stop_if_still_running()
        processor.state_sampler.stop_if_still_running()  # as after an error
        assert statesampler.get_current_tracker() is None

        (metric,) = bundle_processor.BundleProcessor.monitoring_infos(processor)
        assert metric.labels["NAME"] == "seen"
        assert metric.labels["PTRANSFORM"] == "step"
        assert monitoring_infos.extract_counter_value(metric) == 5
        bundle_processor.BundleProcessor.reset(processor)


def test_beam_itself_reports_more(processor: Any) -> None:
    processor.state_sampler.start()
    processor.ops["step"].count()
    processor.state_sampler.stop_if_still_running()
    reported = bundle_processor.BundleProcessor.monitoring_infos(processor)
    assert len(reported) == 5  # ours, and four times of the transform
