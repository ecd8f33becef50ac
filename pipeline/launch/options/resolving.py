"""Which value an option has, and where it comes from: flags over environment over profile over file over default."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic_settings import EnvSettingsSource

from pipeline.errors import OptionError
from pipeline.launch.options.config_file import NAME, ConfigError, ConfigFile, read_config
from pipeline.launch.options.settings import OPTIONS, Settings
from pipeline.launch.options.validation import check_combinations
from pipeline.launch.options.values import PROPERTIES, from_text
from transforms.domain.base.checked_documents import Problem

PREFIX: Final = "EVENT_TRIGGER_"
CONFIG_VARIABLE, PROFILE_VARIABLE = f"{PREFIX}CONFIG", f"{PREFIX}PROFILE"
FLAG, DEFAULT = "flag", "default"
_KNOWN: Final = (FLAG, DEFAULT)
NO_FILE: Final = f"no configuration file: there is no ./{NAME}, and --config=FILE names none"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from.

    Attributes:
        source: ``flag``, ``environment``, ``profile NAME``, ``file`` or ``default``.
        place: the flag, the variable, or file and line; None for a default.
    """

    source: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The value of each option, and where each comes from.

    Attributes:
        values: the value of each option.
        origins: the origin of each option, and of each property as ``option.key``.
        file: the file that was read.
        profile: the profile of the file.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, Origin]
    file: Path | None = None
    profile: str | None = None

    @property
    def where(self) -> str:
        """The file and its profile, for people."""
        if self.file is None:
            return NO_FILE
        return str(self.file) if self.profile is None else f"{self.file}, profile {self.profile}"

    def settings(self, rules_required: bool = True) -> Settings:
        """The checked settings.

        Raises:
            OptionError: options that are not allowed together.
        """
        settings = Settings(**self.values)
        try:
            check_combinations(settings, rules_required)
        except OptionError as error:
            raise OptionError(f"{error}{self._places(str(error))}") from None
        return settings

    def _places(self, message: str) -> str:
        """Where options that a message names come from, unless they are flags."""
        names = dict.fromkeys(name for name in re.findall(r"--(\w+)", message) if name in self.origins)
        places = [
            f"{name} from {self.origins[name].place}" for name in names if self.origins[name].source not in _KNOWN
        ]
        return f" ({', '.join(places)})" if places else ""

    def is_given(self, name: str) -> bool:
        """Whether an option has another origin than its default."""
        return self.origins[name].source != DEFAULT


class _Environment(EnvSettingsSource):
    """The options that variables give, as texts."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        super().__init__(Settings, env_prefix=PREFIX)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): text for name, text in self._environment.items() if name.startswith(PREFIX)}

    def prepare_field_value(self, field_name: str, field: Any, value: Any, value_is_complex: bool) -> Any:
        return value  # ``from_text`` converts it


def resolve(
    flags: Mapping[str, Any], environment: Mapping[str, str], profile: str | None, file: Path | None
) -> Resolved:
    """Find the value of each option.

    Args:
        flags: by option, a text or the texts of a repeatable flag.
        environment: variables; EVENT_TRIGGER_OPTION gives an option.
        profile: name of a profile of the file; None is the one that the file names.
        file: configuration file; None is none.

    Raises:
        OptionError: a value is not allowed, the file cannot be used, or it has no such profile.
    """
    config = None if file is None else read_config(file)
    if config is None and profile is not None:
        raise OptionError(
            f"--profile is {profile!r}, but there is no configuration file: give --config=FILE, or write ./{NAME} "
            "with `event-trigger init`"
        )
    layers = _file_layers(config, profile)
    layers.append(
        {
            name: (from_text(OPTIONS[name], text, PREFIX + name.upper()), Origin("environment", PREFIX + name.upper()))
            for name, text in _Environment(environment)().items()
            if name not in flags or name in PROPERTIES
        }
    )
    layers.append(
        {
            name: (from_text(OPTIONS[name], given, f"--{name}"), Origin(FLAG, f"--{name}"))
            for name, given in flags.items()
        }
    )
    chosen = None if config is None else profile if profile is not None else config.profile
    return Resolved(*_merged(layers), file, chosen)


_Values = dict[str, tuple[Any, Origin]]


def _file_layers(config: ConfigFile | None, profile: str | None) -> list[_Values]:
    """The values of the file, the lowest first; properties are one value a key."""
    found = []
    for layer in [] if config is None else config.layers(profile):
        values: _Values = {}
        for name, value in layer.values.items():
            if name in PROPERTIES and value is not None:
                values |= {
                    f"{name}.{key}": (text, Origin(layer.source, layer.place(f"{name}.{key}")))
                    for key, text in value.items()
                }
            else:
                values[name] = value, Origin(layer.source, layer.place(name))
        found.append(values)
    return found


def _merged(layers: Sequence[_Values]) -> tuple[dict[str, Any], dict[str, Origin]]:
    values = {name: option.default for name, option in OPTIONS.items()}
    origins = dict.fromkeys(OPTIONS, Origin(DEFAULT))
    properties: dict[str, dict[str, Any]] = {name: {} for name in PROPERTIES}
    for layer in layers:
        for name, (value, origin) in layer.items():
            option, _, key = name.partition(".")
            if option not in PROPERTIES:
                values[name] = OPTIONS[name].default if value is None else value
            elif value is None and not key:  # null: none of the layers below
                properties[option] = {}
            else:
                given = {key: value} if key else value
                properties[option] |= given
                origins |= {f"{option}.{name}": origin for name in given}
            origins[option] = origin
    for option, given in properties.items():
        values[option] = tuple(f"{key}={value}" for key, value in given.items() if value is not None)
    return values, origins


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like a misspelt option, with what may have been meant."""
    found = []
    for variable in sorted(environment):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name in OPTIONS or variable in (CONFIG_VARIABLE, PROFILE_VARIABLE):
            continue
        near = difflib.get_close_matches(name, OPTIONS, 1, 0.85)
        if near:
            found.append(f"variable {variable} is no option: did you mean {PREFIX}{near[0].upper()}?")
    return found


