"""Writes inputs and outputs of the Terraform code into infra/terraform/README.md (`make readme`)."""

import re
import sys
from pathlib import Path

TERRAFORM = Path(__file__).resolve().parent / "terraform"
README = TERRAFORM / "README.md"

_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
_MARKS = ("<!-- tables: written by `make readme`, kept true by a test -->", "<!-- /tables -->")


def tables() -> str:
    """Inputs and outputs of the root module as Markdown, from variables.tf and outputs.tf."""
    lines = ["## Inputs", "", "| name | type | default | meaning |", "|---|---|---|---|"]
    for name, body in _blocks("variables.tf", "variable"):
        kind = _value(body, "type").partition("(")[0]
        inner = re.match(r"(?:map|list|set)\(\w+\)|\w+", _value(body, "type"))
        default = _value(body, "default")
        default_text = "required" if default == "" else f"`{default}`"
        lines.append(f"| `{name}` | {inner[0] if inner else kind} | {default_text} | {_text(body)} |")
    lines += ["", "## Outputs", "", "| name | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {_text(body)} |" for name, body in _blocks("outputs.tf", "output")]
    return "\n".join(lines)


def rendered(readme: str) -> str:
    """The README's text with the tables as they should be."""
    before, _, rest = readme.partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    return f"{before}{_MARKS[0]}\n\n{tables()}\n\n{_MARKS[1]}{after}"


def _blocks(file: str, kind: str) -> list[tuple[str, str]]:
    return [(name, body) for block, name, body in _BLOCK.findall((TERRAFORM / file).read_text()) if block == kind]


def _value(body: str, key: str) -> str:
    match = re.search(rf"^  {key} += (.*)$", body, re.MULTILINE)
    return match[1] if match else ""


def _text(body: str) -> str:
    return _value(body, "description").strip('"').replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(rendered(README.read_text()))
    sys.stdout.write(f"{README}\n")
