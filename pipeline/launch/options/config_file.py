"""event-trigger.yaml: options of all profiles, profiles, and what a file and a profile extend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.console import did_you_mean
from pipeline.errors import OptionError
from pipeline.launch.options.settings import OPTIONS
from pipeline.launch.options.values import from_yaml
from transforms.domain.base.checked_documents import Problem, documents
from transforms.domain.base.yaml_documents import Document

NAME: Final = "event-trigger.yaml"
EXTENDS, PROFILE, PROFILES = "extends", "profile", "profiles"
# A file would give them to every launch: each one would go back to that state, or begin without any.
OF_ONE_LAUNCH: Final = ("savepoint_path", "allow_non_restored_state", "start_without_state", "plan_file")
# Paths that the launcher reads or writes. Others lie on the workers.
_OWN_PATHS: Final = ("rules", "destinations", "dead_letters_file", "decisions_file", "actions_file")
_MAX_DEPTH: Final = 10


class ConfigError(OptionError):
    """A configuration file that cannot be used; ``problems`` are all of its problems, each with file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        more = f" (and {len(problems) - 1} more: `config check` shows all)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place gives: the options of all profiles of a file, or one of its profiles.

    Attributes:
        source: ``file`` or ``profile NAME``.
        file: the file.
        values: the values by option; None takes back what a layer below gives.
        lines: the line of each option, and of each key of a mapping (``option.key``).
    """

    source: str
    file: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    extends: str | None
    extends_line: int

    def place(self, name: str) -> str:
        """File and line of an option, or of a key of a mapping."""
        return f"{self.file}:{self.lines[name]}"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file with the files that it extends, the lowest first."""

    path: Path
    shared: Sequence[Layer]
    profiles: Mapping[str, Sequence[Layer]]
    profile: str | None

    def layers(self, profile: str | None) -> list[Layer]:
        """The layers of a profile, the lowest first.

        Args:
            profile: its name; None is the one that the file names, if it names one.

        Raises:
            ConfigError: the profile is not there, or profiles extend each other in a circle.
        """
        chosen = profile if profile is not None else self.profile
        found = list(self.shared)
        if chosen is not None:
            self._add(chosen, found, [], Problem(self.path, None, ""))
        return found

    def _add(self, name: str, found: list[Layer], above: list[str], asked: Problem) -> None:
        if name in above:
            circle = " extends ".join([*above[above.index(name) :], name])
            raise ConfigError([Problem(asked.file, asked.line, f"profiles extend each other: {circle}")])
        if len(above) >= _MAX_DEPTH:
            raise ConfigError([Problem(asked.file, asked.line, f"more than {_MAX_DEPTH} profiles extend each other")])
        if name not in self.profiles:
            raise ConfigError([Problem(asked.file, asked.line, _no_such_profile(name, list(self.profiles)))])
        for layer in self.profiles[name]:
            if layer.extends is not None:
                place = Problem(layer.file, layer.extends_line, "")
                self._add(layer.extends, found, [*above, name], place)
            found.append(layer)


def _no_such_profile(name: str, names: Sequence[str]) -> str:
    hint = did_you_mean(name, names) or (f"there is {', '.join(names)}" if names else "the file has none")
    return f"there is no profile {name!r}: {hint}"


def read_config(path: Path) -> ConfigFile:
    """Read a file and those that it extends.

    Raises:
        ConfigError: has every problem of these files.
    """
    problems: list[Problem] = []
    shared: list[Layer] = []
    profiles: dict[str, list[Layer]] = {}
    default: str | None = None
    for document, file in _chain(path, problems):
        reader = _Reader(file, document, problems)
        shared.append(reader.layer("file", document.value, ()))
        for name, layer in reader.profiles():
            profiles.setdefault(name, []).append(layer)
        default = reader.text(PROFILE) or default
    config = ConfigFile(path, shared, profiles, default)
    for name in [*profiles, *([] if default is None else [default])]:
        try:
            config.layers(name)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ConfigError(problems)
    return config