@dataclass(frozen=True, slots=True)
class Sources:
    """What gives options besides flags: by default nothing."""

    environment: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    file: Path | None = None

    def resolve(self, flags: Mapping[str, Any] | None = None) -> Resolved:
        """``resolve`` with these sources."""
        return resolve(flags or {}, self.environment, self.profile, self.file)


_NOTHING: Final = Sources()
# Of this process; the command line sets it, once.
SOURCES: ContextVar[Sources] = ContextVar("SOURCES", default=_NOTHING)


def find_sources(
    config: str | None, profile: str | None, environment: Mapping[str, str], folder: Path = Path()
) -> Sources:
    """The sources of a command line.

    Args:
        config: ``--config``, if given; else EVENT_TRIGGER_CONFIG, else ./event-trigger.yaml if it is there. The null
            device is no file.
        profile: ``--profile``, if given; else EVENT_TRIGGER_PROFILE.
        environment: variables.
        folder: the current folder.

    Raises:
        OptionError: one of them is empty.
    """
    for name, variable, given in (("config", CONFIG_VARIABLE, config), ("profile", PROFILE_VARIABLE, profile)):
        label = f"--{name}" if given is not None else variable
        if (environment.get(variable) if given is None else given) == "":
            raise OptionError(f"{label} is empty")
    named = config if config is not None else environment.get(CONFIG_VARIABLE)
    profile = profile if profile is not None else environment.get(PROFILE_VARIABLE)
    if named == os.devnull:
        return Sources(environment, profile)
    if named is not None:
        return Sources(environment, profile, Path(named))
    return Sources(environment, profile, folder / NAME if (folder / NAME).is_file() else None)


def check_config(file: Path) -> list[Problem]:
    """Every problem of a file: of its text, its values, and of what each profile combines."""
    try:
        config = read_config(file)
    except ConfigError as error:
        return list(error.problems)
    problems = []
    for profile in config.profiles or (None,):
        try:
            Resolved(*_merged(_file_layers(config, profile)), file, profile).settings(rules_required=False)
        except OptionError as error:
            prefix = "" if profile is None else f"profile {profile}: "
            problems.append(Problem(file, None, f"{prefix}{error}"))
    return problems


# A flag of a command, and the option that says the same in another way and therefore does not count beside it.
_INSTEAD: Final = {
    "terraform": "flink_master",
    "decisions_file": "decisions_topic",
    "decisions_topic": "decisions_file",
}


def with_configured(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a command by name, where those not given (None) have the values that ``SOURCES`` give.

    Names of options have the option's value, ``job`` has ``job_name`` if that is given; given properties are added to
    those of the file. Other names stay as they are.

    Raises:
        OptionError: the configuration file or a variable cannot be used.
    """
    known = {name: value for name, value in given.items() if value is not None}
    wanted = {name for name in given if name in OPTIONS or name == "job"} - {_INSTEAD.get(name) for name in known}
    if not wanted - known.keys() and not any(name in known for name in PROPERTIES):
        return dict(given)
    resolved = SOURCES.get().resolve({name: known.pop(name) for name in PROPERTIES if name in known})
    values = {name: resolved.values[name] for name in wanted & OPTIONS.keys()}
    if "job" in wanted and resolved.is_given("job_name"):
        values["job"] = resolved.values["job_name"]
    return {**given, **values, **known}
