"""Reads YAML into plain values and the line of each value, so that error messages can name the line.

Only a subset of YAML is read: ``yes``, ``on``, ``22:30``, ``010`` and dates are text, a duplicate key is an error, and
anchors and tags are not available.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from transforms.domain.base.errors import EventTriggerError

Path = tuple[str | int, ...]

_MAX_DEPTH: Final = 50


class YamlError(EventTriggerError, ValueError):
    """Text that is not YAML, or YAML outside the subset; ``line`` counts from 1."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(detail)
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document. Lines count from 1.

    Attributes:
        value: the plain value.
        line: the document's first line.
        lines: line of each mapping value (the line of its key) and each list item, by path.
        text_lines: line on which the text of each scalar begins, by path.
        cuts: line and text of what YAML takes for a comment behind a text without quotes, though ``#`` has no space
            after it, by path.
    """

    value: Any
    line: int
    lines: Mapping[Path, int] = field(default_factory=dict)
    text_lines: Mapping[Path, int] = field(default_factory=dict)
    cuts: Mapping[Path, tuple[int, str]] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """Return the line of a path, or of its closest parent that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars only by the list below."""


_Loader.yaml_implicit_resolvers = {}

for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"^[-+]?[0-9]+(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+][0-9]+)$", "-+0123456789"),
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_documents(text: str) -> Iterator[Document]:
    """Yield the documents of a text, without empty ones.

    Raises:
        YamlError: the text is not YAML of this subset; ``line`` is the first such line.
    """
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()) is not None:
            document = Document(None, node.start_mark.line + 1, {}, {}, {})
            value = _Builder(loader, document, text).build(node, ())
            if value is not None:
                yield replace(document, value=value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        detail = " ".join(part for part in (error.context, error.problem) if part)
        hint = _cut_before(text, mark.line) if mark else ""
        raise YamlError(mark.line + 1 if mark else 1, " ".join(detail.split()) + hint) from None
    except yaml.YAMLError as error:
        raise YamlError(1, " ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError(1, f"nested deeper than {_MAX_DEPTH} levels") from None


def _cut_before(text: str, line: int) -> str:
    """What may be behind an error: a ``#`` on this line (from 0) or the one before that YAML takes for a comment."""
    lines = text.splitlines()[max(0, line - 1) : line + 1]
    cut = next((match for match in map(_CUT_IN_LINE.search, lines) if match), None)
    return "" if cut is None else f"; {cut_message(cut[1])}"


def cut_message(cut: str) -> str:
    """What to write instead of a text that YAML cuts."""
    shown = cut if len(cut) <= _SHOWN_CUT else f"{cut[:_SHOWN_CUT]}…"
    return f"YAML takes {shown!r} for a comment: write the text in quotes, or below a | on lines of its own"


class _Builder:
    def __init__(self, loader: _Loader, document: Document, text: str) -> None:
        self._loader = loader
        self._text = text
        self._cuts: Any = document.cuts
        self._lines: Any = document.lines
        self._text_lines: Any = document.text_lines
        self._seen: set[int] = set()

    def build(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        if id(node) in self._seen:
            raise YamlError(line, "anchors and aliases are not available: write the value out")
        self._seen.add(id(node))
        if len(path) > _MAX_DEPTH:
            raise YamlError(line, f"nested deeper than {_MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            for number, item in enumerate(node.value):
                self._lines[(*path, number)] = item.start_mark.line + 1
            return [self.build(item, (*path, number)) for number, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag.rpartition(":")[2] not in _SCALARS:
            raise YamlError(line, f"tag {node.tag!r} is not available")
        if _SURROGATE.search(node.value):
            raise YamlError(line, f"{node.value[:50]!r} has half a surrogate pair, which is no Unicode text")
        self._text_lines[path] = line + 1 if node.style in ("|", ">") else line
        if node.style is None and node.tag.endswith((":str", ":null")):
            cut = _CUT.match(self._text, node.end_mark.index)
            if cut is not None:
                self._cuts[path] = (node.end_mark.line + 1, cut[1])
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError, IndexError):
            raise YamlError(line, f"{node.value!r} is no {node.tag.rpartition(':')[2]}") from None
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise YamlError(line, f"{node.value[:50]}… is a number that cannot be written: write it as a text")
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.build(key_node, (*path, "")) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                shown = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "with parts"
                raise YamlError(line, f"key {shown} is no text: quote it")
            if key in mapping:
                raise YamlError(line, f"key {key!r} is given twice")
            self._lines[(*path, key)] = line
            mapping[key] = self.build(value_node, (*path, key))
        return mapping


# As of an escape like "\\ud83d" without its second half.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# A comment behind a text, if its first word follows at once: `# comment` is one that is meant.
_CUT: Final = re.compile(r"[ \t]+(#\S[^\r\n]*)")
_CUT_IN_LINE: Final = re.compile(r"\S[ \t]+(#\S[^\r\n]*)")
_MAX_BITS: Final = 14_000  # Python writes no number of more than 4300 digits
_SHOWN_CUT: Final = 40
_SCALARS: Final = ("str", "int", "float", "bool", "null")
