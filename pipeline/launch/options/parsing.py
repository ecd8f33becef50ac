"""From flags to checked ``Settings``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.console import did_you_mean
from pipeline.errors import OptionError
from pipeline.launch.options.resolving import SOURCES
from pipeline.launch.options.settings import OPTIONS, Settings


def parse(argv: Sequence[str], rules_required: bool = True) -> Settings:
    """Turn flags into checked settings; what they do not give comes from ``SOURCES``.

    Args:
        argv: the flags.
        rules_required: whether a run on Kafka without rules is an error. Commands that change nothing need none.

    Raises:
        OptionError: a flag is unknown, or its value or the combination is not allowed.
    """
    return SOURCES.get().resolve(given_flags(argv)).settings(rules_required)


def given_flags(argv: Sequence[str]) -> Mapping[str, Any]:
    """The flags of ``argv`` by option: a text, or the texts of a repeatable one.

    Raises:
        OptionError: a flag is unknown, or lacks its value.
    """
    given: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        option = OPTIONS.get(flag.removeprefix("--")) if flag.startswith("--") else None
        if option is None:
            hint = did_you_mean(flag.removeprefix("--"), OPTIONS, "--") or "--help lists all"
            raise OptionError(f"unknown option {word!r}: {hint}")
        text = value if equals else "true" if option.kind is bool else next(words, None)
        if text is None:
            raise OptionError(f"{flag} lacks its value")
        if option.kind == tuple[str, ...]:
            given.setdefault(option.name, []).append(text)
        else:
            given[option.name] = text
    return given
