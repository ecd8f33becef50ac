"""How an option is declared: a dataclass field whose metadata holds its group, help text and limits."""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Any, Final

DIRECT_RUNNER: Final = "DirectRunner"
FLINK_RUNNER: Final = "FlinkRunner"
AT_LEAST_ONCE: Final = "AT_LEAST_ONCE"
EXACTLY_ONCE: Final = "EXACTLY_ONCE"
TEXT: Final = "text"
JSON: Final = "json"

INPUT, STATE, RULES, OUTPUT, FLINK = "Input", "State and enrichment", "Rules", "Output", "Flink"
GROUPS: Final = (INPUT, STATE, RULES, OUTPUT, FLINK)


def _option(group: str, default: Any, text: str, **limits: Any) -> Any:
    """A field of an option group.

    Args:
        group: one of ``GROUPS``; the heading in ``--help`` and in docs/configuration.md.
        default: the value without the flag. No other place has defaults.
        text: the help text, without unit, choices and default, which are added.
        limits: ``unit`` (text), ``choices`` (allowed texts), ``least`` and ``most`` (numbers, both allowed).
    """
    return field(default=default, metadata={"group": group, "text": text, **limits})


input_option, state_option, rule_option, output_option, flink_option = (partial(_option, group) for group in GROUPS)
