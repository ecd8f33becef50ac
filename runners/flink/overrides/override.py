"""What an override is, and how to see that Beam has changed under it."""

import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_WORKER = "apache_beam.runners.worker"


@dataclass(frozen=True)
class Override:
    """A replacement for one function of Beam's Python worker.

    ``target`` is what it replaces, named from ``apache_beam.runners.worker`` on. ``written_against`` has the
    ``source_digest`` of every part of Beam that the replacement imitates or uses, by such names.
    """

    replacement: Callable[..., Any]
    target: str
    written_against: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of the replacement."""
        return self.replacement.__name__

    def install(self) -> None:
        """Replace the target in this process."""
        owner, attribute = self.owner
        setattr(owner, attribute, self.replacement)

    @property
    def owner(self) -> tuple[Any, str]:
        """The module or class that has the target, and the target's name in it."""
        owner, _, attribute = self.target.rpartition(".")
        return _resolve(owner), attribute


def changed_sources(written_against: Mapping[str, str]) -> dict[str, str]:
    """The parts of the installed Beam whose source has another digest: the digest found, or ``missing``, by name."""
    found = {name: source_digest(name) for name in written_against}
    return {name: digest for name, digest in found.items() if digest != written_against[name]}


def source_digest(name: str) -> str:
    """The first 16 hex digits of the SHA-256 of the source of a part of Beam's worker; ``missing`` without the part."""
    try:
        part = _resolve(name)
    except (ImportError, AttributeError):
        return "missing"
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]


def _resolve(name: str) -> Any:
    module, *attributes = name.split(".")
    return functools.reduce(getattr, attributes, importlib.import_module(f"{_WORKER}.{module}"))
