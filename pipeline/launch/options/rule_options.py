"""Options of the group "Rules"."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from pathlib import Path

from pipeline.launch.options.fields import rule_option
from transforms.adapters.lua.engines import Isolation
from transforms.runtime.rule_error_sampler import DEFAULT_PER_MINUTE


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Where rules come from, and how their Lua runs."""

    rules: Path | None = rule_option(
        None,
        "rule file or directory of *.yaml; required, but for the bundled stream or a --rules_topic that holds a set",
        unit="path",
    )
    rules_topic: str | None = rule_option(
        None,
        "topic of published rule sets, one partition, compacted: the newest is live, from the launch on; "
        "--rules counts while it is empty",
    )
    rules_isolation: Isolation = rule_option(
        "none",
        "with process, rules' Lua runs in processes of its own, one for each thread that handles events",
        choices=typing.get_args(Isolation),
    )
    rule_error_letters_per_minute: int = rule_option(
        DEFAULT_PER_MINUTE,
        "errors of a rule that become dead letters, of each worker; further ones are counted",
        unit="dead letters a minute",
        least=0,
    )
