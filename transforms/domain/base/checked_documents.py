"""YAML files whose documents pydantic models check. Every problem names the file, the line and the field."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.model_errors import allowed
from transforms.domain.base.yaml_documents import Document, YamlError, read_documents
from transforms.domain.base.yaml_documents import Path as FieldPath

MAX_FILE_BYTES: Final = 1024 * 1024

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a file; ``line`` counts from 1, None means the whole file."""

    file: Path
    line: int | None
    detail: str

    def __str__(self) -> str:
        place = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.detail}"


class FileError(EventTriggerError, ValueError):
    """A file that cannot be used; the message does not name it, and shows nothing of what is in it."""


def read_file(file: Path, limit: int, folder: Path | None = None) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Args:
        file: the file. Pipes and devices are refused, as they may have no end.
        limit: more bytes are an error, and are not read.
        folder: a link has to lead to a file inside this folder. None: it may lead anywhere.

    Raises:
        FileError: it cannot be used.
    """
    try:
        if folder is not None and not file.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise FileError("a link out of its folder, allowed are files in it")
        return read_regular_file(file, limit)
    except IsADirectoryError:
        raise FileError("a folder, allowed is a file") from None
    except (OSError, RuntimeError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or 'links in a circle'}") from None


def read_regular_file(file: Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes, or one that a link leads to, as ``read_file`` does.

    Raises:
        FileError: it is no regular file or has more bytes.
        OSError: it cannot be read.
    """
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise FileError("no regular file")
        content = opened.read(limit + 1)
        size = max(len(content), os.fstat(opened.fileno()).st_size)
    if len(content) > limit:
        raise FileError(f"{size} bytes, allowed are {limit}")
    return content


def documents(file: Path, problems: list[Problem], folder: Path | None = None) -> Iterator[Document]:
    """Yield the documents of a file; append to ``problems`` when the file cannot be read or is not YAML.

    ``folder`` is as in ``read_file``.
    """
    try:
        yield from read_documents(read_file(file, MAX_FILE_BYTES, folder).decode())
    except FileError as error:
        problems.append(Problem(file, None, str(error)))
    except YamlError as error:
        problems.append(Problem(file, error.line, f"not YAML: {error}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(file, None, f"not YAML: {error}"))


def validated(
    model: type[_Model],
    file: Path,
    document: Document,
    value: Any,
    problems: list[Problem],
    at: FieldPath = (),
    *,
    more_fields: Collection[str] = (),
    shown: Collection[str] | None = None,
) -> _Model | None:
    """Validate ``value`` with a model.

    Args:
        model: the model.
        file: the file, for problems.
        document: the document that holds the value.
        value: the plain value.
        problems: receives a problem for every validation error.
        at: path of the value in the document.
        more_fields: fields that the file may have there in addition to the model's.
        shown: fields whose values an error may show (None: all). Values that may be secrets are not shown.

    Returns:
        The validated model, None if there are problems.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for details in map(_of_tag, (details for details in errors if not _is_only_too_short(details, errors))):
            path, field_name = place_of(value, details["loc"])
            visible = shown is None or (field_name != () and field_name[0] in shown)
            known = (*_fields_at(model, field_name[:-1]), *(more_fields if len(field_name) == 1 else ()))
            name = ".".join(map(str, (*at, *field_name))) or model.__name__.lower()
            detail = _detail(name, details, known, visible)
            problems.append(Problem(file, document.line_of((*at, *path)), detail))
        return None


def _fields_at(model: type[BaseModel], place: FieldPath) -> list[str]:
    """The fields that a model may have at a place inside it."""
    models = [model]
    for name in place:
        if isinstance(name, str):  # items of lists are of their field's models
            fields = [
                field for inner in models for key, field in inner.model_fields.items() if name in (key, field.alias)
            ]
            models = [inner for field in fields for inner in _models_in(field.annotation)]
    return [field.alias or key for inner in models for key, field in inner.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _is_only_too_short(details: Any, errors: Sequence[Any]) -> bool:
    """Whether a list is too short only without its invalid items, which pydantic reports, too."""
    at = details["loc"]
    return details["type"] == "too_short" and any(
        other["loc"][: len(at)] == at for other in errors if other is not details
    )


def _of_tag(details: Any) -> Any:
    """The error of a union's tag as one of the tag's field."""
    if details["type"] != "union_tag_invalid":
        return details
    context = details["ctx"]
    return {**details, "loc": (*details["loc"], context["discriminator"].strip("'")), "input": context["tag"]}


def place_of(value: Any, location: tuple[str | int, ...]) -> tuple[FieldPath, FieldPath]:
    """Return an error's path in a validated value and its field name, without what only pydantic has (union tags)."""
    path: list[str | int] = []
    name: list[str | int] = []
    for number, part in enumerate(location):
        inside = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if inside or (isinstance(value, dict) and part in value):
            value = value[part]
            path.append(part)
            name.append(part)
        elif number == len(location) - 1 and isinstance(value, dict):
            name.append(part)
    return tuple(path), tuple(name)


def _detail(name: str, error: Any, known: Collection[str], visible: bool) -> str:
    """Format ``field is value: what is allowed``; none of it is pydantic's wording."""
    value = f" is {error['input']!r}" if visible else ""
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name.rpartition(".")[2], known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{name}{value}: no such field{hint}"
    if len(value) > 104 or (error["type"] == "value_error" and isinstance(error["input"], dict)):
        value = ""
    return f"{name}{value}: {allowed(error)}"
