"""How a command ends: the one place that turns errors into a line and an exit code, 0 done, 1 no, 2 cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, get_args

from cyclopts import exceptions as usage
from cyclopts.argument import Argument

from pipeline.cli.commands import COMMANDS
from pipeline.console import complain, did_you_mean
from runners.flink.errors import FlinkRunnerError
from transforms.domain.base.errors import EventTriggerError

CANNOT: Final = 2
_INTERRUPTED: Final = 130
_WORDS: Final = {int: "a whole number", float: "a number", bool: "true or false"}


def exit_code_of(run: Callable[[], int | None]) -> int:
    """Run a command and report the error that ends it.

    Returns:
        The command's exit code; after an error 1 (no) or 2 (cannot: an option, a file or a topic cannot be used), 130
        after Ctrl-C.
    """
    try:
        return run() or 0
    except usage.CycloptsError as error:
        complain(_wrong_use(error))
        return CANNOT
    except (EventTriggerError, FlinkRunnerError) as error:
        complain(str(error))
        return _code(error)
    except BrokenPipeError:
        # The reader of the output has ended, as `head` does. Without a stdout Python cannot complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return CANNOT
    except KeyboardInterrupt:
        return _INTERRUPTED


def _code(error: Exception) -> int:
    """1 where the answer is no: Flink or the job does not do it, a rule is no good. Otherwise 2."""
    from pipeline.errors import SubmissionError
    from pipeline.job.checkpoint_storage import S3Error
    from pipeline.job.jobs import NoJobError
    from pipeline.job.user_inspection import NoAnswerError
    from transforms.domain.rules.model import RuleError

    no = (FlinkRunnerError, SubmissionError, NoJobError, NoAnswerError, S3Error, RuleError)
    return 1 if isinstance(error, no) else CANNOT


# Arguments that no command takes


def _wrong_use(error: usage.CycloptsError) -> str:
    """What is wrong with the arguments, and what is allowed, in one line."""
    command = " ".join(error.command_chain or ())
    unused = error.unused_tokens or []
    if isinstance(error, usage.UnknownOptionError):
        return _unknown_option(error, error.token.keyword or error.token.value, command)
    if isinstance(error, usage.UnknownCommandError):
        return _unknown_command(error, unused[0], command)
    if isinstance(error, usage.MissingArgumentError) and error.argument is not None:
        unknown = next((word for word in unused if word.startswith("-") and word != "--"), None)
        if error.keyword is None and unknown is not None:
            return _unknown_option(error, unknown, command)
        name = error.argument.name
        text = next((argument.parameter.help for argument in _arguments(error) if argument.name == name), None)
        missing = "is missing" if error.keyword is None else "lacks its value"
        return f"{name} {missing}: {'give ' + text.rstrip('.') if text else _help_line(command)}"
    if isinstance(error, usage.CoercionError) and error.token is not None and error.argument is not None:
        choices = ", ".join(map(str, get_args(error.target_type)))
        allowed = _WORDS.get(error.target_type or str) or choices or getattr(error.target_type, "__name__", "a text")
        return f"{error.argument.name} is {error.token.value!r}, allowed: {allowed}"
    if isinstance(error, usage.UnusedCliTokensError):
        if unused[0] in COMMANDS and command == "run":
            others = [word for word in error.root_input_tokens or () if word not in ("run", unused[0])]
            return f"{unused[0]!r} comes first: {' '.join(['event-trigger', unused[0], *others])}"
        hint = did_you_mean(unused[0], _options(error), "--")
        return f"{unused[0]!r} is one argument too many{f': {hint}' if hint else f'; {_help_line(command)}'}"
    return f"{error}; {_help_line(command)}"


def _unknown_option(error: usage.CycloptsError, option: str, command: str) -> str:
    name, _, _ = option.partition("=")
    hint = did_you_mean(name.lstrip("-"), [*_options(error), "help", "version"], "--")
    return f"unknown option {name!r}: {hint or _help_line(command)}"


def _unknown_command(error: usage.CycloptsError, word: str, command: str) -> str:
    names = [name for name in (error.app or ()) if not name.startswith("-")]
    hint = did_you_mean(word, names) or f"allowed: {', '.join(names)}"
    return f"unknown command {f'{command} {word}'.strip()!r}: {hint}"


def _options(error: usage.CycloptsError) -> list[str]:
    return [argument.name.lstrip("-") for argument in _arguments(error)]


def _arguments(error: usage.CycloptsError) -> Sequence[Argument]:
    """The arguments of the command, with their texts."""
    app = error.app
    return app.assemble_argument_collection(parse_docstring=True) if app and app.default_command else ()


def _help_line(command: str) -> str:
    return f"event-trigger {f'{command} ' if command else ''}--help lists what there is"