def _chain(path: Path, problems: list[Problem]) -> list[tuple[Document, Path]]:
    """The documents of a file and of those that it extends, the lowest first."""
    chain: list[tuple[Document, Path]] = []
    seen: list[Path] = []
    asked = Problem(path, None, "")
    while True:
        if path.resolve() in seen:
            problems.append(Problem(asked.file, asked.line, f"files extend each other: {path} again"))
            break
        if len(seen) >= _MAX_DEPTH:
            problems.append(Problem(asked.file, asked.line, f"more than {_MAX_DEPTH} files extend each other"))
            break
        seen.append(path.resolve())
        if not path.is_file():
            what = "is no file" if path.exists() else "there is no such file"
            problems.append(Problem(asked.file, asked.line, what if asked.file == path else f"extends {path}: {what}"))
            break
        document = _only_document(path, problems)
        if document is None:
            break
        chain.insert(0, (document, path))
        extended = _Reader(path, document, problems).text(EXTENDS)
        if extended is None:
            break
        asked = Problem(path, document.line_of((EXTENDS,)), "")
        path = _beside(path, Path(extended))
    return chain


def _only_document(path: Path, problems: list[Problem]) -> Document | None:
    before = len(problems)
    found = list(documents(path, problems))
    if len(problems) > before:
        return None
    if not found:
        problems.append(Problem(path, None, "is empty: it needs an option, as bootstrap_servers: broker-1:9092"))
    elif len(found) > 1:
        problems.append(Problem(path, found[1].line, "a second document begins here, allowed: one"))
    elif not isinstance(found[0].value, dict):
        problems.append(Problem(path, found[0].line, "is no mapping of options, as bootstrap_servers: broker-1:9092"))
    else:
        return found[0]
    return None


def _beside(file: Path, path: Path) -> Path:
    """A path that a file names, relative to the file."""
    return file.parent / path.expanduser()


class _Reader:
    """Reads the parts of one document; problems are added to ``problems``."""

    def __init__(self, file: Path, document: Document, problems: list[Problem]) -> None:
        self._file, self._document, self._problems = file, document, problems

    def _report(self, path: tuple[str | int, ...], detail: str) -> None:
        problem = Problem(self._file, self._document.line_of(path), detail)
        if problem not in self._problems:
            self._problems.append(problem)

    def text(self, key: str) -> str | None:
        """The text of ``extends`` or ``profile`` of the file."""
        return self._text(self._document.value, key, ())

    def _text(self, values: Mapping[str, Any], key: str, at: tuple[str, ...]) -> str | None:
        if (text := values.get(key)) is None:
            return None
        if not isinstance(text, str) or not text:
            self._report((*at, key), f"{'.'.join((*at, key))} is {text!r}, allowed: a text")
            return None
        return text

    def profiles(self) -> Iterator[tuple[str, Layer]]:
        """The profiles by name."""
        profiles = self._document.value.get(PROFILES)
        if profiles is None:
            return
        if not isinstance(profiles, dict):
            self._report((PROFILES,), f"{PROFILES} is no mapping of names to options")
            return
        for name, values in profiles.items():
            if values is None:
                values = {}
            if not isinstance(values, dict):
                self._report((PROFILES, name), f"{PROFILES}.{name} is no mapping of options")
                continue
            yield name, self.layer(f"profile {name}", values, (PROFILES, name))

    def layer(self, source: str, values: Mapping[str, Any], at: tuple[str, ...]) -> Layer:
        """The options of a mapping of the document, which lies at a path."""
        checked: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name, value in values.items():
            if name == EXTENDS or (not at and name in (PROFILE, PROFILES)):
                continue
            path = (*at, name)
            if name not in OPTIONS:
                self._report(path, f"{'.'.join(path)}: no such option{_near(name, bool(at))}")
            elif name in OF_ONE_LAUNCH:
                self._report(path, f"{'.'.join(path)} belongs to one launch: give it as a flag, --{name}")
            else:
                lines[name] = self._document.line_of(path)
                lines |= {
                    f"{name}.{key}": self._document.line_of((*path, key))
                    for key in (value if isinstance(value, dict) else ())
                }
                try:
                    checked[name] = None if value is None else self._value(name, value)
                except OptionError as error:
                    self._report(path, ".".join((*at, str(error))))
        extends = self._text(values, EXTENDS, at) if at else None
        return Layer(source, self._file, checked, lines, extends, self._document.line_of((*at, EXTENDS)))

    def _value(self, name: str, value: Any) -> Any:
        value = from_yaml(OPTIONS[name], value)
        return _beside(self._file, value) if name in _OWN_PATHS else value


def _near(name: str, in_profile: bool) -> str:
    known = [*OPTIONS, EXTENDS, *([] if in_profile else [PROFILE, PROFILES])]
    hint = did_you_mean(name.removeprefix("--").replace("-", "_"), known)
    return f"; {hint}" if hint else ""
