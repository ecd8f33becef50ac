"""The files that ``rules backtest`` reads: recorded events and profiles."""

from __future__ import annotations

import contextlib
import gzip
import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import OptionError
from transforms.adapters.http.calls import CallError
from transforms.adapters.user_api.answers import USER, fetched_user
from transforms.domain.base import exact_json
from transforms.domain.simulation.backtest import Fetch
from transforms.domain.simulation.recordings import RecordingError
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser


@contextlib.contextmanager
def open_lines(name: str) -> Iterator[Iterator[bytes]]:
    """The lines of a file while the context is open; ``.gz`` files are unpacked, ``-`` is standard input.

    Raises:
        OSError: the file cannot be opened.
        RecordingError: while reading, if a ``.gz`` file is damaged.
    """
    if name == "-":
        yield iter(sys.stdin.buffer)
        return
    with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as lines:
        yield _checked(lines, name)


def _checked(lines: Iterable[bytes], name: str) -> Iterator[bytes]:
    try:
        yield from lines
    except (gzip.BadGzipFile, EOFError) as error:
        raise RecordingError(f"{name}: no gzip file, or the end is missing: {error}") from None


def read_profiles(path: Path, history_fields: tuple[str, ...]) -> Fetch:
    """A user API that answers from a file of JSON Lines; users that are not in the file are unknown.

    Lines are decoded twice, when they are checked and when their user is fetched: decoded, all of them may not fit
    into memory.

    Raises:
        OptionError: a line is no user, or a user is there twice.
        RecordingError: a ``.gz`` file is damaged.
    """
    lines_by_user: dict[str, bytes] = {}
    with open_lines(str(path)) as lines:
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(BOM_UTF8 if number == 1 else b"")
            if not line.strip():
                continue
            try:
                user_id = _user(line, history_fields)[0]
            except (CallError, ValueError) as error:
                raise OptionError(f"{path}:{number}: {error}") from None
            if user_id in lines_by_user:
                raise OptionError(f"{path}:{number}: user {user_id!r} is there twice")
            lines_by_user[user_id] = line

    def fetch(user_id: str) -> FetchedUser:
        line = lines_by_user.get(user_id)
        return NOTHING_KNOWN if line is None else _user(line, history_fields)[1]

    return fetch


def _user(line: bytes, history_fields: tuple[str, ...]) -> tuple[str, FetchedUser]:
    document = exact_json.loads(line)
    if not isinstance(document, dict) or not isinstance(document.get("user_id"), str):
        raise ValueError("allowed is an object with user_id, profile, and perhaps visit and history")
    fetched = fetched_user({USER: line}, history_fields)
    if fetched.problems:
        raise ValueError("; ".join(fetched.problems))
    return document["user_id"], fetched
