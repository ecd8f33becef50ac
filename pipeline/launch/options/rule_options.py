"""Options of the group "Rules"."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.launch.options.fields import RULES, option
from transforms.domain.rules.filters import Isolation
from transforms.runtime.error_letters import DEFAULT_PER_MINUTE

_option = partial(option, RULES)


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Where rules come from, and how their Lua runs."""

    rules: Path | None = _option(
        None,
        "rule file or directory of *.yaml; required, but for the bundled stream or a --rules_topic that holds a set",
        unit="path",
    )
    rules_topic: str | None = _option(
        None,
        "topic of published rule sets, one partition, compacted: the newest is live, from the launch on; "
        "--rules counts while it is empty",
    )
    rules_isolation: Isolation = _option(
        "none",
        "with process, rules' Lua runs in processes of its own, one for each thread that handles events",
        choices=typing.get_args(Isolation),
    )
    rule_error_letters_per_minute: int = _option(
        DEFAULT_PER_MINUTE,
        "errors of a rule that become dead letters, of each worker; further ones are counted",
        unit="dead letters a minute",
        least=0,
    )
