"""Writes inputs and outputs of the Terraform code into infra/terraform/README.md (`make readme`)."""

import re
import sys
from pathlib import Path

from infra.changes import CHANGES

TERRAFORM = Path(__file__).resolve().parent / "terraform"
README = TERRAFORM / "README.md"

_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
_MARKS = ("<!-- tables: written by `make readme`, kept true by a test -->", "<!-- /tables -->")

# What the words of the last column mean, one a line.
_EFFECTS = (
    "The last column says what changing an input of an existing cluster does. Plans show it in a test.",
    "",
    "- *nothing*: it is only checked, or counts only for what is made anew.",
    "- *next launch*: outputs change; the next `deploy` uses them. Nodes and the running job stay as they are.",
    "- *in place*: no node is replaced. More or fewer nodes of a group are started or taken away.",
    "- *rolls …*: nodes of these groups are replaced one after the other; each replaced TaskManager restarts the job.",
    "- *ZooKeeper by hand*: a ZooKeeper node gets it when you replace that node.",
    "- *refused*: the plan fails. It takes another cluster.",
)


def tables() -> str:
    """Inputs and outputs of the root module as Markdown, from variables.tf and outputs.tf."""
    lines = ["## Inputs", "", *_EFFECTS, "", "| name | type | default | meaning | a change |", "|---|---|---|---|---|"]
    for name, body in _blocks("variables.tf", "variable"):
        kind = _value(body, "type").partition("(")[0]
        inner = re.match(r"(?:map|list|set)\(\w+\)|\w+", _value(body, "type"))
        default = _value(body, "default")
        default_text = "required" if default == "" else f"`{default}`"
        effect = CHANGES[name].effect
        lines.append(f"| `{name}` | {inner[0] if inner else kind} | {default_text} | {_text(body)} | {effect} |")
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
