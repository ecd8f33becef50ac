"""The bounded run in this process: the embedded default, or ``--runner=DirectRunner`` on a broker."""

from __future__ import annotations

import contextlib
import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.embedded.read import ReadBundledEvents
from pipeline.embedded.user_api import UserApi
from pipeline.launch import graph
from pipeline.launch.options import Settings
from pipeline.launch.preflight import check_action_topics, check_topics_exist
from pipeline.launch.summary import Summary
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import Destination


def run_direct(settings: Settings, rule_set: RuleSet, destinations: tuple[Destination, ...] = ()) -> int:
    """Run over the input that exists now and print the summary; returns 1 if an event is unaccounted for, else 0.

    Raises:
        OptionError: Kafka does not answer, or a topic that is read does not exist.
    """
    if not settings.embedded:
        check_topics_exist(settings)
        check_action_topics(settings, rule_set.rules)
        sys.stderr.write("DirectRunner: reads from the starting offsets to the ends found now, then stops\n")
    with contextlib.ExitStack() as stack:
        bundled_events = None
        if settings.embedded:
            bundled_events = ReadBundledEvents(settings.events_topic, settings.user_shards, settings.user_key)
            if settings.user_api_url is None:
                settings = settings.model_copy(update={"user_api_url": stack.enter_context(UserApi()).url})
        # DirectRunner would choose this runner, too, but would try to download Prism first.
        pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
        graph.build(pipeline, settings, rule_set, destinations, bundled_events)
        result = pipeline.run()
        result.wait_until_finish()
    summary = Summary.of(result)
    sys.stdout.write(summary.table())
    lost = summary.unaccounted()
    if lost:
        sys.stderr.write(f"error: {lost} events neither handled nor rejected\n")
        return 1
    return 0
