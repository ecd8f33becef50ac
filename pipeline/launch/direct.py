"""The bounded run in this process: the embedded default, or ``--runner=DirectRunner`` on a broker."""

from __future__ import annotations

import contextlib
import os
import shlex

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.console import complain, one_line, say
from pipeline.embedded.read import ReadBundledEvents
from pipeline.embedded.receivers import SIGNING_KEY_VARIABLE, destinations_of, made_up_key, stand_in
from pipeline.embedded.server import Receiver
from pipeline.embedded.show import show
from pipeline.embedded.user_api import UserApi
from pipeline.launch import graph
from pipeline.launch.options import Settings
from pipeline.launch.preflight import check_topics
from pipeline.launch.summary import Summary
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import Destination


def run_direct(settings: Settings, rule_set: RuleSet, destinations: tuple[Destination, ...] = ()) -> int:
    """Run over the input that exists now and print the summary; returns 1 if an event is unaccounted for, else 0.

    Raises:
        OptionError: Kafka does not answer, or a topic that is read does not exist.
    """
    if not settings.embedded:
        check_topics(settings, rule_set.rules)
        say("DirectRunner: reads from the starting offsets to the ends found now, then stops")
    with contextlib.ExitStack() as stack:
        bundled_events = None
        if settings.embedded:
            bundled_events = ReadBundledEvents(settings.events_topic, settings.user_shards, settings.user_key)
            if settings.user_api_url is None:
                settings = settings.model_copy(update={"user_api_url": stack.enter_context(UserApi()).url})
            if settings.destinations is None:
                os.environ[SIGNING_KEY_VARIABLE] = made_up_key()
                url = stack.enter_context(Receiver()).url
                destinations = tuple(stand_in(name, url) for name in destinations_of(rule_set.rules))
                settings = settings.model_copy(update={"allow_private_destinations": True})
        # DirectRunner would choose this runner, too, but would try to download Prism first.
        pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
        graph.build(pipeline, settings, rule_set, destinations, bundled_events)
        result = pipeline.run()
        result.wait_until_finish()
    summary = Summary.of(result)
    rules = [rule.name for rule in rule_set.rules]
    show("".join((summary.table(), summary.targets(settings.actions_topic), summary.letters(), summary.rules(rules))))
    if settings.embedded:
        show(_where_to_look(settings))
    lost = summary.unaccounted()
    if lost:
        complain(f"{lost} events neither handled nor rejected")
        return 1
    return 0


def _where_to_look(settings: Settings) -> str:
    """Where the whole actions and letters are, and the command that says why a rule did what it did."""
    named = {
        "actions": settings.actions_file,
        "decisions": settings.decisions_file,
        "dead letters": settings.dead_letters_file,
    }
    paths = {what: path for what, path in named.items() if path is not None and str(path) != os.devnull}
    if not paths:
        return ""
    lines = [f"{what + ' as JSON':<20}  {one_line(str(path))}" for what, path in paths.items()]
    if "decisions" in paths:
        log = one_line(shlex.quote(str(paths["decisions"])))
        lines.append(f"{'why':<20}  event-trigger why --user=USER --decisions_file={log}")
    return "\n".join(["", *lines, ""])
