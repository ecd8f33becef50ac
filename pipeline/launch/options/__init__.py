"""Every option of the pipeline: flags in, one frozen and checked ``Settings`` out. The only place with defaults."""

from pipeline.launch.options.fields import (
    AT_LEAST_ONCE,
    DIRECT_RUNNER,
    EXACTLY_ONCE,
    FLINK,
    FLINK_RUNNER,
    GROUPS,
    INPUT,
    JSON,
    OUTPUT,
    RULES,
    STATE,
    TEXT,
)
from pipeline.launch.options.kafka_properties import check_addresses, kafka_properties
from pipeline.launch.options.parsing import parse, parse_rules_optional, shown_default
from pipeline.launch.options.settings import HINTS, Settings
from pipeline.launch.options.validation import OUTPUT_FILES

__all__ = [
    "AT_LEAST_ONCE",
    "DIRECT_RUNNER",
    "EXACTLY_ONCE",
    "FLINK",
    "FLINK_RUNNER",
    "GROUPS",
    "HINTS",
    "INPUT",
    "JSON",
    "OUTPUT",
    "OUTPUT_FILES",
    "RULES",
    "STATE",
    "TEXT",
    "Settings",
    "check_addresses",
    "kafka_properties",
    "parse",
    "parse_rules_optional",
    "shown_default",
]
