"""Flags become settings of their types; unknown flags and values are errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import OptionError
from pipeline.launch.options import FLINK_RUNNER, parse
from pipeline.launch.options.fields import Option
from pipeline.launch.options.settings import OPTIONS
from transforms.domain.base.secret_references import ALLOWED

FLINK = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--rules=rules"]


def test_options_become_settings_of_their_types() -> None:
    settings = parse(
        [
            *FLINK,
            "--user_shards=64",
            "--state_ttl_seconds=1.5",
            "--history_fields=platform",
            "--history_fields=duration",
            "--detached",
            "--starting_offsets=timestamp",
            "--starting_timestamp_ms=5",
            "--plan_file=plan.json",
        ]
    )
    assert not settings.embedded
    assert settings.runner == FLINK_RUNNER
    assert settings.rules == Path("rules")
    assert settings.user_shards == 64
    assert settings.state_ttl_seconds == 1.5
    assert settings.history_fields == ("platform", "duration")
    assert settings.detached
    assert settings.starting_timestamp_ms == 5
    assert settings.plan_file == Path("plan.json")


def test_a_flag_and_its_value_may_be_two_arguments() -> None:
    assert parse(["--user_shards", "64"]).user_shards == 64


NUMBERS = [option for option in OPTIONS.values() if option.is_number]


@pytest.mark.parametrize("name", [option.name for option in NUMBERS])
@pytest.mark.parametrize("value", ["", "many", "-1e9", "nan", "inf", "-inf", "-1", "1,5"])
def test_a_number_outside_its_range_is_an_error_that_names_the_range(name: str, value: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([f"--{name}={value}"])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((f"--{name} is {value},", f"--{name} is {value!r},"))
    assert "allowed: " in message


@pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.name)
def test_both_ends_of_a_number_s_range_are_allowed_and_the_next_numbers_are_not(option: Option) -> None:
    least, most = option.least, option.most
    with pytest.raises(OptionError, match=f"--{option.name} is .*, allowed: {least} to "):
        parse([f"--{option.name}={least - 1}"])
    if most is not None:
        with pytest.raises(OptionError, match=f"--{option.name} is .*, allowed: {least} to {most} "):
            parse([f"--{option.name}={most + 1}"])
    related = {
        "starting_timestamp_ms": ["--starting_offsets=timestamp"],
        "user_shards": [],
        "decision_sample": ["--decisions_file=log"],
    }
    for value in (least, most):
        # Each value is allowed together with the defaults of related options.
        if value is not None and option.name not in ("parallelism", "max_parallelism"):
            assert getattr(parse([f"--{option.name}={value}", *related.get(option.name, [])]), option.name) == value


CHOICES = [option for option in OPTIONS.values() if option.choices]


@pytest.mark.parametrize("option", CHOICES, ids=lambda option: option.name)
def test_an_unknown_choice_is_an_error_that_names_the_choices(option: Option) -> None:
    with pytest.raises(OptionError) as caught:
        parse([f"--{option.name}=Nonsense"])
    assert str(caught.value) == f"--{option.name} is 'Nonsense', allowed: {', '.join(option.choices)}"


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--user_shard=8", "unknown option '--user_shard=8': did you mean --user_shards?"),
        ("--bootstrap-servers=b:1", "did you mean --bootstrap_servers?"),
        ("--rule=x", "did you mean --rules?"),
        ("--xyzzy", "unknown option '--xyzzy': --help lists all"),
        ("stray", "unknown option 'stray': --help lists all"),
    ],
)
def test_an_unknown_option_suggests_a_known_one(argument: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([argument])
    assert hint in str(caught.value)


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(OptionError, match="unknown option '--user_sh=8'"):
        parse(["--user_sh=8"])


def test_every_option_has_a_help_text_and_every_number_a_unit() -> None:
    for option in OPTIONS.values():
        assert option.text, option.name
        assert option.heading, option.name
        if option in NUMBERS:
            assert option.unit, option.name
            assert option.least is not None, option.name


def test_a_flag_without_its_value_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"^--rules lacks its value$"):
        parse(["--detached", "--rules"])


def test_options_that_take_a_reference_are_marked_so_that_files_cannot_hold_the_secret() -> None:
    assert [option.name for option in OPTIONS.values() if ALLOWED in option.text and not option.is_reference] == []
    assert OPTIONS["user_api_token"].is_reference
